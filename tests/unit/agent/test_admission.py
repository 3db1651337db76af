"""Readings against each other: counters and power, supplies, meters; marks come and go."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from heatpool_agent.core import consistency, counter_check, mbus
from heatpool_agent.core.admission import Admission, Drawn, Scene
from heatpool_agent.core.counter_check import CounterCheck, Sample
from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step, StepKind

S = 1_000_000_000


def gauge(quantity: str, value: float, node: Node, channel: str = "psu/0/x") -> Reading:
    return Reading(
        sensor="s", channel=channel, quantity=quantity, kind=ReadingKind.GAUGE, value=value,
        event_ns=0, boot_ns=0, node=node,
    )  # fmt: skip


def counted(
    seconds: int,
    *,
    gain: float = 1.0,
    offset_w: float = 0.0,
    resolution_j: float = 0.001,
    state: CounterCheck | None = None,
    since_s: int = 0,
) -> CounterCheck:
    """The check after so many seconds at a load that swings between 200 and 300 W."""
    for second in range(since_s, since_s + seconds + 1):
        power_w = 250.0 + 50.0 * (second % 2)
        sample = Sample(
            boot_ns=second * S,
            power_w=power_w,
            delta_j=275.0 * gain + offset_w,
            resolution_j=resolution_j,
        )
        state = counter_check.advance(state, sample)
    assert state is not None
    return state


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.5, 1000.0, 0.001, 3.6])
def test_a_counter_that_its_power_contradicts_is_refused_after_half_a_minute(
    gain: float,
) -> None:
    assert not counted(29, gain=gain).is_refused
    assert counted(31, gain=gain).is_refused


@pytest.mark.parametrize("gain", [1.0, 0.85, 1.2])
def test_a_counter_as_good_as_its_gauge_is_left_alone(gain: float) -> None:
    assert not counted(7300, gain=gain).is_refused


def test_the_size_of_the_contradiction_is_kept() -> None:
    assert counted(31, gain=1.5).size_frac == pytest.approx(0.5, abs=0.01)


def test_a_refused_counter_is_believed_again_after_three_good_windows() -> None:
    bad = counted(31, gain=0.0)
    almost = counted(650, state=bad, since_s=32)
    assert almost.is_refused and almost.good_count == 2
    assert not counted(350, state=almost, since_s=683).is_refused


def test_after_the_first_window_a_counter_is_judged_once_an_hour() -> None:
    good = counted(31)
    assert not counted(3000, gain=0.0, state=good, since_s=32).is_refused
    assert counted(3700, gain=0.0, state=good, since_s=32).is_refused


def test_a_coarse_counter_is_given_time() -> None:
    # A tenth of a kWh at 275 W is one count in 22 min.
    assert not counted(1200, gain=0.0, resolution_j=360_000.0).is_refused


def test_a_step_that_is_no_measurement_opens_the_window_anew() -> None:
    state = counted(25, gain=0.0)
    gap = Sample(boot_ns=26 * S, power_w=250.0, delta_j=None, resolution_j=0.001)
    state = counter_check.advance(state, gap)
    assert not counted(20, state=state, since_s=27).is_refused


async def test_a_refused_counter_leaves_the_word_to_the_gauge() -> None:
    admission = Admission()
    energy = replace(
        gauge("energy_j", 1.0, Node.GPU, "nvml/0"), kind=ReadingKind.COUNTER, raw=1, exponent=-3
    )
    steps = {("s", "nvml/0"): Step(kind=StepKind.COUNTED, delta_j=0.0, power_w=0.0)}
    for second in range(40):
        pair = [
            replace(r, boot_ns=second * S)
            for r in (energy, gauge("power_w", 300.0, Node.GPU, "nvml/0"))
        ]
        admission.take("s", pair, steps)
    judged = admission.judged(pair, Scene(boot_ns=39 * S))
    assert [is_admitted(r) for r in judged] == [False, True]
    assert judged[0].flags == ("counter_disagrees",)


def passed(count: int, *readings: Reading) -> dict[tuple[str, str], tuple[str, ...]]:
    state = consistency.Doubts()
    for second in range(count):
        state = consistency.observe(state, read_at(second, readings))
    return consistency.flags(state)


def read_at(second: int, readings: Sequence[Reading]) -> list[Reading]:
    return [replace(reading, boot_ns=second * S) for reading in readings]


IN, OUT = Node.PSU_IN, Node.PSU_OUT
RATED = replace(gauge("rated_w", 750.0, IN, "psu/0/rating"), kind=ReadingKind.STATE)


@pytest.mark.parametrize(
    ("readings", "count", "expected"),
    [
        ([gauge("power_w", 750.0, IN), RATED], 21, {"rating_as_reading"}),
        ([gauge("power_w", 750.0, IN), RATED], 20, set()),
        ([gauge("power_w", 749.0, IN), RATED], 60, set()),
        ([gauge("power_w", 937.4, IN), gauge("power_w", 937.4, OUT, "psu/0/y")], 5,
         {"in_equals_out"}),
        ([gauge("power_w", 0.0, IN), gauge("power_w", 0.0, OUT, "psu/0/y")], 60, set()),
        ([gauge("power_w", 100.0, IN), gauge("power_w", 120.0, OUT, "psu/0/y")], 5,
         {"out_above_in"}),
        ([gauge("power_w", 100.0, IN), gauge("power_w", 104.0, OUT, "psu/0/y")], 60, set()),
        # Of two supplies each has its own input.
        ([gauge("power_w", 100.0, IN), gauge("power_w", 120.0, OUT, "psu/1/y")], 60, set()),
        ([gauge("power_w", 2300.0, Node.PDU), gauge("voltage_v", 230.0, Node.PDU, "psu/0/v"),
          gauge("current_a", 1.0, Node.PDU, "psu/0/a")], 5, {"above_volt_amperes"}),
        ([gauge("power_w", 150.0, Node.PDU), gauge("voltage_v", 230.0, Node.PDU, "psu/0/v"),
          gauge("current_a", 1.0, Node.PDU, "psu/0/a")], 60, set()),
    ],
)  # fmt: skip
def test_what_a_supply_or_a_meter_cannot_show_at_once_is_marked_after_a_while(
    readings: Sequence[Reading], count: int, expected: set[str]
) -> None:
    assert {flag for found in passed(count, *readings).values() for flag in found} == expected


def three_phases(power_w: float) -> list[Reading]:
    told = [gauge("power_w", power_w, Node.PDU, "words/power")]
    for phase in "abc":
        told.append(gauge(f"phase_{phase}_v", 230.0, Node.PDU, f"words/volts_{phase}"))
        told.append(gauge(f"phase_{phase}_a", 10.0, Node.PDU, f"words/amperes_{phase}"))
    return told


def test_three_phases_carry_their_power_together() -> None:
    assert passed(10, *three_phases(6_800.0)) == {}
    key = ("words/power", "power_w")
    assert passed(10, *three_phases(9_000.0)) == {key: ("above_volt_amperes",)}


def test_one_good_sample_ends_a_mark() -> None:
    bad = [gauge("power_w", 100.0, IN), gauge("power_w", 120.0, OUT, "psu/0/y")]
    good = [bad[0], replace(bad[1], value=95.0)]
    state = consistency.Doubts()
    for second, readings in enumerate((bad, bad, bad, bad, bad, good)):
        state = consistency.observe(state, read_at(second, readings))
    assert consistency.flags(state) == {}


def test_one_sample_shown_again_and_again_is_no_second_one() -> None:
    bad = [gauge("power_w", 100.0, IN), gauge("power_w", 120.0, OUT, "psu/0/y")]
    state = consistency.Doubts()
    for _ in range(60):
        state = consistency.observe(state, bad)
    assert consistency.flags(state) == {}


def test_a_mark_stands_while_its_samples_are_shown_again() -> None:
    bad = [gauge("power_w", 100.0, IN), gauge("power_w", 120.0, OUT, "psu/0/y")]
    state = consistency.Doubts()
    for second in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4):
        state = consistency.observe(state, read_at(second, bad))
    assert {flag for found in consistency.flags(state).values() for flag in found} == {
        "out_above_in"
    }


def meter(heat_w: float, energy_wh: float = 1000.0) -> list[Reading]:
    values = {"delivered_heat_w": heat_w, "volume_flow_m3_h": 1.0, "hot_c": 60.0, "cold_c": 40.0,
              "energy_wh": energy_wh, "volume_m3": 10.0}  # fmt: skip
    return [gauge(name, value, Node.HEAT_METER, f"meter/{name}") for name, value in values.items()]


@pytest.mark.parametrize(
    ("heat_w", "energy_wh", "expected"),
    [
        (22_900.0, 1000.0, set()),
        (22_900.0 / 3.6, 1000.0, {"implausible_k"}),
        (22.9, 1000.0, {"implausible_k"}),
        # 216 kWh/m3 is 180 K.
        (22_900.0, 3e6, {"implausible_energy_per_volume"}),
    ],
)
def test_a_heat_meter_that_contradicts_itself_is_marked(
    heat_w: float, energy_wh: float, expected: set[str]
) -> None:
    found = passed(1, *meter(heat_w, energy_wh))
    assert {flag for flags in found.values() for flag in flags} == expected


def test_bounds_are_those_of_the_codec_of_telegrams() -> None:
    assert (consistency.K_LOW_KWH_M3_K, consistency.K_HIGH_KWH_M3_K, consistency.MOST_KWH_M3) == (
        mbus.K_LOW_KWH_M3_K, mbus.K_HIGH_KWH_M3_K, mbus.MOST_KWH_M3,
    )  # fmt: skip


def stuck_after(count: int, reading: Reading, scene: Scene, *, swing: float) -> bool:
    """Whether a gauge that stands still is marked while something swings by this share."""
    admission = Admission()
    for second in range(count):
        gain = 1 + swing * (second % 2)
        moved = replace(
            scene,
            boot_ns=second * S,
            loops={name: replace(d, power_w=d.power_w * gain) for name, d in scene.loops.items()},
            hosts={name: replace(d, power_w=d.power_w * gain) for name, d in scene.hosts.items()},
        )
        (judged,) = admission.judged([replace(reading, boot_ns=second * S)], moved)
    return judged.flags == ("stuck",)


SCENE = Scene(
    boot_ns=0,
    loops={"rack": Drawn(power_w=9e3, basis=("nodes:pdu",))},
    hosts={"one": Drawn(power_w=400.0, basis=("package",))},
    places={"s": "one"},
)
HOT = replace(gauge("hot_c", 45.0, Node.CDU), loop="rack")


@pytest.mark.parametrize(
    ("reading", "swing", "expected"),
    [
        (HOT, 0.2, True),
        (HOT, 0.05, False),
        (replace(HOT, loop="row"), 0.2, False),
        (gauge("power_w", 600.0, Node.CHASSIS), 0.2, True),
        # Twenty watts of a rack's thousands.
        (gauge("power_w", 9000.0, Node.CHASSIS), 0.2, False),
        # An idle card stands still while others work.
        (gauge("power_w", 30.0, Node.GPU), 0.2, False),
    ],
)
def test_a_gauge_is_stuck_when_what_should_move_it_moves(
    reading: Reading, swing: float, expected: object
) -> None:
    assert stuck_after(30, reading, SCENE, swing=swing) == expected


def test_another_way_of_seeing_power_is_no_movement() -> None:
    admission = Admission()
    for second in range(40):
        basis = ("nodes:host",) if second < 15 else ("nodes:pdu",)
        drawn = Drawn(power_w=1e3 if second < 15 else 9e3, basis=basis)
        scene = Scene(boot_ns=second * S, loops={"rack": drawn})
        (judged,) = admission.judged([replace(HOT, boot_ns=second * S)], scene)
    assert judged.flags == ()
