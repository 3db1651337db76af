"""Live state: blind to order and repetition, saved whole, exact over roll-over and exchange."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.codec import Columns, pack, unpack
from heatpool.errors import WireError
from heatpool.sample import (
    BootId,
    Channel,
    LoopId,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Row,
    SiteId,
)
from heatpool_aggregator.core.chunk import (
    Rows,
    chunk_from_bytes,
    chunk_to_bytes,
    rows_from_columns,
)
from heatpool_aggregator.core.live import LiveState, rows_mistake
from heatpool_aggregator.core.metered import counted
from heatpool_aggregator.core.quantity import INDEX

SITE, BOOT = SiteId("site-a"), BootId("boot-1")
CHANNELS = (
    Channel("", "electric_w", -1),
    Channel("rack", "heat_rate_w", -1),
    Channel("rack", "hot_c", -3),
    Channel("rack", "quality", 0),
    Channel("rack", "fan_speed_frac", -3),
)
POINT = MeteringPointId("meter")

cells = st.one_of(st.none(), st.integers(-9_000, 9_000).map(lambda n: n / 10))
row = st.builds(
    lambda event_ns, values: Row(
        event_ns=event_ns,
        cells={c: v for c, v in zip(CHANNELS, values, strict=True) if v is not None},
    ),
    st.integers(1, 10**6),
    st.tuples(*[cells] * len(CHANNELS)),
)
batches = st.lists(
    st.tuples(
        st.sampled_from([BOOT, BootId("boot-2")]), st.integers(1, 30), st.lists(row, min_size=1)
    ),
    max_size=8,
    unique_by=lambda batch: (batch[0], batch[1]),
)


def columns(rows: Sequence[Row]) -> Columns:
    return pack(rows, CHANNELS, schema_id=1)


def decoded(rows: Sequence[Row]) -> Rows:
    return rows_from_columns(columns(rows), CHANNELS)


def applied(found: Sequence[tuple[BootId, int, list[Row]]]) -> LiveState:
    live = LiveState()
    for boot_id, seq, rows in found:
        live.apply(SITE, boot_id, seq, decoded(rows))
    return live


def seen(live: LiveState) -> dict[tuple[str, str], list[float]]:
    return {slot: live.values[place].tolist() for slot, place in sorted(live.slots.items())}


@given(batches, st.randoms(use_true_random=False))
def test_shuffled_and_repeated_batches_give_the_same_state(found, chance) -> None:  # type: ignore[no-untyped-def]
    again = [*found, *found]
    chance.shuffle(again)
    np.testing.assert_equal(seen(applied(again)), seen(applied(found)))


@given(st.lists(row, min_size=1, max_size=20))
def test_columns_decode_to_what_the_contract_decodes(rows: list[Row]) -> None:
    mine = decoded(rows).values.tolist()
    theirs = [
        [float("nan") if value is None else value for value in column]
        for column in unpack(columns(rows), CHANNELS)
    ]
    np.testing.assert_equal(mine, theirs)


@given(st.lists(row, min_size=1, max_size=5))
def test_a_chunk_keeps_the_rows(rows: list[Row]) -> None:
    back = chunk_from_bytes(chunk_to_bytes(columns(rows), CHANNELS))
    assert back.channels == CHANNELS
    np.testing.assert_equal(back.values, decoded(rows).values)
    np.testing.assert_equal(back.times_ns, [one.event_ns for one in rows])


@pytest.mark.parametrize("blob", [b"", b"\xc1", b"\x93\x01\x02\x03"])
def test_a_broken_chunk_is_said(blob: bytes) -> None:
    with pytest.raises(WireError, match="chunk"):
        chunk_from_bytes(blob)


def test_an_absent_cell_of_a_newer_row_is_absent() -> None:
    live = LiveState()
    heat = CHANNELS[1]
    live.apply(SITE, BOOT, 1, decoded([Row(event_ns=1, cells={heat: 100.0})]))
    live.apply(SITE, BOOT, 2, decoded([Row(event_ns=2, cells={})]))
    slot = live.slots[(SITE, LoopId("rack"))]
    assert np.isnan(live.values[slot, INDEX["heat_rate_w"]])


def test_a_late_row_does_not_turn_the_clock_back() -> None:
    live = LiveState()
    heat = CHANNELS[1]
    live.apply(SITE, BOOT, 2, decoded([Row(event_ns=20, cells={heat: 200.0})]))
    live.apply(SITE, BOOT, 1, decoded([Row(event_ns=10, cells={heat: 100.0})]))
    slot = live.slots[(SITE, LoopId("rack"))]
    assert live.values[slot, INDEX["heat_rate_w"]] == 200.0
    assert live.event_ns[slot, INDEX["heat_rate_w"]] == 20


def test_a_fleet_beyond_the_first_room_keeps_its_values() -> None:
    live = LiveState()
    for number in range(300):
        cells = {CHANNELS[1]: float(number)}
        rows = decoded([Row(event_ns=1, cells=cells)])
        live.apply(SiteId(f"site-{number}"), BOOT, 1, rows)
    back = LiveState.from_bytes(live.to_bytes())
    places = [back.slots[(SiteId(f"site-{n}"), LoopId("rack"))] for n in range(300)]
    assert back.values[places, INDEX["heat_rate_w"]].tolist() == list(range(300))


@given(batches)
def test_a_snapshot_gives_the_same_state(found) -> None:  # type: ignore[no-untyped-def]
    live = applied(found)
    back = LiveState.from_bytes(live.to_bytes())
    np.testing.assert_equal(seen(back), seen(live))
    np.testing.assert_equal(back.event_ns, live.event_ns)


@pytest.mark.parametrize(
    ("channel", "value", "told"),
    [
        (Channel("rack", "quality"), 6.0, "rack.quality is 6"),
        (Channel("rack", "hot_c", -1), 500.0, "rack.hot_c"),
        (Channel("", "electric_w_u", -1), -1.0, "site.electric_w_u"),
        (Channel("rack", "heat_rate_w"), -1.0, None),
        (Channel("rack", "fan_speed_frac"), 1e12, None),
    ],
)
def test_a_figure_that_cannot_be_is_named(channel: Channel, value: float, told: str) -> None:
    packed = pack([Row(event_ns=1, cells={channel: value})], [channel], schema_id=1)
    mistake = rows_mistake(rows_from_columns(packed, (channel,)))
    assert (mistake is None) if told is None else (mistake is not None and told in mistake)


def test_times_beyond_the_epoch_are_refused() -> None:
    wild = replace(columns([Row(event_ns=5, cells={})]), start_ns=-5)
    with pytest.raises(WireError, match="since 1970"):
        rows_from_columns(wild, CHANNELS)


# Registers


def register(event_ns: int, raw: int, **change: object) -> RegisterRow:
    plain = RegisterRow(
        metering_point_id=POINT,
        meter_id=MeterId("KAM.1.2.4"),
        event_ns=event_ns,
        raw=raw,
        exponent=0,
        modulus=10_000,
        reason=RegisterReason.PERIODIC,
    )
    return replace(plain, **change)  # type: ignore[arg-type]


register_rows = st.lists(
    st.builds(
        register,
        st.integers(1, 40),
        st.integers(0, 9_999),
        meter_id=st.sampled_from([MeterId("old"), MeterId("new")]),
        reason=st.sampled_from(list(RegisterReason)),
    ),
    max_size=12,
)


def metered_wh(rows: Sequence[RegisterRow]) -> int | None:
    """As the shard does it: a late row has all rows of its point counted again."""
    live = LiveState()
    stored: list[RegisterRow] = []
    for one in rows:
        live.meter(SITE, one)
        stored.append(one)
        for point in list(live.to_recount):
            live.recount(point, stored)
    metered = live.metered.get((SITE, POINT))
    return None if metered is None else metered.energy_wh


@given(register_rows, st.randoms(use_true_random=False))
def test_shuffled_and_repeated_registers_give_the_same_energy(rows, chance) -> None:  # type: ignore[no-untyped-def]
    again = [*rows, *rows]
    chance.shuffle(again)
    assert metered_wh(again) == metered_wh(rows)


@given(st.lists(st.integers(0, 900), min_size=1, max_size=30))
def test_steps_sum_to_the_energy_over_any_number_of_roll_overs(steps: list[int]) -> None:
    raws = np.cumsum([0, *steps]) % 10_000
    rows = [register(place, int(raw)) for place, raw in enumerate(raws, start=1)]
    assert metered_wh(rows) == sum(steps)


@pytest.mark.parametrize(
    ("rows", "energy_wh"),
    [
        ([register(1, 500)], 0),
        ([register(1, 9_990), register(2, 10)], 20),
        ([register(1, 500), register(2, 100)], 0),
        ([register(1, 5, exponent=3), register(2, 7, exponent=3)], 2_000),
        ([register(1, 1_000, exponent=-3), register(2, 2_999, exponent=-3)], 1),
        ([register(1, 10, exponent=0), register(2, 20, exponent=3)], 19_990),
        (
            [
                register(1, 100),
                register(2, 150, reason=RegisterReason.METER_CLOSING),
                register(2, 7, meter_id="new", reason=RegisterReason.METER_OPENING),
                register(3, 12, meter_id="new"),
            ],
            55,
        ),
    ],
    ids=["first", "roll-over", "reset", "kilo", "milli", "another exponent", "exchange"],
)
def test_registers_are_worth_what_they_show(rows: list[RegisterRow], energy_wh: int) -> None:
    assert metered_wh(rows) == energy_wh


def test_points_come_back_out_of_a_snapshot() -> None:
    live = LiveState()
    live.meter(SITE, register(1, 9_990))
    live.meter(SITE, register(2, 10, meter_ns=5, chain_sha256=b"x" * 32))
    live.meter(SITE, register(1, 5))
    back = LiveState.from_bytes(live.to_bytes())
    assert back.metered == live.metered
    assert back.to_recount == {(SITE, POINT)}


def test_no_register_is_no_energy() -> None:
    assert counted([]) is None
