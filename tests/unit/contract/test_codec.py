"""Decode after encode is identity, absent stays absent, and nothing malformed gets through."""

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.codec import (
    Columns,
    check,
    columns_from_bytes,
    columns_to_bytes,
    event_times_ns,
    pack,
    registers_from_bytes,
    registers_to_bytes,
    unpack,
)
from heatpool.errors import WireError
from heatpool.sample import Channel, MeterId, MeteringPointId, RegisterReason, RegisterRow, Row

HEAT = Channel("rack", "heat_rate_w", -1)
HOT = Channel("rack", "hot_c", -3)
CAPACITY = Channel("rack", "rejection_capacity_w", 0)
CHANNELS = (HEAT, HOT, CAPACITY)


def cells() -> st.SearchStrategy[dict[Channel, float]]:
    figure = st.integers(-(10**12), 10**12)
    return st.fixed_dictionaries(
        {},
        optional={
            HEAT: figure.map(lambda n: n / 10),
            HOT: figure.map(lambda n: n / 1000),
            CAPACITY: figure.map(float),
        },
    )


def rows() -> st.SearchStrategy[list[Row]]:
    row = st.tuples(st.integers(0, 2**62), cells())
    return st.lists(row, min_size=1, max_size=20).map(
        lambda found: [Row(event_ns=event_ns, cells=figures) for event_ns, figures in found]
    )


@given(rows())
def test_unpacking_gives_back_every_cell_and_every_gap(given_rows: list[Row]) -> None:
    columns = pack(given_rows, CHANNELS, schema_id=7)
    assert event_times_ns(columns) == [row.event_ns for row in given_rows]
    expected = [[row.cells.get(channel) for row in given_rows] for channel in CHANNELS]
    assert unpack(columns, CHANNELS) == expected


@given(rows())
def test_the_spool_gives_back_the_same_columns(given_rows: list[Row]) -> None:
    columns = pack(given_rows, CHANNELS, schema_id=7)
    assert columns_from_bytes(columns_to_bytes(columns)) == columns


def test_an_even_grid_needs_no_time_differences() -> None:
    columns = pack([Row(event_ns=t, cells={HEAT: 1.0}) for t in (10, 20, 30)], (HEAT,), schema_id=1)
    assert (columns.step_ns, columns.dt_ns, columns.valid_bits) == (10, (), b"")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_what_is_no_number_of_ours_is_absent_not_zero(value: float) -> None:
    columns = pack([Row(event_ns=1, cells={HEAT: value})], (HEAT,), schema_id=1)
    assert unpack(columns, (HEAT,)) == [[None]]


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_batch_without_rows_or_too_many_is_a_bug_of_the_caller(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        pack([Row(event_ns=1, cells={})] * count, (HEAT,), schema_id=1)


GOOD = Columns(
    schema_id=1, start_ns=0, step_ns=0, n_rows=2, cells=(1, 0), dt_ns=(5,), valid_bits=b"\x03"
)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (replace(GOOD, n_rows=0), "n_rows is 0"),
        (replace(GOOD, n_rows=5_000), "n_rows is 5000"),
        (replace(GOOD, cells=(1,)), "1 cells for 2 rows"),
        (replace(GOOD, valid_bits=b"\x03\x00"), "2 bytes of valid_bits"),
        (replace(GOOD, dt_ns=()), "0 time differences"),
        (replace(GOOD, step_ns=2**63), "step_ns is 9223372036854775808"),
    ],
)
def test_columns_that_do_not_fit_each_other_are_refused(columns: Columns, reason: str) -> None:
    check(GOOD, 1)
    with pytest.raises(WireError, match=reason):
        check(columns, 1)


@given(st.binary(max_size=60))
def test_rubbish_is_refused_and_crashes_nothing(data: bytes) -> None:
    for read in (columns_from_bytes, registers_from_bytes):
        try:
            read(data)
        except WireError as error:
            assert str(len(data)) in error.reason


def test_registers_come_back_with_every_field() -> None:
    row = RegisterRow(
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId("KAM.1.2.4"),
        event_ns=1,
        raw=99_999_999,
        exponent=3,
        modulus=10**8,
        reason=RegisterReason.METER_OPENING,
        meter_ns=5,
        status_bits=8,
        chain_sha256=b"x" * 32,
    )
    assert registers_from_bytes(registers_to_bytes([row, row])) == (row, row)


@pytest.mark.parametrize(
    "fields",
    [
        (1, 0, 0, 1, None, [], b""),
        (1, 0, 0, 1, ["1"], [], b""),
        (1, 0, 0, 1, "abc", [], b""),
        ("1", 0, 0, 1, [1], [], b""),
        (1, 0.5, 0, 1, [1], [], b""),
        (1, 0, True, 1, [1], [], b""),
        (1, 2**63, 0, 1, [1], [], b""),
        (1, 0, 0, 1, [2**63], [], b""),
        (1, 0, 0, 1, [1], 5, b""),
        (1, 0, 0, 1, [1], [], "x"),
    ],
)
def test_columns_of_other_types_are_refused(fields: tuple[object, ...]) -> None:
    with pytest.raises(WireError, match="are not columns"):
        columns_from_bytes(msgpack.packb(fields))


@pytest.mark.parametrize(
    ("position", "value"),
    list(enumerate([7, b"m", "x", 2**63, 1.5, "m", 99, [], None, "chain"])),
)
def test_registers_of_other_types_are_refused(position: int, value: object) -> None:
    fields: list[object] = ["meter", "ABC.1.2.4", 1, 5, 3, 10**8, 1, None, 0, b""]
    registers_from_bytes(msgpack.packb([fields]))
    fields[position] = value
    with pytest.raises(WireError, match="are not register rows"):
        registers_from_bytes(msgpack.packb([fields]))
