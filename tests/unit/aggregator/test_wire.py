"""Messages of the two streams: what goes in comes out, and rubbish is said, never guessed."""

import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.codec import pack, unpack
from heatpool.errors import WireError
from heatpool.sample import (
    BootId,
    Channel,
    GapReason,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Row,
    Schema,
    SpoolKind,
)
from heatpool.v1 import telemetry_pb2
from heatpool_aggregator.wire import control, telemetry
from heatpool_aggregator.wire.messages import (
    Gap,
    Lane,
    MessageKind,
    SpoolState,
)
from heatpool_aggregator.wire.peek import content_crc32, peek

pb = telemetry_pb2
CHANNELS = (Channel("rack", "heat_rate_w", -1), Channel("", "electric_w", -1))
ROWS = [Row(event_ns=10**18 + n * 10**10, cells={CHANNELS[0]: 1000.5 + n}) for n in range(6)]
COLUMNS = pack(ROWS, CHANNELS, schema_id=3)
REGISTER = RegisterRow(
    metering_point_id=MeteringPointId("meter"),
    meter_id=MeterId("KAM.12345678.35.4"),
    event_ns=10**18,
    raw=99_999_999,
    exponent=0,
    modulus=10**8,
    reason=RegisterReason.METER_CLOSING,
    meter_ns=10**18 - 5,
    status_bits=4,
    chain_sha256=b"c" * 32,
)


def request(**message: object) -> bytes:
    return pb.TelemetryServiceStreamRequest(**message).SerializeToString()  # type: ignore[arg-type]


def batch(**change: object) -> pb.TelemetryBatch:
    fields: dict[str, object] = {
        "site_index": 2,
        "seq": 300,
        "schema_id": COLUMNS.schema_id,
        "start_ns": COLUMNS.start_ns,
        "step_ns": COLUMNS.step_ns,
        "n_rows": COLUMNS.n_rows,
        "cells": COLUMNS.cells,
        "valid_bits": COLUMNS.valid_bits,
        "sent_ns": 77,
        "codec": pb.PAYLOAD_CODEC_NONE,
    }
    return pb.TelemetryBatch(**fields | change)  # type: ignore[arg-type]


def registers(**change: object) -> pb.RegisterBatch:
    row = pb.RegisterRow(
        metering_point_id="meter",
        meter_id="KAM.12345678.35.4",
        event_ns=10**18,
        raw=99_999_999,
        modulus=10**8,
        reason=pb.REGISTER_REASON_METER_CLOSING,
        meter_ns=10**18 - 5,
        status_bits=4,
        chain_sha256=b"c" * 32,
    )
    fields: dict[str, object] = {"site_index": 1, "seq": 9, "rows": [row], "sent_ns": 78}
    return pb.RegisterBatch(**fields | change)  # type: ignore[arg-type]


def site(**change: object) -> pb.HelloSite:
    fields: dict[str, object] = {
        "site_id": "site-a",
        "spools": [
            pb.SpoolState(
                kind=pb.SPOOL_KIND_TELEMETRY, boot_id="t1", first_seq=4, next_seq=9, boundary_seq=7
            ),
            pb.SpoolState(kind=pb.SPOOL_KIND_BILLING, boot_id="b1", first_seq=1, next_seq=2),
        ],
        "schemas": [
            pb.Schema(
                schema_id=3,
                boot_id="t1",
                channels=[pb.Channel(loop_id="rack", quantity="hot_c", exponent=-3)],
            )
        ],
        "capability": pb.SiteCapability(rejection_capacity_w=9000, loop_ids=["rack"]),
    }
    return pb.HelloSite(**fields | change)  # type: ignore[arg-type]


def hello(*sites: pb.HelloSite) -> bytes:
    return request(hello=pb.Hello(wire_version=1, agent_version="0.1", sites=sites, sent_ns=5))


def test_a_batch_comes_out_as_it_went_in() -> None:
    found = telemetry.batch_from_bytes(request(telemetry=batch()))
    assert (found.site_index, found.seq, found.sent_ns) == (2, 300, 77)
    assert found.columns == COLUMNS
    assert unpack(found.columns, CHANNELS)[0] == [1000.5 + n for n in range(6)]


def test_a_compressed_batch_is_the_same_batch() -> None:
    varints = pb.TelemetryBatch(cells=COLUMNS.cells).SerializeToString()[2:]
    packed = batch(cells=[], codec=pb.PAYLOAD_CODEC_ZLIB, payload=zlib.compress(varints, 1))
    assert telemetry.batch_from_bytes(request(telemetry=packed)).columns == COLUMNS


