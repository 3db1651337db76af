"""Roll-up: no energy is lost, what is absent stays so, and doubts do not shrink."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.codec import pack, unpack
from heatpool.sample import Channel, QualityClass, Row
from heatpool_agent.core.rollup import SPAN, Spanned, as_rows, rolled, spanned, step_of

HEAT = Channel("rack", "heat_rate_w", -1)
DOUBT = Channel("rack", "heat_rate_w_u", -1)
QUALITY = Channel("rack", "quality", 0)
ORIGIN = Channel("rack", "provenance", 0)
COUNTER = Channel("rack", "energy_wh", 0)
LEAST, MOST = Channel("rack", "hot_c_min", -3), Channel("rack", "hot_c_max", -3)
S = 1_000_000_000
CHANNELS = (HEAT, DOUBT, QUALITY, ORIGIN, COUNTER, LEAST, MOST)
STEPS_NS = (10 * S, 60 * S, 900 * S)


@st.composite
def rows(draw: st.DrawFn) -> list[Spanned]:
    """Rows with holes in time and in channels, of any span."""
    event_ns = draw(st.integers(10**18, 10**18 + 10**13))
    found = []
    for _ in range(draw(st.integers(1, 80))):
        event_ns += draw(st.integers(1, 40 * S))
        channels = draw(st.sets(st.sampled_from(CHANNELS), max_size=4))
        cells = {channel: draw(st.integers(-(10**9), 10**9)) for channel in channels}
        found.append(Spanned(event_ns, draw(st.integers(1, 20 * S)), cells))
    return found


def energy(found: Sequence[Spanned], channel: Channel) -> int:
    """In cells times ns."""
    return sum(row.cells[channel] * row.span_ns for row in found if channel in row.cells)


def covered_ns(found: Sequence[Spanned], channel: Channel) -> int:
    return sum(row.span_ns for row in found if channel in row.cells)


@given(rows(), st.sampled_from(STEPS_NS))
def test_no_energy_and_no_time_is_lost(fine: list[Spanned], step_ns: int) -> None:
    coarse = rolled(fine, step_ns)
    assert sum(row.span_ns for row in coarse) == sum(row.span_ns for row in fine)
    for channel in (HEAT, DOUBT):
        span_ns = covered_ns(fine, channel)
        assert covered_ns(coarse, channel) == span_ns
        # Each mean is rounded to its cell, and to nothing coarser.
        assert abs(2 * (energy(coarse, channel) - energy(fine, channel))) <= span_ns


@given(rows())
def test_step_by_step_loses_no_more_than_half_a_cell_each(fine: list[Spanned]) -> None:
    coarse = fine
    for step_ns in STEPS_NS:
        coarse = rolled(coarse, step_ns)
    span_ns = covered_ns(fine, HEAT)
    assert abs(2 * (energy(coarse, HEAT) - energy(fine, HEAT))) <= len(STEPS_NS) * span_ns


@given(rows(), st.sampled_from(STEPS_NS))
def test_what_is_absent_stays_absent(fine: list[Spanned], step_ns: int) -> None:
    coarse = rolled(fine, step_ns)
    kinds = {frozenset(row.cells) for row in fine}
    assert {frozenset(row.cells) for row in coarse} == kinds
    assert not any(SPAN in row.cells for row in coarse)


@given(rows(), st.sampled_from(STEPS_NS))
def test_rows_stay_in_order_and_within_their_step(fine: list[Spanned], step_ns: int) -> None:
    coarse = rolled(fine, step_ns)
    assert all(before.event_ns < after.event_ns for before, after in pairwise(coarse))
    assert {row.event_ns for row in coarse} <= {row.event_ns for row in fine}
    steps = [((row.event_ns - 1) // step_ns, frozenset(row.cells)) for row in coarse]
    assert len(set(steps)) == len(steps)


@given(rows(), st.sampled_from(STEPS_NS))
def test_doing_it_twice_changes_nothing(fine: list[Spanned], step_ns: int) -> None:
    coarse = rolled(fine, step_ns)
    assert rolled(coarse, step_ns) == coarse


@given(rows(), st.sampled_from(STEPS_NS))
def test_extremes_are_kept(fine: list[Spanned], step_ns: int) -> None:
    coarse = rolled(fine, step_ns)
    for channel, extreme in ((LEAST, min), (MOST, max), (QUALITY, max)):
        values = [row.cells[channel] for row in fine if channel in row.cells]
        kept = [row.cells[channel] for row in coarse if channel in row.cells]
        if values:
            assert extreme(kept) == extreme(values)


@given(st.integers(1, 10**6), st.integers(2, 60))
def test_a_doubt_that_all_rows_share_does_not_shrink(doubt: int, count: int) -> None:
    fine = [Spanned(60 * S + 1 + n, S, {DOUBT: doubt}) for n in range(count)]
    assert [row.cells[DOUBT] for row in rolled(fine, 60 * S)] == [doubt]


def test_counts_keep_their_last_value() -> None:
    fine = [Spanned(n * S, S, {COUNTER: 1_000 + n}) for n in range(1, 11)]
    assert rolled(fine, 10 * S) == [Spanned(10 * S, 10 * S, {COUNTER: 1_010})]


def test_the_worst_class_brings_its_origin() -> None:
    told = [(QualityClass.A, 1), (QualityClass.D, 3), (QualityClass.B, 2)]
    fine = [
        Spanned(n * S, S, {QUALITY: int(quality), ORIGIN: origin})
        for n, (quality, origin) in enumerate(told, 1)
    ]
    (row,) = rolled(fine, 10 * S)
    assert row.cells == {QUALITY: 4, ORIGIN: 3}


def test_a_long_row_weighs_more() -> None:
    fine = [Spanned(S, S, {HEAT: 100}), Spanned(10 * S, 9 * S, {HEAT: 200})]
    assert rolled(fine, 10 * S) == [Spanned(10 * S, 10 * S, {HEAT: 190})]


def test_a_gap_between_rows_belongs_to_nobody() -> None:
    columns = pack([_row(1), _row(2), _row(3), _row(50)], [HEAT], schema_id=1)
    found = spanned([(columns, [HEAT])], before_ns=None, most_ns=60 * S)
    assert [row.span_ns for row in found] == [S] * 4


def test_the_row_before_tells_how_long_the_first_one_is() -> None:
    columns = pack([_row(20)], [HEAT], schema_id=1)
    found = spanned([(columns, [HEAT])], before_ns=10 * S, most_ns=60 * S)
    assert [row.span_ns for row in found] == [10 * S]


def test_a_lone_row_after_a_long_silence_is_not_stretched_over_it() -> None:
    columns = pack([_row(5_000)], [HEAT], schema_id=1)
    found = spanned([(columns, [HEAT])], before_ns=10 * S, most_ns=10 * S)
    assert [row.span_ns for row in found] == [10 * S]


@pytest.mark.parametrize(
    ("times_s", "step_s"), [([], 1), ([5], 1), ([0, 10, 20, 90], 10), ([9, 3, 1], 1)]
)
def test_the_usual_step(times_s: list[int], step_s: int) -> None:
    assert step_of([time_s * S for time_s in times_s]) == step_s * S


@given(rows())
def test_coarse_rows_survive_the_disk(fine: list[Spanned]) -> None:
    coarse = rolled([row for row in fine if row.cells], 60 * S)
    if not coarse:
        return
    channels = [*CHANNELS, SPAN]
    packed = pack(list(as_rows(coarse)), channels, schema_id=1)
    assert spanned([(packed, channels)], before_ns=None, most_ns=S) == coarse
    assert len(unpack(packed, channels)) == len(channels)


def _row(second: int) -> Row:
    return Row(event_ns=second * S, cells={HEAT: 1.0})
