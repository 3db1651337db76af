"""Cards that are known to be there and show no power: guessed widely, never left out."""

from dataclasses import replace

import pytest

from heatpool.sample import QualityClass
from heatpool_agent.core import attribution, mute_cards
from heatpool_agent.core.attribution import cover
from heatpool_agent.core.coefficients import LOAD as OF_LOAD
from heatpool_agent.core.coefficients import Coefficients, Learned
from heatpool_agent.core.learned_power import improved
from heatpool_agent.core.levels import HostLoad, NodePower, host_loads, levels
from heatpool_agent.core.reading import Node, Reading, ReadingKind

# Of 16 threads the CPU count alone makes some 35 W.
LOAD = HostLoad(busy_frac=0.5, logical_cpu_count=16)
FOUR = replace(LOAD, mute_rated_w=4 * 400.0)
PACKAGES = tuple(
    NodePower(node=Node.PACKAGE, channel=f"powercap/{at}", power_w=200.0, sensor="rapl")
    for at in range(2)
)


def reading(quantity: str, value: float, *, channel: str = "nvml/0", **more: object) -> Reading:
    plain = Reading(
        sensor="cards",
        channel=channel,
        quantity=quantity,
        kind=ReadingKind.STATE,
        value=value,
        event_ns=0,
        boot_ns=0,
        node=Node.GPU,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("busy_frac", "cpus", "rated_w", "true_w"),
    [
        # Two packages of 350 W and four cards of 400 W at work; the same at rest.
        (0.9, 16, 1600.0, 1700.0),
        (0.02, 16, 1600.0, 350.0),
        # Two packages of 195 W with 8 cores each, and a small server.
        (1.0, 16, 0.0, 500.0),
        (0.5, 8, 0.0, 45.0),
        (0.7, 128, 8 * 700.0, 6500.0),
    ],
)
def test_a_plausible_server_lies_within_three_u_of_its_model(
    busy_frac: float, cpus: int, rated_w: float, true_w: float
) -> None:
    load = HostLoad(busy_frac=busy_frac, logical_cpu_count=cpus, mute_rated_w=rated_w)
    found = cover({}, load=load)
    assert found is not None
    assert found.whole.quality is QualityClass.E
    assert abs(found.whole.value - true_w) <= 3 * found.whole.u
    assert sum(part.power_w for part in found.parts) == pytest.approx(found.whole.value)


def test_cards_that_fell_silent_without_a_rating_are_still_there() -> None:
    known = {(Node.GPU, "cards", "nvml"): 4}
    found = cover(levels((), known=known), load=LOAD)
    assert found is not None
    assert "remainder:cards" in found.whole.flags
    assert abs(found.whole.value - 1700.0) <= 2 * found.whole.u


def test_packages_beside_mute_cards_are_no_class_d() -> None:
    plain, found = (cover(levels(PACKAGES), load=load) for load in (LOAD, FOUR))
    assert plain is not None and found is not None
    assert plain.whole.quality is QualityClass.D
    assert found.whole.quality is QualityClass.E
    cards_w = mute_cards.OF_RATED_FRAC * 1600.0 / attribution.PSU_EFFICIENCY
    assert found.whole.value == pytest.approx(plain.whole.value + cards_w)
    assert abs(found.whole.value - 2100.0) <= 2 * found.whole.u


@pytest.mark.parametrize("told", ["power_w", "energy_j", "is_suspended"])
def test_only_cards_that_show_no_power_are_guessed(told: str) -> None:
    cards = [reading("rated_w", 400.0), reading("rated_w", 300.0, channel="nvml/1")]
    assert mute_cards.rated_w(cards) == 700.0
    assert mute_cards.rated_w([*cards, reading(told, 1.0)]) == 300.0
    refused = reading("power_w", 1e9, flags=("out_of_range",))
    assert mute_cards.rated_w([*cards, refused]) == 700.0


def test_a_package_s_rating_is_no_card_s_and_each_host_has_its_own_cards() -> None:
    told = [
        reading("logical_cpu_count", 16.0, channel="cpu", node=Node.HOST, sensor="one"),
        reading("logical_cpu_count", 16.0, channel="cpu", node=Node.HOST, sensor="two"),
        reading("rated_w", 400.0, sensor="two"),
        reading("rated_w", 350.0, sensor="two", node=Node.PACKAGE, channel="powercap/0"),
    ]
    loads = host_loads(told, {"one": "a", "two": "b"})
    assert {name: load.mute_rated_w for name, load in loads.items()} == {"a": 0.0, "b": 400.0}


def test_cards_alone_make_no_host() -> None:
    assert host_loads([reading("rated_w", 400.0)], {}) == {}


def test_what_was_learnt_of_the_load_holds_its_cards_and_adds_them_no_second_time() -> None:
    plain = cover({}, load=FOUR)
    assert plain is not None
    known = Coefficients(
        kind=OF_LOAD,
        subject="",
        values=(400.0, 1200.0),
        covariance=((1.0, 0.0), (0.0, 1.0)),
        residual_u_frac=0.05,
        count=100,
        learned_ns=0,
        reference="chassis",
        reference_u_frac=0.05,
        quality=int(QualityClass.B),
        lows=(0.0,),
        highs=(1.0,),
        centre=0.5,
        scatter=0.3,
    )
    found = improved(plain, FOUR, Learned(load=known))
    assert found.whole.quality is QualityClass.C
    assert found.whole.value == pytest.approx(1000.0, rel=0.05)
    assert sum(part.power_w for part in found.parts) == pytest.approx(found.whole.value)
    assert not any(flag.startswith("remainder:") for flag in found.whole.flags)
