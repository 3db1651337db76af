"""Streams rolled up: absent is not zero, u is honest, temperatures mix by heat capacity rate."""

from decimal import Decimal
from math import isnan, nan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import AgreementId, Provenance, QualityClass, SiteId, VirtualSourceId
from heatpool_aggregator.core.agreement import Membership, Terms
from heatpool_aggregator.core.quantity import INDEX, QUANTITIES
from heatpool_aggregator.core.virtual_source import RollUp, is_fresh, leaf_of, roll_up

A, B, C, D, E = QualityClass
TERMS = Terms(agreement_id=AgreementId("A1"), price_eur_mwh=Decimal(30), round_eur=Decimal("0.01"))


def slots(*members: dict[str, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.full((len(members), len(QUANTITIES)), np.nan)
    for place, member in enumerate(members):
        for quantity, value in member.items():
            values[place, INDEX[quantity]] = value
    return values


def summed(*members: dict[str, float]) -> RollUp:
    return roll_up(slots(*members), np.zeros(len(members), np.int64), 1)


def stream(heat_rate_w: float, hot_c: float = 45, cold_c: float = 35, **more: float) -> Any:
    return {"heat_rate_w": heat_rate_w, "hot_c": hot_c, "cold_c": cold_c, **more}


def test_an_absent_member_is_neither_zero_nor_the_end_of_the_sum() -> None:
    sums = summed({"heat_rate_w": 100.0}, {"electric_w": 5.0}, {"heat_rate_w": -30.0})
    assert sums.heat_rate_w[0] == 70.0
    assert sums.electric_w[0] == 5.0


def test_no_member_gives_no_sum() -> None:
    sums = roll_up(slots({"heat_rate_w": 100.0}), np.array([-1]), 2)
    assert np.isnan(sums.heat_rate_w).all()
    assert sums.quality.tolist() == [0, 0]
    assert sums.provenance.tolist() == [0, 0]


def test_no_slot_at_all_gives_no_sum() -> None:
    sums = roll_up(slots(), np.zeros(0, np.int64), 1)
    assert isnan(sums.heat_rate_w[0])
    assert isnan(sums.hot_c[0])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1000, 1000)), max_size=30))
def test_group_sums_are_the_members_sums(pairs: list[tuple[int, int]]) -> None:
    values = slots(*({"heat_rate_w": float(w)} for _, w in pairs))
    sums = roll_up(values, np.array([g for g, _ in pairs], np.int64), 4)
    by_group = [[w for g, w in pairs if g == group] for group in range(4)]
    wanted = [float(sum(members)) if members else nan for members in by_group]
    np.testing.assert_equal(sums.heat_rate_w, wanted)


@pytest.mark.parametrize(
    ("members", "u_w"),
    [
        # Two meters: half of u shared, the rest by squares.
        ([(100, 10, A), (100, 10, A)], sqrt(2 * (100 - 25) + 10**2)),
        # Priors share their cause: nothing averages out.
        ([(100, 10, D), (100, 10, E)], 20),
        # A meter and a prior have no cause in common.
        ([(100, 10, A), (100, 10, D)], sqrt(200)),
        ([(100, 10, A), (100, nan, A)], nan),
        ([(100, 10, B)], 10),
    ],
)
def test_doubt_is_shared_within_a_cause(
    members: list[tuple[float, float, QualityClass]], u_w: float
) -> None:
    sums = summed(
        *({"heat_rate_w": w, "heat_rate_w_u": u, "quality": float(q)} for w, u, q in members)
    )
    assert sums.heat_rate_w_u[0] == pytest.approx(u_w, nan_ok=True)


doubts = st.lists(
    st.tuples(st.floats(0.1, 1e4), st.sampled_from(list(QualityClass))), min_size=1, max_size=20
)


