"""Counters: deltas add up over any wraps, and no reset ever carries energy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.counter import ABSENT, Advance, AdvanceKind, advance

FIRST, NORMAL, WRAPPED, RESET = AdvanceKind


@given(data=st.data(), modulus=st.integers(4, 2**62), start=st.integers(0, 2**62))
def test_deltas_add_up_across_any_sequence_of_wraps(
    data: st.DataObject, modulus: int, start: int
) -> None:
    steps = data.draw(st.lists(st.integers(0, modulus // 2 - 1), max_size=30))
    count, found = start, 0
    for step in steps:
        result = advance(count % modulus, (count + step) % modulus, modulus)
        assert result.kind in (NORMAL, WRAPPED)
        assert result.delta is not None
        count, found = count + step, found + result.delta
    assert found == count - start


counts = st.none() | st.integers(0, 1200)


@given(
    previous=counts,
    current=st.integers(0, 1200),
    modulus=st.none() | st.integers(0, 1000),
    max_step=st.none() | st.integers(0, 1000),
)
def test_columns_and_scalars_advance_alike(
    previous: int | None, current: int, modulus: int | None, max_step: int | None
) -> None:
    scalar = advance(previous, current, modulus, max_step=max_step)
    column = advance(
        np.array([ABSENT if previous is None else previous] * 2, dtype=np.int64),
        np.array([current] * 2, dtype=np.int64),
        modulus,
        max_step=max_step,
    )
    assert column.kind.tolist() == [scalar.kind] * 2
    assert column.delta.tolist() == [ABSENT if scalar.delta is None else scalar.delta] * 2
    assert column.delta.dtype == column.kind.dtype == np.int64


@given(previous=st.integers(0, 2000), current=st.integers(0, 2000), modulus=st.integers(0, 1000))
def test_only_normal_and_wrapped_carry_a_delta_and_it_is_never_negative(
    previous: int, current: int, modulus: int
) -> None:
    result = advance(previous, current, modulus)
    assert (result.delta is not None) == (result.kind in (NORMAL, WRAPPED))
    assert result.delta is None or result.delta >= 0


@pytest.mark.parametrize(
    ("previous", "current", "modulus", "max_step", "kind", "delta"),
    [
        (None, 7, 100, None, FIRST, None),
        (None, 7, None, None, FIRST, None),
        (5, 5, 100, None, NORMAL, 0),
        (0, 100, 100, None, NORMAL, 100),
        (90, 5, 100, None, WRAPPED, 15),
        (100, 5, 100, None, WRAPPED, 5),
        (60, 10, 100, None, WRAPPED, 50),
        (59, 10, 100, None, RESET, None),
        (59, 10, 100, 51, WRAPPED, 51),
        (59, 10, 100, 50.9, RESET, None),
        (59, 58, 100, 100, WRAPPED, 99),
        (90, 5, None, None, RESET, None),
        (90, 5, 0, None, RESET, None),
        (90, 101, 100, None, RESET, None),
        (150, 10, 100, None, RESET, None),
        # A powercap zone in microjoules and an eight-digit meter register.
        (262_143_000_000, 1_000_000, 262_143_328_850, None, WRAPPED, 1_328_850),
        (99_999_998, 3, 10**8, None, WRAPPED, 5),
    ],
)
def test_a_step_is_of_its_kind(
    previous: int | None,
    current: int,
    modulus: int | None,
    max_step: float | None,
    kind: AdvanceKind,
    delta: int | None,
) -> None:
    assert advance(previous, current, modulus, max_step=max_step) == Advance(kind, delta)


def test_each_meter_of_a_column_has_its_own_modulus_and_limit() -> None:
    result = advance(
        np.array([90, 90, 90, -1, 90, -1]),
        np.array([5, 5, 5, 5, -1, -1]),
        np.array([100, 0, 100, 100, 100, -1]),
        max_step=np.array([50, 50, 10, 50, 50, 50]),
    )
    assert result.kind.tolist() == [WRAPPED, RESET, RESET, FIRST, ABSENT, ABSENT]
    assert result.delta.tolist() == [15, -1, -1, -1, -1, -1]


def test_counts_near_the_end_of_int64_stay_exact() -> None:
    modulus = 2**63 - 1
    result = advance(np.array([0, modulus - 1]), np.array([modulus, 4]), modulus)
    assert result.delta.tolist() == [modulus, 5]
    assert advance(np.int64(0), np.int64(modulus), modulus).delta == modulus


def test_a_single_element_of_a_column_keeps_its_absent_mark() -> None:
    column = np.array([-1, 5])
    assert advance(column[0], column[1], 100).kind == FIRST


def test_a_current_count_must_be_there() -> None:
    with pytest.raises(ValueError, match="current"):
        advance(5, None, 100)  # type: ignore[call-overload]


@pytest.mark.parametrize("modulus", [None, 100])
def test_a_count_below_zero_moves_no_energy(modulus: int | None) -> None:
    # Whoever keeps -1 as "previous" learns nothing from the next count either.
    assert advance(5, -1, modulus, max_step=modulus) == Advance(RESET, None)
    assert advance(99, -1, modulus) == Advance(RESET, None)
    assert advance(-1, 5, modulus) == Advance(FIRST, None)


@pytest.mark.parametrize("absent", [None, np.array([ABSENT])])
def test_columns_without_a_previous_count_begin(absent: object) -> None:
    result = advance(absent, np.array([7, 200]), 100)  # type: ignore[call-overload]
    assert result.kind.tolist() == [FIRST, FIRST]
    assert result.delta.tolist() == [ABSENT, ABSENT]
