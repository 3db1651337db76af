"""A site of its own making on the two streams: raw messages over a real grpc.aio channel."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio

from heatpool.codec import pack
from heatpool.sample import Channel, Row
from heatpool.v1 import control_pb2, telemetry_pb2
from heatpool_aggregator.loops.sessions import Session

# gRPC joins its poller thread when its last object goes, wherever that happens: keep it up instead.
grpc.aio.init_grpc_aio()

pb = telemetry_pb2
ANSWER_S = 60.0
CHANNELS = (
    Channel("", "electric_w", -1),
    Channel("rack", "heat_rate_w", -1),
    Channel("rack", "heat_rate_w_u", -1),
    Channel("rack", "hot_c", -3),
    Channel("rack", "cold_c", -3),
    Channel("rack", "quality", 0),
    Channel("rack", "provenance", 0),
)


async def outgoing(session: Session) -> list[bytes]:
    """What a session has to say; waits for it."""
    news = asyncio.Event()
    session.on_news = news.set
    while not (messages := session.messages()):
        await news.wait()
        news.clear()
    return messages


def hello(site_id: str = "site-a", *, first_seq: int = 1, **change: Any) -> Any:
    """Says who speaks, with one schema, a telemetry and a billing spool."""
    channels = [
        pb.Channel(loop_id=c.loop_id, quantity=c.quantity, exponent=c.exponent) for c in CHANNELS
    ]
    spools = [
        pb.SpoolState(kind=kind, boot_id=f"{site_id}-{boot}", first_seq=first_seq, next_seq=99)
        for kind, boot in ((pb.SPOOL_KIND_TELEMETRY, "t"), (pb.SPOOL_KIND_BILLING, "b"))
    ]
    site = pb.HelloSite(
        site_id=site_id,
        spools=spools,
        schemas=[pb.Schema(schema_id=1, boot_id=f"{site_id}-t", channels=channels)],
        capability=pb.SiteCapability(rejection_capacity_w=9000, loop_ids=["rack"]),
    )
    fields: dict[str, Any] = {"wire_version": 1, "sites": [site], "sent_ns": 1}
    fields |= {"agent_version": "test"} | change
    return pb.TelemetryServiceStreamRequest(hello=pb.Hello(**fields))


def batch(seq: int, at_ns: int, heat_rate_w: float = 1000.0, **change: Any) -> Any:
    """One row of a rack that gives this heat."""
    values = (heat_rate_w / 0.9, heat_rate_w, heat_rate_w / 20, 45.0, 35.0, 2.0, 4.0)
    row = Row(event_ns=at_ns, cells=dict(zip(CHANNELS, values, strict=True)))
    columns = pack([row], CHANNELS, schema_id=1)
    fields: dict[str, Any] = {
        "seq": seq,
        "schema_id": 1,
        "start_ns": columns.start_ns,
        "n_rows": 1,
        "cells": columns.cells,
        "sent_ns": at_ns,
        "codec": pb.PAYLOAD_CODEC_NONE,
    } | change
    return pb.TelemetryServiceStreamRequest(telemetry=pb.TelemetryBatch(**fields))


def registers(seq: int, at_ns: int, *raws: int) -> Any:
    """Readings of one meter, a second apart."""
    rows = [
        pb.RegisterRow(
            metering_point_id="meter",
            meter_id="KAM.1.2.4",
            event_ns=at_ns + place * 10**9,
            raw=raw,
            modulus=10**8,
            reason=pb.REGISTER_REASON_PERIODIC,
        )
        for place, raw in enumerate(raws)
    ]
    return pb.TelemetryServiceStreamRequest(
        registers=pb.RegisterBatch(seq=seq, rows=rows, sent_ns=at_ns)
    )


class Line:
    """An open stream; what came down so far, oldest first."""

    def __init__(self, call: Any, response: Any) -> None:
        self.call = call
        self.seen: list[Any] = []
        self._response = response

    async def send(self, *messages: Any) -> None:
        """Writes messages, or bytes as they are."""
        for message in messages:
            data = message if isinstance(message, bytes) else message.SerializeToString()
            await self.call.write(data)

    async def next(self) -> Any:
        """The next message that comes down; an EOFError with the status if there is none."""
        data: object = None
        async with asyncio.timeout(ANSWER_S):
            with suppress(grpc.aio.AioRpcError):
                data = await self.call.read()
            if not isinstance(data, bytes):
                code, details = await self.call.code(), await self.call.details()
                raise EOFError(f"{code.name}: {details}")
        self.seen.append(self._response.FromString(data))
        return self.seen[-1]

    async def acked(self, boot_id: str, seq: int) -> None:
        """Returns when this number is durable."""
        while self.durable(boot_id) < seq:
            await self.next()

    def durable(self, boot_id: str) -> int:
        """The highest watermark that was said of this spool; 0 for none."""
        acked = [spool for one in self.seen for spool in one.ack.spools]
        return max((s.durable_seq for s in acked if s.boot_id == boot_id), default=0)

    async def refused(self, count: int) -> Sequence[Any]:
        """The first refusals, as many as asked for."""
        while len(found := [r for one in self.seen for r in one.ack.refused]) < count:
            await self.next()
        return found


@asynccontextmanager
async def line(address: str, service: str = "Telemetry") -> AsyncIterator[Line]:
    """A stream to the aggregator at this address."""
    responses = {
        "Telemetry": pb.TelemetryServiceStreamResponse,
        "Control": control_pb2.ControlServiceStreamResponse,
    }
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.stream_stream(f"/heatpool.v1.{service}Service/Stream")()
        yield Line(call, responses[service])
        call.cancel()
