"""Meters that read one thing count once; feeds that share a load equally never do."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from heatpool.sample import Estimate, QualityClass
from heatpool_agent.config import loop_priors
from heatpool_agent.core import levels, tree, twins
from heatpool_agent.core.levels import TWIN, TWIN_SUSPECTED, NodePower
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.loop_look import LoopLook, LoopSettings, Pass

S = 1_000_000_000
# A load that moves by far more than a fifth, again and again.
LOADS_W = [700.0 + 25.0 * (step % 17) for step in range(90)]


def meter(sensor: str, power_w: float, **more: object) -> NodePower:
    plain = NodePower(node=Node.SITE_METER, channel="total", power_w=power_w, sensor=sensor)
    return replace(plain, **more)  # type: ignore[arg-type]


def chassis(power_w: float, sensor: str = "bmc", **more: object) -> NodePower:
    plain = NodePower(node=Node.CHASSIS, channel="power", power_w=power_w, sensor=sensor)
    return replace(plain, **more)  # type: ignore[arg-type]


def supply(power_w: float, channel: str = "psu1") -> NodePower:
    return NodePower(node=Node.PSU_IN, channel=channel, power_w=power_w, sensor="bmc")


def package(power_w: float, number: int = 0) -> NodePower:
    channel = f"powercap/intel-rapl:{number}"
    return NodePower(node=Node.PACKAGE, channel=channel, power_w=power_w, sensor="rapl")


class Site:
    """A loop whose meters are watched from look to look."""

    def __init__(self) -> None:
        self.state = twins.Twins()
        self.known: dict[levels.Source, int] = {}
        self.boot_ns = 0

    def look(self, *powers: NodePower) -> twins.Told:
        hosts = {p.sensor: p.host for p in powers}
        self.known |= {s: n for s, n in levels.seen(powers).items() if n > self.known.get(s, 0)}

        def below(host: str) -> Estimate | None:
            return tree.metered_power(powers, host, known=self.known, hosts=hosts)

        self.state = twins.observe(self.state, powers, below)
        return twins.told(self.state, powers, self.known)

    def power(self, *powers: NodePower) -> Estimate:
        """What is drawn, after one look more."""
        told = self.look(*powers)
        found, _ = tree.grow(told.powers, tree.TreeState(), loads={}, known=told.known, boot_ns=0)
        assert found.power is not None
        return found.power.whole


def marks(told: twins.Told, mark: str) -> set[str]:
    return {p.sensor for p in told.powers if mark in p.flags}


def test_meters_of_one_cable_count_once_and_by_the_best_of_them() -> None:
    site = Site()
    for load_w in LOADS_W:
        four = [meter("a", load_w), meter("b", 1.004 * load_w, power_w_u=4.0)]
        four += [meter("c", 0.995 * load_w), meter("d", load_w)]
        told = site.look(*four, chassis(1.02 * load_w))
    assert told.repeats == {"a", "c", "d"} == marks(told, TWIN)
    found = site.power(*four, chassis(1.02 * LOADS_W[-1]))
    assert found.value == pytest.approx(1.004 * LOADS_W[-1])
    assert (found.quality, found.flags) == (QualityClass.B, ("nodes:site_meter",))


def test_a_silent_twin_leaves_the_word_to_the_other() -> None:
    site = Site()
    for load_w in LOADS_W:
        site.look(meter("a", load_w), meter("b", load_w, power_w_u=4.0), chassis(load_w))
    assert site.power(meter("a", 800.0), chassis(800.0)).flags == ("nodes:site_meter",)
    assert site.power(meter("b", 800.0), chassis(800.0)).flags == ("nodes:site_meter",)
    assert site.power(chassis(800.0)).flags == ("nodes:chassis",)


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(lambda w: [chassis(w)], id="chassis"),
        pytest.param(lambda w: [supply(w / 2), supply(w / 2, "psu2")], id="both supplies"),
        pytest.param(lambda w: [supply(w / 2)], id="one supply of two"),
        pytest.param(
            # With what no counter shows about half the load at the wall.
            lambda w: [package(0.15 * w), package(0.15 * w, 1)],
            id="packages among much unseen",
        ),
        pytest.param(lambda w: [chassis(w / 2, power_w_u=0.3 * w)], id="a doubtful word"),
        pytest.param(lambda w: [], id="nothing below"),
    ],
)
def test_feeds_that_share_a_load_equally_always_add_up(inner: object) -> None:
    site = Site()
    for load_w in LOADS_W:
        below = inner(load_w)  # type: ignore[operator]
        told = site.look(meter("a", load_w / 2), meter("b", load_w / 2), *below)
        assert told.repeats == frozenset()


def test_feeds_whose_sum_the_servers_confirm_are_not_even_suspected() -> None:
    site = Site()
    for load_w in LOADS_W:
        found = site.power(meter("a", load_w / 2), meter("b", load_w / 2), chassis(load_w))
    assert (found.quality, found.flags) == (QualityClass.B, ("nodes:site_meter",))


def test_without_a_word_from_below_equal_meters_are_added_and_suspected() -> None:
    site = Site()
    for load_w in LOADS_W:
        found = site.power(meter("a", load_w), meter("b", load_w))
    assert found.value == 2 * LOADS_W[-1]
    assert found.quality is QualityClass.C
    assert found.flags == ("nodes:site_meter", "twin_suspected:a+b")


def test_a_first_look_that_only_one_of_them_fits_is_suspected_at_once() -> None:
    told = Site().look(meter("a", 1080.0), meter("b", 1081.0), chassis(1084.0))
    assert (told.repeats, marks(told, TWIN_SUSPECTED)) == (frozenset(), {"a", "b"})


@pytest.mark.parametrize(
    "loads_w",
    [[800.0 + step % 3 for step in range(90)], LOADS_W[:20], [5.0 + w / 100 for w in LOADS_W]],
)
def test_a_still_a_short_and_an_idle_agreement_merge_nothing(loads_w: Sequence[float]) -> None:
    site = Site()
    for load_w in loads_w:
        told = site.look(meter("a", load_w), meter("b", load_w), chassis(load_w))
        assert told.repeats == frozenset()


def test_meters_of_different_hosts_are_never_one() -> None:
    site = Site()
    for load_w in LOADS_W:
        ours = [meter("a", load_w, host="x"), chassis(load_w, "bx", host="x")]
        told = site.look(*ours, meter("b", load_w, host="y"), chassis(load_w, "by", host="y"))
    assert (told.repeats, marks(told, TWIN_SUSPECTED)) == (frozenset(), set())


def test_meters_that_part_are_two_again() -> None:
    site = Site()
    for load_w in LOADS_W:
        site.look(meter("a", load_w), meter("b", load_w), chassis(load_w))
    for load_w in LOADS_W:
        told = site.look(meter("a", load_w), meter("b", 2 * load_w), chassis(load_w))
    assert told.repeats == frozenset()


def test_servers_that_come_to_fit_the_sum_undo_a_twin() -> None:
    site = Site()
    for load_w in LOADS_W:
        site.look(meter("a", load_w), meter("b", load_w), chassis(load_w))
    for load_w in LOADS_W:
        told = site.look(meter("a", load_w), meter("b", load_w), chassis(2 * load_w))
    assert (told.repeats, marks(told, TWIN_SUSPECTED)) == (frozenset(), set())


def test_a_server_that_fell_silent_makes_no_witness_of_the_others() -> None:
    powers = [chassis(500.0, "one", host="one"), chassis(500.0, "two", host="two")]
    known, hosts = levels.seen(powers), {"one": "one", "two": "two"}
    both = tree.metered_power(powers, "", known=known, hosts=hosts)
    assert both is not None and both.value == 1000.0
    assert tree.metered_power(powers[:1], "", known=known, hosts=hosts) is None


def test_hidden_twins_are_found_and_hidden_feeds_are_never_merged() -> None:
    rng, found_count, covered = random.Random(20), 0, 0
    for _ in range(60):
        gains = [1 + rng.gauss(0, 0.01) for _ in range(2)]
        bmc_gain, site = 1 + rng.gauss(0, 0.04), Site()
        share = rng.choice([1.0, 0.5])
        level_w = rng.uniform(400.0, 5000.0)
        for _ in range(150):
            true_w = level_w * rng.uniform(0.6, 1.0)
            noisy = [share * true_w * gain * (1 + rng.gauss(0, 0.003)) for gain in gains]
            inner = chassis(round(true_w * bmc_gain * (1 + rng.gauss(0, 0.01))))
            power = site.power(meter("a", noisy[0]), meter("b", noisy[1]), inner)
        is_merged = any(one.is_one for one in site.state.pairs.values())
        assert not (is_merged and share == 0.5)
        found_count += is_merged or share == 0.5
        covered += abs(power.value - true_w) <= 2 * power.u
    assert found_count >= 58
    assert covered >= 57


def reading(sensor: str, node: Node, power_w: float, second: int) -> Reading:
    return Reading(
        sensor=sensor,
        channel="total",
        quantity="power_w",
        kind=ReadingKind.GAUGE,
        value=power_w,
        event_ns=second * S,
        boot_ns=second * S,
        node=node,
        loop="rack",
    )


def test_a_loop_counts_twins_once_and_marks_the_readings_of_the_others() -> None:
    look = LoopLook(
        LoopSettings(
            loop_id="rack",
            fluid="water",
            sensor_side="cold",
            priors=loop_priors("dlc")[0],
            reported_u_frac=0.05,
            rejection_capacity_w=None,
        ),
        is_first=True,
    )
    for second, load_w in enumerate(LOADS_W):
        names = (("a", Node.SITE_METER), ("b", Node.SITE_METER), ("bmc", Node.CHASSIS))
        judged = [reading(name, node, load_w, second) for name, node in names]
        tick = Pass(
            judged=judged, usable=judged, steps={}, hosts={}, mirrored=(), boot_ns=second * S
        )
        found = look.power(tick)
    assert found.power is not None
    assert found.power.whole.value == LOADS_W[-1]
    assert look.marks(tick, found) == {("b", "total", "power_w"): (TWIN,)}
    left = [r for r in judged if r.sensor != "b"]
    alone = look.power(replace(tick, judged=left, usable=left)).power
    assert alone is not None and alone.level == "site_meter"
