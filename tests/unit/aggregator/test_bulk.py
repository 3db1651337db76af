"""Many batches at once mean what each of them means alone, whatever their bytes are."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integration import site_client as site

from heatpool.codec import pack
from heatpool.errors import WireError
from heatpool.sample import BootId, Row, SiteId
from heatpool_aggregator.core.chunk import chunk_from_bytes
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.core.varints import ends_of, values_at, zigzag
from heatpool_aggregator.loops import applying as applying_room
from heatpool_aggregator.loops.applying import Applying
from heatpool_aggregator.loops.effects import Effects
from heatpool_aggregator.ports import Chunk, Event, Frame, FrameKind
from heatpool_aggregator.wire.acks import varint
from heatpool_aggregator.wire.bulk import UNPACKED_LIMIT, bulk_from_bytes
from heatpool_aggregator.wire.messages import Refusal
from heatpool_aggregator.wire.peek import content_crc32
from heatpool_aggregator.wire.telemetry import batch_from_bytes

pb = site.pb
NS = 10**9
NOW_NS = 1_700_000_000 * NS
STEP_NS = 10 * NS


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_numbers_come_out_as_they_went_in(numbers: list[int]) -> None:
    data = np.frombuffer(b"".join(varint(number) for number in numbers), np.uint8)
    values, lengths = values_at(data, ends_of(data))
    assert values.tolist() == numbers
    assert lengths.tolist() == [len(varint(number)) for number in numbers]


@given(st.lists(st.integers(-(2**62), 2**62)))
def test_signed_numbers_come_out_as_they_went_in(numbers: list[int]) -> None:
    packed = b"".join(varint((number << 1) ^ (number >> 63)) for number in numbers)
    found = np.frombuffer(packed, np.uint8)
    values, _ = values_at(found, ends_of(found))
    assert zigzag(values).tolist() == numbers


# Batches as agents send them, and as nobody should


value = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([20.0, 45.5, 1e10, -500.0]))


@st.composite
def telemetry(draw: st.DrawFn) -> bytes:
    """A batch: mostly in order, some with a field that cannot be, some bitten."""
    n_rows = draw(st.integers(1, 5))
    is_regular = draw(st.booleans())
    times_ns = [NOW_NS + place * STEP_NS for place in range(n_rows)]
    if not is_regular:
        times_ns = [at_ns + draw(st.integers(-STEP_NS, STEP_NS)) for at_ns in times_ns]
    values = [[draw(value) for _ in site.CHANNELS] for _ in times_ns]
    rows = [
        Row(event_ns=at_ns, cells={c: v for c, v in zip(site.CHANNELS, row, strict=True) if v})
        for at_ns, row in zip(times_ns, values, strict=True)
    ]
    columns = pack(rows, site.CHANNELS, schema_id=1)
    batch = pb.TelemetryBatch(
        site_index=draw(st.sampled_from([0, 0, 0, 3])),
        seq=draw(st.integers(0, 6)),
        schema_id=draw(st.sampled_from([1, 1, 1, 1, 2])),
        start_ns=columns.start_ns,
        step_ns=columns.step_ns,
        n_rows=columns.n_rows,
        cells=columns.cells,
        dt_ns=columns.dt_ns,
        valid_bits=columns.valid_bits,
        sent_ns=NOW_NS + draw(st.sampled_from([0, 0, NS, 5 * NS, 3_600 * NS])),
        codec=pb.PAYLOAD_CODEC_NONE,
    )
    _spoil(draw, batch)
    return _bitten(draw, pb.TelemetryServiceStreamRequest(telemetry=batch).SerializeToString())


def _spoil(draw: st.DrawFn, batch: pb.TelemetryBatch) -> None:
    spoiling = draw(st.integers(0, 15))
    if spoiling in (1, 2, 3):
        packed = b"".join(varint((cell << 1) ^ (cell >> 63)) for cell in batch.cells)
        batch.payload = zlib.compress(packed)
        batch.codec = pb.PAYLOAD_CODEC_ZLIB
        del batch.cells[:]
    if spoiling == 3:
        batch.payload = batch.payload[: draw(st.integers(0, 20))]
    if spoiling == 4:
        batch.n_rows = draw(st.sampled_from([0, 1, 2, 1_001, 2**32 - 1]))
    if spoiling == 5:
        batch.start_ns = draw(st.sampled_from([0, -5, 1, 2**62, 2**63 - 1, NOW_NS + 700 * NS]))
    if spoiling == 6:
        batch.step_ns = draw(st.sampled_from([0, 1, 2**63, 2**64 - 1]))
    if spoiling == 7:
        batch.cells.append(draw(st.integers(-(2**63), 2**63 - 1)))
    if spoiling == 8:
        batch.valid_bits = draw(st.binary(max_size=6))
    if spoiling == 9:
        batch.dt_ns.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)))
    if spoiling == 10:
        batch.codec = pb.PayloadCodec.ValueType(draw(st.integers(0, 3)))
    if spoiling == 11:
        batch.sent_ns = draw(st.sampled_from([0, -1, 2**62]))


def _bitten(draw: st.DrawFn, data: bytes) -> bytes:
    kind = draw(st.integers(0, 9))
    whole = bytearray(data)
    place = draw(st.integers(0, len(whole) - 1))
    if kind == 0:
        whole[place] = draw(st.integers(0, 255))
    elif kind == 1:
        del whole[place:]
    elif kind == 2:
        whole += draw(st.binary(max_size=4))
    return bytes(whole)


@given(st.lists(st.one_of(telemetry(), st.binary(max_size=30)), max_size=12))
def test_a_head_says_what_the_other_decoder_says(payloads: list[bytes]) -> None:
    bulk = bulk_from_bytes(payloads)
    for payload, head in zip(payloads, bulk.heads, strict=True):
        if head is None:
            continue
        batch = batch_from_bytes(payload)
        columns = batch.columns
        assert tuple(bulk.cells[head.first : head.last].tolist()) == columns.cells
        assert head[:4] == (columns.schema_id, columns.start_ns, columns.step_ns, columns.n_rows)
        assert (head.dt_ns, head.valid_bits) == (columns.dt_ns, columns.valid_bits)
        assert (head.sent_ns, head.content_crc32) == (batch.sent_ns, content_crc32(payload))


def test_what_agents_send_is_read_at_once() -> None:
    regular = site.batch(300, NOW_NS, n_rows=2, step_ns=STEP_NS, cells=[1, -2] * 7)
    jittered = site.batch(300, NOW_NS, n_rows=2, dt_ns=[STEP_NS + 7], cells=[1, -2] * 7)
    packed = pb.TelemetryServiceStreamRequest()
    packed.CopyFrom(regular)
    packed.telemetry.payload = zlib.compress(bytes([2, 3] * 7))
    packed.telemetry.codec = pb.PAYLOAD_CODEC_ZLIB
    del packed.telemetry.cells[:]
    messages = [regular, jittered, packed, site.batch(1, NOW_NS, site_index=4)]
    bulk = bulk_from_bytes([message.SerializeToString() for message in messages])
    assert None not in bulk.heads
    assert bulk.cells[:14].tolist() == [1, -2] * 7
    assert bulk.cells[28:42].tolist() == [1, -2] * 7


def test_bombs_of_a_whole_commit_share_one_bound() -> None:
    bomb = site.batch(1, NOW_NS, n_rows=1_000, codec=pb.PAYLOAD_CODEC_ZLIB).telemetry
    del bomb.cells[:]
    bomb.payload = zlib.compress(bytes(2_000_000))
    data = pb.TelemetryServiceStreamRequest(telemetry=bomb).SerializeToString()
    bulk = bulk_from_bytes([data] * 40)
    assert 0 < len(bulk.cells) <= UNPACKED_LIMIT
    assert bulk.heads[-1] is None


# What frames do to a shard


@st.composite
def frames(draw: st.DrawFn) -> list[Frame]:
    """Frames of two sites, each with two lives of its spool, repeats and hellos among them."""
    found = []
    for _ in range(draw(st.integers(1, 14))):
        site_id, boot = draw(st.sampled_from("ab")), draw(st.sampled_from(["t", "u"]))
        if draw(st.integers(0, 7)) == 0:
            said = site.hello(site_id)
            said.hello.sites[0].schemas[0].boot_id = f"{site_id}-{boot}"
            found.append(_frame(site_id, "", FrameKind.HELLO, 0, said.SerializeToString()))
        else:
            seq = draw(st.integers(0, 6))
            boot_id = f"{site_id}-{boot}"
            found.append(_frame(site_id, boot_id, FrameKind.TELEMETRY, seq, draw(telemetry())))
    return found


def _frame(site_id: str, boot_id: str, kind: FrameKind, seq: int, payload: bytes) -> Frame:
    return Frame(
        site_id=SiteId(site_id),
        boot_id=BootId(boot_id),
        kind=kind,
        seq=seq,
        received_ns=NOW_NS + NS,
        payload=payload,
    )


def outcome(parts: Sequence[Sequence[Frame]]) -> tuple[object, ...]:
    """What is left of frames that are applied part by part: state, history, events, refusals."""
    state, effects = ShardState(), Effects()
    applying = Applying(state, asked_w={})
    for name in "ab":
        for boot in "tu":
            said = site.hello(name)
            said.hello.sites[0].schemas[0].boot_id = f"{name}-{boot}"
            data = said.SerializeToString()
            applying.apply(_frame(name, "", FrameKind.HELLO, 0, data), effects)
    for part in parts:
        applying.apply_all(part, effects)
    live = state.live
    shown = {
        slot: (
            live.values[row].astype(str).tolist(),
            live.event_ns[row].tolist(),
            live._rank[row].tolist(),
        )
        for slot, row in live.slots.items()
    }
    return (
        shown,
        sorted(map(str, state.ranges.to_list())),
        state.rows_count,
        {name: clock.offsets_ns for name, clock in state.clocks.items()},
        sorted(map(_history, effects.chunks)),
        sorted(map(_told, effects.events)),
        sorted(map(_refused, effects.refusals)),
    )


def _history(chunk: Chunk) -> tuple[object, ...]:
    rows = chunk_from_bytes(chunk.blob)
    return (*chunk[:6], rows.times_ns.tolist(), str(rows.values.tolist()), str(rows.channels))


def _told(event: Event) -> tuple[str, str, int]:
    return event.key, event.detail, event.event_ns


def _refused(refusal: Refusal) -> tuple[object, ...]:
    return refusal.site_id, refusal.boot_id, refusal.seq, refusal.reason, refusal.detail


@pytest.fixture(autouse=True)
def _always_in_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying_room, "BULK_COUNT", 1)


@settings(max_examples=60, deadline=None)
@given(frames())
def test_a_commit_applied_at_once_leaves_what_its_frames_leave_alone(found: list[Frame]) -> None:
    applying_room.BULK_COUNT = 10**6
    alone = outcome([found])
    applying_room.BULK_COUNT = 1
    assert outcome([found]) == alone
    assert outcome([found[:5], found[5:]]) == alone


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_two_rows_of_one_instant_the_later_frame_counts(order: tuple[int, int]) -> None:
    found = [
        _frame("a", "a-t", FrameKind.TELEMETRY, seq, site.batch(seq, NOW_NS, w).SerializeToString())
        for seq in order
        for w in (100.0 * seq,)
    ]
    state = ShardState()
    applying = Applying(state, asked_w={})
    said = site.hello("a").SerializeToString()
    applying.apply_all([_frame("a", "", FrameKind.HELLO, 0, said), *found], Effects())
    assert 200.0 in state.live.values
    assert 100.0 not in state.live.values


@pytest.mark.parametrize(("ahead_s", "reasons"), [(599, []), (602, ["CLOCK"])])
def test_a_batch_in_bulk_from_the_time_to_come_is_refused(ahead_s: int, reasons: list[str]) -> None:
    applying, effects = Applying(ShardState(), asked_w={}), Effects()
    said = site.hello("a").SerializeToString()
    applying.apply(_frame("a", "", FrameKind.HELLO, 0, said), effects)
    for seq, at_ns in ((1, NOW_NS), (2, NOW_NS + ahead_s * NS)):
        data = site.batch(seq, at_ns, sent_ns=NOW_NS + NS).SerializeToString()
        applying.apply_all([_frame("a", "a-t", FrameKind.TELEMETRY, seq, data)], effects)
    assert [refusal.reason.name for refusal in effects.refusals] == reasons


def test_a_mistake_in_bulk_is_made_good_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumbling(*_: object) -> None:
        raise ValueError("odd")

    data = site.batch(1, NOW_NS, 700.0).SerializeToString()
    frame = _frame("a", "a-t", FrameKind.TELEMETRY, 1, data)
    expected = outcome([[frame]])
    monkeypatch.setattr(applying_room, "values_of_all", stumbling)
    assert outcome([[frame]]) == expected
    assert [record.msg for record in caplog.records] == ["shard.bulk_failed"]


def test_rubbish_is_no_head() -> None:
    assert (
        bulk_from_bytes([b"", b"\x12", b"\xff" * 30, b"\x12\xff\xff\xff\xff\x0f"]).heads
        == [None] * 4
    )
    with pytest.raises(WireError):
        batch_from_bytes(b"\x12\xff\xff\xff\xff\x0f")


def alone_of(batch: bytes) -> bool:
    """Whether such a message is left to the decoder of one."""
    outer = b"\x12" + varint(len(batch)) + batch
    return bulk_from_bytes([outer]).heads == [None]


def plain(**change: Any) -> pb.TelemetryBatch:
    said: dict[str, Any] = {
        "seq": 1,
        "schema_id": 1,
        "start_ns": NOW_NS,
        "n_rows": 2,
        "cells": [1, 2],
        "dt_ns": [STEP_NS],
        "sent_ns": NOW_NS,
        "codec": pb.PAYLOAD_CODEC_NONE,
    }
    return pb.TelemetryBatch(**{**said, **change})


def test_a_batch_that_says_something_twice_is_read_alone() -> None:
    data = plain().SerializeToString()
    assert not alone_of(data)
    assert alone_of(data + b"\x18" + varint(2)), "another schema, of which the last counts"


def test_steps_whose_sum_might_not_fit_are_read_alone() -> None:
    assert not alone_of(plain(dt_ns=[2**52 - 1]).SerializeToString())
    assert alone_of(plain(dt_ns=[2**52]).SerializeToString())


def test_what_lies_behind_packed_cells_is_read_alone() -> None:
    packed = zlib.compress(varint(2) + varint(4))
    change: dict[str, Any] = {"cells": [], "codec": pb.PAYLOAD_CODEC_ZLIB}
    assert not alone_of(plain(**change, payload=packed).SerializeToString())
    assert alone_of(plain(**change, payload=packed + b"x").SerializeToString())
