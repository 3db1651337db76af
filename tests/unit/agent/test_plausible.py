"""Admission: each oddity has its flag, nothing is lost, and honest extremes pass."""

from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.plausible import FLAGS, REJECTING, Past, is_admitted, judge, remember
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.redfish.flags import REFUSED

S = 1_000_000_000


def reading(quantity: str, value: float, *, boot_s: float = 100.0, **more: object) -> Reading:
    plain = Reading(
        sensor="s",
        channel="c",
        quantity=quantity,
        kind=ReadingKind.GAUGE,
        value=value,
        event_ns=0,
        boot_ns=round(boot_s * S),
        node=Node.CDU,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def flags(one: Reading, past: Past | None = None, **more: float) -> tuple[str, ...]:
    return judge(one, past, boot_ns=100 * S, period_s=1.0, **more).flags


@pytest.mark.parametrize(
    ("quantity", "value", "is_beyond"),
    [
        ("power_w", 91_226_112.0, True),  # 1392 W with its two words swapped
        ("power_w", 31_900.0, False),
        ("reported_heat_w", -73_138_176.0, True),
        ("volume_flow_m3_h", 5636.0, True),
        ("volume_flow_m3_h", 27.0, False),
        ("rated_w", 91_226_112.0, False),
        ("energy_j", 91_226_112.0, False),
    ],
)
def test_what_a_loop_cannot_carry_is_known_by_what_it_can_reject(
    quantity: str, value: float, *, is_beyond: bool
) -> None:
    one = reading(quantity, value)
    assert ("beyond_site" in flags(one, capacity_w=3200.0)) is is_beyond
    assert "beyond_site" not in flags(one)


@pytest.mark.parametrize(
    ("quantity", "value", "expected"),
    [
        ("hot_c", 45.0, ()),
        ("hot_c", 0.0, ()),
        ("hot_c", 180.0, ()),
        ("hot_c", 243.0, ("out_of_range",)),
        ("cold_c", -0.5, ("out_of_range",)),
        ("hot_c", nan, ("not_finite",)),
        ("power_w", inf, ("not_finite", "out_of_range")),
        ("power_w", 0.0, ()),
        ("power_w", -1.0, ("out_of_range",)),
        ("volume_flow_m3_h", -3.0, ()),
        ("volume_flow_m3_h", 65535.0, ("sentinel", "out_of_range")),
        ("heat_rate_w", 2_147_483_647.0, ("sentinel", "out_of_range")),
        ("heat_rate_w", 4_294_967_295.0, ("sentinel", "out_of_range")),
        ("busy_frac", 55.0, ("percent_as_fraction", "out_of_range")),
        ("efficiency_frac", 91.0, ("percent_as_fraction",)),
        ("efficiency_frac", 0.91, ()),
        ("frequency_frac", 1.4, ()),
        ("power", 5.0, ("unknown_unit",)),
    ],
)
def test_each_oddity_has_its_flag(quantity: str, value: float, expected: tuple[str, ...]) -> None:
    judged = reading(quantity, value)
    assert flags(judged) == expected
    assert is_admitted(replace(judged, flags=flags(judged))) == (not expected)


def test_a_sentinel_is_known_by_its_raw_count_too() -> None:
    assert "sentinel" in flags(reading("hot_c", 327.67, raw=0x7FFF, exponent=-2))


def test_a_counter_may_pass_through_any_number() -> None:
    counter = reading("energy_j", 65535.0, raw=65535, kind=ReadingKind.COUNTER)
    assert flags(counter) == ()


def test_a_state_needs_no_unit() -> None:
    assert flags(reading("leak", 1.0, kind=ReadingKind.STATE)) == ()


@pytest.mark.parametrize(("power_w", "expected"), [(890.0, ()), (910.0, ("out_of_range",))])
def test_a_source_gives_little_more_than_its_rating(
    power_w: float, expected: tuple[str, ...]
) -> None:
    assert flags(reading("power_w", power_w), rated_w=750.0) == expected


@pytest.mark.parametrize(
    ("value", "span_s", "expected"),
    [
        (60.0, 1.0, ("too_fast",)),
        (55.0, 1.0, ()),
        (60.0, 2.0, ()),
        # Two reads within one second: the limit is that of one second.
        (55.0, 0.1, ()),
        (20.0, 0.0, ()),
    ],
)
def test_water_does_not_jump(value: float, span_s: float, expected: tuple[str, ...]) -> None:
    past = Past(value=35.0, boot_ns=round((100 - span_s) * S))
    assert flags(reading("hot_c", value), past) == expected


def watch(values: list[float], powers_w: list[float], quantity: str = "hot_c") -> tuple[str, ...]:
    past: Past | None = None
    for boot_s, (value, power_w) in enumerate(zip(values, powers_w, strict=True)):
        one = reading(quantity, value, boot_s=100.0 + boot_s)
        judged = judge(one, past, boot_ns=one.boot_ns, period_s=1.0)
        past = remember(past, judged, power_w=power_w)
    return judged.flags


MOVING = [1000.0 + 20.0 * n for n in range(20)]


@pytest.mark.parametrize(
    ("values", "powers_w", "quantity", "expected"),
    [
        ([35.0] * 20, MOVING, "hot_c", ("stuck",)),
        ([35.0] * 19, MOVING[:19], "hot_c", ()),
        ([35.0] * 20, [1000.0] * 20, "hot_c", ()),
        ([35.0] * 20, [1000.0, 1050.0] * 10, "hot_c", ()),
        ([*([35.0] * 19), 35.01], MOVING, "hot_c", ()),
        ([0.5] * 20, MOVING, "valve_frac", ()),
    ],
)
def test_stuck_is_twenty_equal_samples_while_power_moves(
    values: list[float], powers_w: list[float], quantity: str, expected: tuple[str, ...]
) -> None:
    assert watch(values, powers_w, quantity) == expected


def test_a_reading_judged_twice_is_one_sample() -> None:
    past = Past(value=35.0, boot_ns=100 * S, equal_count=19, low_w=1.0, high_w=2.0)
    assert flags(reading("hot_c", 35.0), past) == ()
    assert flags(reading("hot_c", 35.0, boot_s=101.0), past) == ("stuck",)


@pytest.mark.parametrize(("boot_s", "expected"), [(40.0, ()), (39.9, ("stale",))])
def test_what_is_published_stands_for_as_long_as_its_source_lets_it(
    boot_s: float, expected: tuple[str, ...]
) -> None:
    assert flags(reading("power_w", 300.0, boot_s=boot_s, holds_s=60.0)) == expected


@pytest.mark.parametrize(("boot_s", "expected"), [(97.0, ()), (96.9, ("stale",))])
def test_stale_is_more_than_three_periods_old(boot_s: float, expected: tuple[str, ...]) -> None:
    assert flags(reading("hot_c", 40.0, boot_s=boot_s)) == expected


@given(st.floats(), st.sampled_from(["hot_c", "power_w", "nonsense", "busy_frac"]))
def test_judging_changes_flags_only_and_judging_again_changes_nothing(
    value: float, quantity: str
) -> None:
    one = reading(quantity, value, flags=("unverified_map",))
    judged = judge(one, boot_ns=0, period_s=1.0)
    assert repr(replace(judged, flags=one.flags)) == repr(one)
    assert judged.flags[:1] == ("unverified_map",)
    assert judge(judged, boot_ns=0, period_s=1.0) is judged


def test_a_drivers_own_mark_does_not_refuse_a_reading() -> None:
    assert is_admitted(reading("hot_c", 40.0, flags=("unverified_map", "same_index")))


def test_what_a_bmc_contradicts_is_refused_here_too() -> None:
    assert REFUSED <= REJECTING


def test_every_mark_is_explained() -> None:
    assert all(text for _, text in FLAGS.values())
    assert {flag for flag, (is_rejecting, _) in FLAGS.items() if is_rejecting} <= REJECTING


def test_the_page_on_physics_lists_every_mark() -> None:
    page = (Path(__file__).parents[3] / "docs/physics.md").read_text(encoding="utf-8")
    for flag, (is_rejecting, text) in FLAGS.items():
        assert f"| `{flag}` | {'yes' if is_rejecting else 'no'} | {text} |" in page