@given(doubts)
def test_the_sum_is_never_surer_than_independent_nor_worse_than_all_shared(
    pairs: list[tuple[float, QualityClass]],
) -> None:
    sums = summed(
        *({"heat_rate_w": 1.0, "heat_rate_w_u": u, "quality": float(q)} for u, q in pairs)
    )
    independent = sqrt(sum(u * u for u, _ in pairs))
    assert independent * (1 - 1e-9) <= sums.heat_rate_w_u[0] <= sum(u for u, _ in pairs) * 1.000001


def test_temperatures_mix_by_heat_capacity_rate() -> None:
    # 10 kW over 10 K is half the heat capacity rate of 20 kW over 10 K.
    sums = summed(stream(10_000, 60, 50), stream(20_000, 45, 35))
    assert (sums.hot_c[0], sums.cold_c[0]) == pytest.approx((50, 40))


def test_a_stream_alone_shows_its_own_pipes_without_heat() -> None:
    sums = summed(stream(0.0, 40.0, 40.0), {"heat_rate_w": 500.0})
    assert (sums.hot_c[0], sums.cold_c[0]) == (40.0, 40.0)


def test_streams_at_rest_do_not_mix() -> None:
    sums = summed(stream(0.0, 40, 40), stream(0.0, 50, 50))
    assert isnan(sums.hot_c[0])


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(20, 60), st.floats(1, 30)), min_size=1))
def test_a_mixed_temperature_lies_between_its_streams(
    found: list[tuple[float, float, float]],
) -> None:
    sums = summed(*(stream(w, cold + spread, cold) for w, cold, spread in found))
    colds = [cold for _, cold, _ in found]
    assert min(colds) - 1e-6 <= sums.cold_c[0] <= max(colds) + 1e-6


@pytest.mark.parametrize(
    ("members", "quality"),
    [
        ([(100, A)], A),
        ([(95, A), (5, E)], A),
        ([(90, A), (10, E)], E),
        ([(90, A), (6, D), (5, E)], D),
        ([(0, B), (0, C)], C),
    ],
)
def test_a_class_counts_from_a_tenth_of_the_heat(
    members: list[tuple[float, QualityClass]], quality: QualityClass
) -> None:
    sums = summed(*({"heat_rate_w": w, "quality": float(q)} for w, q in members))
    assert sums.quality[0] == quality


@pytest.mark.parametrize(
    ("codes", "provenance"),
    [
        ((Provenance.REPORTED, Provenance.REPORTED), Provenance.REPORTED),
        ((Provenance.REPORTED, Provenance.COMPUTED), Provenance.FUSED),
    ],
)
def test_several_origins_are_fused(codes: tuple[Provenance, ...], provenance: Provenance) -> None:
    sums = summed(*({"heat_rate_w": 1.0, "provenance": float(code)} for code in codes))
    assert sums.provenance[0] == provenance


def member(source: str, from_ns: int | None = None, until_ns: int | None = None) -> Membership:
    return Membership(
        virtual_source_id=VirtualSourceId(source),
        site_id=SiteId("site-a"),
        from_ns=from_ns,
        until_ns=until_ns,
        terms=TERMS,
    )


@pytest.mark.parametrize(
    ("at_ns", "source"), [(99, None), (100, "old"), (199, "old"), (200, "new"), (10**9, "new")]
)
def test_membership_holds_from_its_start_until_just_before_its_end(
    at_ns: int, source: str | None
) -> None:
    members = [member("old", 100, 200), member("new", 200)]
    assert leaf_of(members, at_ns).get(SiteId("site-a")) == source


def test_three_periods_without_a_row_are_stale() -> None:
    now_ns = 1_000_000_000_000
    events = np.array([now_ns - 180_000_000_000, now_ns - 180_000_000_001, -1])
    assert is_fresh(events, now_ns, 60.0).tolist() == [True, False, False]


def test_a_row_of_the_far_future_is_not_fresh() -> None:
    now_ns = 1_000_000_000_000
    events = np.array([now_ns + 600_000_000_000, now_ns + 600_000_000_001])
    assert is_fresh(events, now_ns, 60.0).tolist() == [True, False]