@pytest.mark.parametrize(
    ("n_rows", "packed"),
    [
        (1, zlib.compress(bytes(2_561), 9)),
        (1_000, zlib.compress(b"\2" * 40_000_000)),
        (2**32 - 1, zlib.compress(b"\2" * 12)),
        (6, zlib.compress(bytes(12))[:-1]),
        (6, zlib.compress(bytes(12)) + b"more"),
    ],
)
def test_a_payload_that_goes_beyond_its_rows_is_refused(n_rows: int, packed: bytes) -> None:
    bomb = batch(n_rows=n_rows, cells=[], codec=pb.PAYLOAD_CODEC_ZLIB, payload=packed)
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match=r"does not end|allowed is 1 to 1000"):
            telemetry.batch_from_bytes(request(telemetry=bomb))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"codec": pb.PAYLOAD_CODEC_UNSPECIFIED}, "codec 0"),
        ({"codec": pb.PAYLOAD_CODEC_ZSTD}, "codec 3"),
        ({"codec": pb.PAYLOAD_CODEC_ZLIB, "payload": b"no"}, "not zlib"),
    ],
)
def test_a_packing_that_is_not_spoken_is_said(change: dict[str, object], told: str) -> None:
    with pytest.raises(WireError, match=told):
        telemetry.batch_from_bytes(request(telemetry=batch(**change)))


def test_a_register_comes_out_as_it_went_in() -> None:
    found = telemetry.registers_from_bytes(request(registers=registers()))
    assert found.rows == (REGISTER,)


def test_a_register_without_a_reason_is_refused() -> None:
    with pytest.raises(WireError, match="register reason is 0"):
        telemetry.registers_from_bytes(
            request(registers=registers(rows=[pb.RegisterRow(meter_id="m")]))
        )


def test_hello_says_who_speaks_and_how_to_read_it() -> None:
    found = telemetry.hello_from_bytes(hello(site()))
    (one,) = found.sites
    assert (found.wire_version, found.sent_ns, one.site_id) == (1, 5, "site-a")
    assert (one.rejection_capacity_w, one.loop_ids) == (9000.0, ("rack",))
    assert one.schemas == (
        Schema(schema_id=3, boot_id=BootId("t1"), channels=(Channel("rack", "hot_c", -3),)),
    )
    assert [spool.kind for spool in one.spools] == [SpoolKind.TELEMETRY, SpoolKind.BILLING]


def test_an_unnamed_capacity_is_absent_not_zero() -> None:
    found = telemetry.hello_from_bytes(hello(site(capability=pb.SiteCapability())))
    assert found.sites[0].rejection_capacity_w is None


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        ((), "0 sites"),
        ((site(), site()), "twice"),
        ((site(site_id=""),), "site_id"),
        ((site(site_id="x" * 65),), "site_id"),
        ((site(spools=[pb.SpoolState(boot_id="t1")]),), "spool kind is 0"),
        ((site(spools=[pb.SpoolState(kind=pb.SPOOL_KIND_BILLING)]),), "boot_id"),
        (
            (site(spools=[pb.SpoolState(kind=pb.SPOOL_KIND_BILLING, boot_id=b) for b in "ab"]),),
            "two spools",
        ),
    ],
)
def test_a_hello_that_cannot_be_is_refused(sites: tuple[pb.HelloSite, ...], told: str) -> None:
    with pytest.raises(WireError, match=told):
        telemetry.hello_from_bytes(hello(*sites))


def test_the_frame_of_one_site_names_that_site_alone() -> None:
    both = hello(site(), site(site_id="site-b"))
    found = telemetry.hello_from_bytes(telemetry.hellos_of_sites(both)[1])
    assert [one.site_id for one in found.sites] == ["site-b"]
    assert found.sent_ns == 5


@pytest.mark.parametrize(
    ("boundary_seq", "lanes"),
    [(0, ((Lane.LIVE, 4),)), (4, ((Lane.LIVE, 4),)), (7, ((Lane.BACKLOG, 4), (Lane.LIVE, 7)))],
)
def test_a_boundary_makes_two_lanes(boundary_seq: int, lanes: tuple[tuple[Lane, int], ...]) -> None:
    spool = SpoolState(
        kind=SpoolKind.TELEMETRY,
        boot_id=BootId("t1"),
        first_seq=4,
        next_seq=9,
        boundary_seq=boundary_seq,
    )
    assert spool.lanes() == lanes


