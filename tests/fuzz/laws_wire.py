"""The same law for what comes over the wire and lies in a spool: read, or refused as declared."""

import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from heatpool import codec
from heatpool.errors import StoreError, WireError
from heatpool.setpoint import Heartbeat, SetpointState
from heatpool.units import NS_PER_S
from heatpool.v1 import telemetry_pb2
from heatpool_agent import wire as agent_wire
from heatpool_agent.core.obedience import Obedience, beat, take
from heatpool_agent.core.override import MOST_S, begun
from heatpool_agent.core.safety import Held, Limits, LoopState, SafetyReading, decide
from heatpool_agent.kept_orders import OverrideFile, SeenOrders
from heatpool_aggregator.core import orders
from heatpool_aggregator.wire import command, control, peek, query, registry, telemetry
from heatpool_aggregator.wire.bulk import bulk_from_bytes

NOW_NS = 1_750_000_000_000_000_000
# Between the parts of one input.
CUT = b"\n--\n"

_UPWARDS: tuple[Callable[[bytes], object], ...] = (
    telemetry.hello_from_bytes,
    telemetry.batch_from_bytes,
    telemetry.registers_from_bytes,
    telemetry.gap_from_bytes,
    peek.peek,
)


def stream_message(data: bytes) -> None:
    """What a site sends on its telemetry stream: read by one of its decoders, or refused."""
    for read in _UPWARDS:
        with suppress(WireError):
            read(data)
    assert 0 <= peek.content_crc32(data) < 2**32


def bulk_batches(data: bytes) -> None:
    """Batches of a commit mean together what each means alone, and none fails the others."""
    payloads = data.split(CUT)
    heads, cells = bulk_from_bytes(payloads)
    for payload, head in zip(payloads, heads, strict=True):
        if head is None:
            continue
        batch = telemetry.batch_from_bytes(payload)
        assert tuple(cells[head.first : head.last].tolist()) == batch.columns.cells
        assert (head.start_ns, head.n_rows) == (batch.columns.start_ns, batch.columns.n_rows)


def zlib_payload(data: bytes) -> None:
    """Any bytes as the packed cells of a batch, and what they are packed from."""
    for payload in (data, zlib.compress(data, 1), zlib.compress(data, 1)[:-1]):
        batch = telemetry_pb2.TelemetryBatch(
            seq=1, step_ns=1, n_rows=60, codec=telemetry_pb2.PAYLOAD_CODEC_ZLIB, payload=payload
        )
        bulk_batches(
            telemetry_pb2.TelemetryServiceStreamRequest(telemetry=batch).SerializeToString()
        )


_REQUESTS: tuple[Callable[[bytes], object], ...] = (
    control.request_from_bytes,
    command.ask_from_bytes,
    command.end_from_bytes,
    command.list_from_bytes,
    command.audit_from_bytes,
    query.statement_request_from_bytes,
    query.gaps_request_from_bytes,
    registry.renew_request_from_bytes,
)


def order_requests(data: bytes) -> None:
    """Requests of people and reports of sites: read and judged, or refused."""
    for read in _REQUESTS:
        with suppress(WireError):
            found = read(data)
            if isinstance(found, orders.Ask):
                orders.ask_mistake(found, now_ns=NOW_NS)


def spooled_frames(data: bytes) -> None:
    """What lies in a spool or a file of orders, however it was spoilt: read, or refused."""
    with suppress(WireError):
        columns = codec.columns_from_bytes(data)
        codec.check(columns, 1)
    with suppress(WireError):
        codec.registers_from_bytes(data)


def aggregator_words(data: bytes) -> None:
    """What an aggregator says on either stream: acted on as a site does, or refused."""
    with suppress(WireError):
        told = agent_wire.answer(data)
        waits = [told.wait_s] if isinstance(told, agent_wire.HelloAnswer) else []
        assert all(wait is None or 0 <= wait <= agent_wire.SPAN_MOST_S for wait in waits)
    with suppress(WireError):
        wish = agent_wire.wish(data)
        obedience = Obedience(hold_ns=0, quiet_boot_ns=0)
        if isinstance(wish, Heartbeat):
            obedience = beat(obedience, wish, boot_ns=NOW_NS)
        elif wish is not None:
            obedience, state, detail = take(obedience, wish, boot_ns=NOW_NS, event_ns=NOW_NS)
            assert state is SetpointState.RECEIVED or detail
        if (held := obedience.held) is not None:
            _decided_soundly(held)


def _decided_soundly(held: Held) -> None:
    """No order, whatever is in it, asks a device for what is no power, beyond its loop's, or for
    longer than its lease."""
    limits = Limits(max_heat_rate_w=60_000.0)
    for boot_ns in (NOW_NS, NOW_NS + NS_PER_S, NOW_NS + 10**18):
        hot, dry, runs = (SafetyReading(value=one, boot_ns=boot_ns) for one in (45.0, 0.0, 1.0))
        seen = LoopState(hot_c=hot, leak=dry, pump_runs=runs)
        watts = decide(held, seen, limits, override=None, boot_ns=boot_ns).heat_rate_w
        if watts is not None:
            assert 0 <= watts <= 60_000.0
            assert held.starts_boot_ns <= boot_ns < held.lease_ends_boot_ns


def kept_orders(data: bytes) -> None:
    """The two files of orders, however they were spoilt: read soundly, or refused."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        file, seen = OverrideFile(folder), SeenOrders(folder, "rack")
        for path in (file.path, folder / "last_order.rack.json"):
            path.write_bytes(data)
        with suppress(StoreError):
            assert seen.read() >= 0
        with suppress(StoreError):
            ask = file.read()
            now = None if ask is None else begun(ask, boot_ns=NS_PER_S, event_ns=NOW_NS)
            assert now is None or 0 < now.ends_boot_ns - NS_PER_S <= MOST_S * NS_PER_S
