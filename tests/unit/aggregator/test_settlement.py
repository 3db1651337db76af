"""Laws of the accounts: exact to the Wh, blind to order, never more than the register moved."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import LedgerError
from heatpool.period import Period
from heatpool.sample import (
    AgreementId,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    SiteId,
    VirtualSourceId,
)
from heatpool_aggregator.core.agreement import Membership, Terms
from heatpool_aggregator.core.metered import counted
from heatpool_aggregator.core.registers import METER_MAX_W, REFRESH_NS, movement_wh
from heatpool_aggregator.core.settlement import (
    PointSeries,
    StatementLine,
    is_continuous,
    settle,
    settle_all,
)

SITE, POINT = SiteId("site-1"), MeteringPointId("meter")
TERMS = Terms(
    agreement_id=AgreementId("hpa-1"),
    price_eur_mwh=Decimal("45.00"),
    round_eur=Decimal("0.01"),
)
ALWAYS = (
    Membership(
        virtual_source_id=VirtualSourceId("vs-1"),
        site_id=SITE,
        from_ns=None,
        until_ns=None,
        terms=TERMS,
    ),
)
S = 10**9


def period(start_s: int, end_s: int) -> Period:
    return Period(start_ns=start_s * S, end_ns=end_s * S)


HOUR = period(0, 3600)
NEXT_HOUR = period(3600, 7200)


def row(at_s: int, raw: int, **changes: Any) -> RegisterRow:
    plain = RegisterRow(
        metering_point_id=POINT,
        meter_id=MeterId("old"),
        event_ns=at_s * S,
        raw=raw,
        exponent=0,
        modulus=10**8,
        reason=RegisterReason.PERIODIC,
    )
    return replace(plain, **changes)


def lines(
    rows: Sequence[RegisterRow], span: Period = HOUR, members: Sequence[Membership] = ALWAYS
) -> tuple[StatementLine, ...]:
    return settle(PointSeries(site_id=SITE, point_id=POINT, rows=rows), span, members)


def energy_wh(rows: Sequence[RegisterRow], start_s: int, end_s: int) -> int:
    return sum(line.energy_wh for line in lines(rows, period(start_s, end_s)))


def exchange(at_s: int, closing: int, opening: int, *, pause_s: int = 0) -> list[RegisterRow]:
    return [
        row(at_s, closing, reason=RegisterReason.METER_CLOSING),
        row(
            at_s + pause_s,
            opening,
            meter_id=MeterId("new"),
            reason=RegisterReason.METER_OPENING,
        ),
    ]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[RegisterRow], int]:
    """Registers of one meter with any roll-overs, and the counts that it moved."""
    exponent = draw(st.integers(-3, 3))
    modulus = draw(st.sampled_from([10**4, 10**5, 10**8, 2**16, 2**32]))
    pauses_s = draw(st.lists(st.integers(1, 4000), min_size=1, max_size=11))
    most = [min(modulus // 2, int(METER_MAX_W / 3600 * s / 10**exponent)) for s in pauses_s]
    steps = [draw(st.integers(0, limit)) for limit in most]
    times_s = accumulate(pauses_s, initial=0)
    raws = accumulate(steps, initial=draw(st.integers(0, modulus - 1)))
    return [
        row(at_s, raw % modulus, exponent=exponent, modulus=modulus)
        for at_s, raw in zip(times_s, raws, strict=True)
    ], sum(steps)


def bounds_ns(rows: Sequence[RegisterRow], cuts_ns: Sequence[int]) -> list[int]:
    """First and last reading, and the cuts between them."""
    first_ns, last_ns = rows[0].event_ns, rows[-1].event_ns
    return sorted({first_ns, last_ns} | {cut for cut in cuts_ns if first_ns < cut < last_ns})


CUTS_NS = st.lists(st.integers(1, 44_000 * S), max_size=8)


@given(history=histories(), cuts_ns=CUTS_NS)
def test_energies_add_up_over_any_split(
    history: tuple[list[RegisterRow], int], cuts_ns: list[int]
) -> None:
    rows, _ = history
    parts = [
        sum(line.energy_wh for line in lines(rows, Period(start_ns=start, end_ns=end)))
        for start, end in pairwise(bounds_ns(rows, cuts_ns))
    ]
    assert sum(parts) == energy_wh(rows, 0, rows[-1].event_ns // S)
    assert all(part >= 0 for part in parts)


@given(history=histories(), cuts_ns=CUTS_NS)
def test_a_period_needs_no_more_than_the_readings_around_it(
    history: tuple[list[RegisterRow], int], cuts_ns: list[int]
) -> None:
    rows, _ = history
    for start_ns, end_ns in pairwise(bounds_ns(rows, cuts_ns)):
        before = [r for r in rows if r.event_ns <= start_ns][-1:]
        after = [r for r in rows if r.event_ns >= end_ns][:1]
        near = [*before, *(r for r in rows if start_ns < r.event_ns < end_ns), *after]
        span = Period(start_ns=start_ns, end_ns=end_ns)
        assert lines(near, span) == lines(rows, span)


@given(history=histories(), cuts_ns=CUTS_NS)
def test_neighbouring_periods_share_their_register(
    history: tuple[list[RegisterRow], int], cuts_ns: list[int]
) -> None:
    rows, _ = history
    settled = [
        lines(rows, Period(start_ns=start_ns, end_ns=end_ns))
        for start_ns, end_ns in pairwise(bounds_ns(rows, cuts_ns))
    ]
    assert all(is_continuous(before, after) for before, after in pairwise(settled))


@given(history=histories())
def test_nothing_is_sold_above_what_the_register_moved(
    history: tuple[list[RegisterRow], int],
) -> None:
    rows, moved = history
    exponent = rows[0].exponent
    sold_wh = energy_wh(rows, 0, rows[-1].event_ns // S)
    # A part of a Wh may have been under way at the start; a whole one is never made of nothing.
    assert sold_wh <= moved * 10**exponent + (0 if exponent >= 0 else 1)
    assert exponent < 0 or sold_wh == moved * 10**exponent


@given(history=histories(), start_ns=st.integers(0, 20_000 * S), length_s=st.integers(1, 20_000))
def test_two_ways_of_counting_agree(
    history: tuple[list[RegisterRow], int], start_ns: int, length_s: int
) -> None:
    rows, _ = history
    span = Period(start_ns=start_ns, end_ns=start_ns + length_s * S)
    result = settle_all([PointSeries(site_id=SITE, point_id=POINT, rows=rows)], span, ALWAYS)
    assert result.registers_wh == sum(line.energy_wh for line in result.lines)


@given(history=histories(), data=st.data())
def test_order_and_repetition_change_nothing(
    history: tuple[list[RegisterRow], int], data: st.DataObject
) -> None:
    rows, _ = history
    shuffled = data.draw(st.permutations([*rows, *rows[::2]]))
    span = Period(start_ns=rows[0].event_ns, end_ns=rows[-1].event_ns)
    assert lines(shuffled, span) == lines(rows, span)


def test_registers_off_the_ends_are_apportioned_linearly() -> None:
    rows = [row(-1800, 100), row(1800, 200), row(5400, 301)]
    (line,) = lines(rows)
    assert (line.register_open_wh, line.register_close_wh, line.energy_wh) == (150, 250, 100)
    assert (line.price_eur_mwh, line.amount_eur, line.flags) == ("45.00", "0.00", ())


def test_a_remainder_is_carried_to_the_next_period() -> None:
    rows = [row(0, 0), row(3, 10)]
    assert [energy_wh(rows, at_s, at_s + 1) for at_s in range(3)] == [3, 3, 4]


def test_a_roll_over_is_bridged_and_said() -> None:
    (line,) = lines([row(0, 99_999_900), row(3600, 50)])
    assert (line.register_open_wh, line.register_close_wh) == (99_999_900, 50)
    assert (line.energy_wh, line.flags) == (150, ("roll-over",))


def test_a_boundary_inside_a_rolling_step_shows_what_the_meter_showed() -> None:
    rows = [row(-1800, 99_999_900), row(1800, 300), row(3600, 400)]
    (line,) = lines(rows)
    assert (line.register_open_wh, line.register_close_wh) == (100, 400)
    assert (line.energy_wh, line.flags) == (300, ())


def test_a_fraction_of_a_wh_is_rounded_down_once_at_the_register() -> None:
    rows = [row(0, 1009, exponent=-1), row(3600, 2001, exponent=-1), row(7200, 2999, exponent=-1)]
    assert [energy_wh(rows, 0, 3600), energy_wh(rows, 3600, 7200)] == [100, 99]
    assert energy_wh(rows, 0, 7200) == 199


def test_a_changed_exponent_is_no_reset() -> None:
    rows = [row(0, 5, exponent=3, modulus=10**5), row(3600, 5500, exponent=0, modulus=10**8)]
    (line,) = lines(rows)
    assert line.energy_wh == 500


def test_an_exchange_gives_two_lines_and_no_energy_between() -> None:
    new = MeterId("new")
    rows = [
        row(0, 1000),
        *exchange(1200, 1100, 7, pause_s=300),
        row(3600, 107, meter_id=new),
    ]
    first, second = lines(rows)
    assert (first.meter_id, first.energy_wh, first.flags) == ("old", 100, ("exchange",))
    assert (second.meter_id, second.energy_wh, second.flags) == ("new", 100, ("exchange",))
    assert (first.register_close_wh, second.register_open_wh) == (1100, 7)


@pytest.mark.parametrize("cut_s", [1, 600, 1199, 1200, 1300, 1499, 1500, 2000, 3599])
def test_energies_add_up_across_an_exchange(cut_s: int) -> None:
    rows = [
        row(0, 1000),
        *exchange(1200, 1100, 7, pause_s=300),
        row(3600, 107, meter_id=MeterId("new")),
    ]
    assert energy_wh(rows, 0, cut_s) + energy_wh(rows, cut_s, 3600) == 200


def test_an_exchange_within_one_instant_keeps_its_order() -> None:
    closing, opening = exchange(1200, 1100, 7)
    rows = [row(3600, 107, meter_id=MeterId("new")), opening, closing, row(1200, 1100), row(0, 900)]
    assert [line.energy_wh for line in lines(rows)] == [200, 100]


def test_the_first_reading_opens_the_point() -> None:
    rows = [row(1800, 5000), row(3600, 5100)]
    (line,) = lines(rows)
    assert (line.register_open_wh, line.energy_wh, line.flags) == (5000, 100, ("opening",))
    assert lines(rows, period(-3600, 1800)) == ()


def test_readings_far_apart_are_said_to_be_bridged() -> None:
    (line,) = lines([row(-10_000, 0), row(10_000, 20_000)])
    assert (line.energy_wh, line.flags) == (3600, ("bridged",))


def test_a_line_waits_for_the_register_after_the_end() -> None:
    with pytest.raises(LedgerError, match="no register at the end"):
        lines([row(0, 1), row(3599, 2)])


def test_a_reset_carries_no_energy() -> None:
    rows = [row(0, 60_000_000), row(1800, 10), row(3600, 20)]
    with pytest.raises(LedgerError, match="falls from 60000000 to 10 Wh"):
        lines(rows)


def test_a_reset_spoils_only_the_periods_it_touches() -> None:
    rows = [row(0, 60_000_000), row(600, 60_000_100), row(1200, 10), row(3600, 20)]
    assert energy_wh(rows, 0, 600) == 100
    assert energy_wh(rows, 1200, 3600) == 10
    with pytest.raises(LedgerError):
        energy_wh(rows, 599, 1200)


def test_two_counts_at_one_instant_are_refused() -> None:
    with pytest.raises(LedgerError, match="shows 5 and 6 at 10000000000 ns"):
        lines([row(0, 1), row(10, 5), row(10, 6), row(3600, 9)])


def test_membership_splits_a_period_into_lines_of_their_sources() -> None:
    second = replace(ALWAYS[0], virtual_source_id=VirtualSourceId("vs-2"), from_ns=1200 * S)
    members = (replace(ALWAYS[0], until_ns=1200 * S), second)
    found = lines([row(0, 0), row(3600, 3600)], members=members)
    assert [(line.virtual_source_id, line.energy_wh) for line in found] == [
        ("vs-1", 1200),
        ("vs-2", 2400),
    ]


def test_a_stay_that_ended_needs_no_later_register() -> None:
    members = (replace(ALWAYS[0], until_ns=1200 * S),)
    (line,) = lines([row(0, 0), row(1200, 50)], members=members)
    assert line.energy_wh == 50


def test_a_site_outside_every_source_sells_nothing() -> None:
    assert lines([row(0, 0), row(3600, 3600)], members=()) == ()


def test_who_cannot_be_settled_is_named_and_does_not_stop_the_others() -> None:
    points = [
        PointSeries(site_id=SITE, point_id=POINT, rows=[row(0, 0), row(3600, 10)]),
        PointSeries(site_id=SITE, point_id=MeteringPointId("second"), rows=[row(0, 0)]),
    ]
    result = settle_all(points, HOUR, ALWAYS)
    assert [line.energy_wh for line in result.lines] == [10]
    assert [(who, "second" in why) for who, why in result.missing] == [(SITE, True)]
    assert result.registers_wh == 10


def test_periods_are_continuous_where_registers_meet() -> None:
    rows = [row(0, 0), row(3600, 10), row(7200, 30)]
    first = lines(rows)
    second = lines(rows, NEXT_HOUR)
    assert is_continuous(first, second)
    assert not is_continuous(first, [replace(second[0], register_open_wh=11)])
    assert not is_continuous(first, ())
    assert not is_continuous((), second)
    assert is_continuous((), [replace(second[0], flags=("opening",))])


def test_a_period_outside_the_readings_moves_nothing() -> None:
    assert movement_wh([row(0, 0), row(10, 5)], period(20, 30)) == 0


def test_a_leap_above_what_a_meter_can_move_is_not_billed() -> None:
    most = METER_MAX_W // 4 + METER_MAX_W * REFRESH_NS // (3600 * S) + 2
    assert energy_wh([row(0, 1900), row(900, 1900 + most)], 0, 900) == most
    with pytest.raises(LedgerError, match="rises from 1900 to 90000000"):
        lines([row(0, 1900), row(900, 90_000_000)], period(0, 900))


def test_a_coarse_register_may_turn_one_unit_at_any_time() -> None:
    assert energy_wh([row(0, 1, exponent=6), row(1, 2, exponent=6)], 0, 1) == 10**6


@pytest.mark.parametrize(
    "rows",
    [
        [row(0, 1900), row(900, 90_000_000), row(1800, 90_000_010)],
        [row(0, 90_000_000), row(900, 10_000_000)],
        [row(0, 1000, exponent=3), row(900, 1_010_000, modulus=10**11)],
        [row(0, 99_999_990), row(900, 5, modulus=None)],
        [row(0, 2999, exponent=-3), row(900, 3001, exponent=-3)],
    ],
    ids=["leap", "fall", "another exponent", "modulus unknown after", "milli"],
)
def test_live_energy_is_what_the_accounts_say(rows: list[RegisterRow]) -> None:
    settled_wh = 0
    for start_s in range(0, rows[-1].event_ns // S, 900):
        series = PointSeries(site_id=SITE, point_id=POINT, rows=rows[start_s // 900 :][:2])
        settled_wh += settle_all([series], period(start_s, start_s + 900), ALWAYS).registers_wh
    metered = counted(rows)
    assert metered is not None
    assert metered.energy_wh == settled_wh


def test_a_meter_that_returns_after_another_one_is_reported() -> None:
    rows = [
        row(at_s, at_s, meter_id=MeterId("ab"[at_s // 900 % 2])) for at_s in range(0, 3601, 900)
    ]
    settled = settle_all([PointSeries(site_id=SITE, point_id=POINT, rows=rows)], HOUR, ALWAYS)
    assert settled.lines == ()
    assert [(who, "returns" in why) for who, why in settled.missing] == [(SITE, True)]


def test_a_closing_register_ends_the_point() -> None:
    rows = [row(0, 0), row(1800, 500, reason=RegisterReason.METER_CLOSING)]
    assert [(line.energy_wh, line.flags) for line in lines(rows)] == [(500, ("exchange",))]
    assert lines(rows[1:], NEXT_HOUR) == ()