def gap(**change: object) -> bytes:
    fields: dict[str, object] = {
        "site_index": 1,
        "boot_id": "t1",
        "first_seq": 3,
        "last_seq": 5,
        "start_ns": 100,
        "reason": pb.GAP_REASON_DROPPED,
    }
    return request(gap=pb.Gap(**fields | change))  # type: ignore[arg-type]


def test_a_gap_comes_out_as_it_went_in() -> None:
    assert telemetry.gap_from_bytes(gap()) == Gap(
        site_index=1,
        boot_id=BootId("t1"),
        first_seq=3,
        last_seq=5,
        start_ns=100,
        end_ns=None,
        reason=GapReason.DROPPED,
    )


def test_a_gap_for_a_reason_of_a_newer_agent_is_a_loss() -> None:
    newer = gap(reason=max(GapReason) + 1)
    assert telemetry.gap_from_bytes(newer).reason is GapReason.DROPPED


@pytest.mark.parametrize(
    ("change", "told"),
    [({"last_seq": 2}, "ends before"), ({"reason": 0}, "gap reason"), ({"boot_id": ""}, "boot_id")],
)
def test_a_gap_that_cannot_be_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(WireError, match=told):
        telemetry.gap_from_bytes(gap(**change))


READERS: list[Callable[[bytes], object]] = [
    peek,
    telemetry.hello_from_bytes,
    telemetry.batch_from_bytes,
    telemetry.registers_from_bytes,
    telemetry.gap_from_bytes,
    control.request_from_bytes,
]


@pytest.mark.parametrize("read", READERS)
@given(data=st.binary(max_size=60))
def test_rubbish_is_said_and_nothing_else_happens(
    read: Callable[[bytes], object], data: bytes
) -> None:
    try:
        read(data)
    except WireError as error:
        assert error.reason


@given(st.data())
def test_a_bitten_batch_is_a_batch_or_an_error(data: st.DataObject) -> None:
    whole = bytearray(request(telemetry=batch()))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        peek(bytes(whole))
        telemetry.batch_from_bytes(bytes(whole))
    except WireError as error:
        assert error.reason


# The door


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_the_door_sees_what_the_decoder_sees(site_index: int, seq: int) -> None:
    data = request(telemetry=batch(site_index=site_index, seq=seq))
    head = peek(data)
    assert (head.kind, head.site_index, head.seq) == (MessageKind.TELEMETRY, site_index, seq)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(hello(site()), MessageKind.HELLO), (gap(), MessageKind.GAP)],
)
def test_the_door_tells_the_kinds_apart(data: bytes, kind: MessageKind) -> None:
    assert peek(data).kind is kind


@pytest.mark.parametrize(
    ("change", "is_same"),
    [({"sent_ns": 5, "site_index": 0}, True), ({"schema_id": 9}, False), ({"cells": [1]}, False)],
)
def test_only_content_changes_the_checksum(*, change: dict[str, object], is_same: bool) -> None:
    one = content_crc32(request(telemetry=batch()))
    other = content_crc32(request(telemetry=batch(**change)))
    assert (one == other) is is_same


def test_a_resent_register_batch_has_the_same_checksum() -> None:
    one, other = registers(), registers(sent_ns=99, site_index=4)
    assert content_crc32(request(registers=one)) == content_crc32(request(registers=other))


def test_a_body_that_breaks_behind_its_number_still_has_its_identity() -> None:
    body = b"\x08\x02\x10\x07" + b"\xff" * 20
    data = b"\x12" + bytes([len(body)]) + body
    head = peek(data)
    assert (head.site_index, head.seq, content_crc32(data)) == (2, 7, 0)


def test_the_door_finds_a_number_in_any_place() -> None:
    body = b"\x28\x05\x10\x07\x10\x09\x08\x02"
    head = peek(b"\x12" + bytes([len(body)]) + body)
    assert (head.site_index, head.seq) == (2, 7)


@pytest.mark.parametrize("data", [b"", b"\x12\x02\xff\xff", b"\x2a\x00", b"\x08\x01", gap() * 2])
def test_a_message_without_identity_is_turned_away(data: bytes) -> None:
    with pytest.raises(WireError):
        peek(data)
