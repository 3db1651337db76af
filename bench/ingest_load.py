"""Light senders of the telemetry wire for bench/ingest.py: one process, a connection a stream.

Talks to the parent by lines: `ready` when every stream has said hello, then waits for `go`; `start`
and `stop` around the measured seconds; a JSON object at the end. Channels and messages are those
of `heatpool-sim load`, put together by hand: making them costs little beside carrying them.
"""

import argparse
import asyncio
import gc
import json
import random
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

import grpc.aio

from heatpool.codec import pack
from heatpool.sample import Row, SpoolKind
from heatpool.v1 import telemetry_pb2 as pb
from heatpool_sim.load.figures import CHANNELS
from heatpool_sim.wire import up

ECHO_METHOD = "/bench.Echo/Stream"
SPREADS = (4.0, 0.5, 4.0, 5.0, 0.5, 4.0, 0.5, 0.04, 0.03, 0.003, 0.0, 0.0)
STARTS = (5_000.0, 50.0, 4_800.0, 4_700.0, 90.0, 4_750.0, 80.0, 55.0, 45.0, 0.4, 2.0, 4.0)
STEP_NS = 10**10
VARIANTS_COUNT = 64
WARM_S = 2.0
DRAIN_S = 3.0
SAMPLE_EACH = 8  # of the streams, whose latencies are kept
OPENING_COUNT = 100


def site_of(number: int) -> str:
    """Name of one site of the bench."""
    return f"site-{number:05d}"


def rows_of(random_: random.Random, n_rows: int) -> list[Row]:
    """Rows of a site that works steadily: each value walks a little."""
    rows, values = [], list(STARTS)
    for place in range(n_rows):
        values = [value + random_.gauss(0, s) for value, s in zip(values, SPREADS, strict=True)]
        rows.append(
            Row(event_ns=1 + place * STEP_NS, cells=dict(zip(CHANNELS, values, strict=True)))
        )
    return rows


def bodies(n_rows: int, *, is_packed: bool) -> list[bytes]:
    """Everything of a batch but its numbers and times, in some variants."""
    random_ = random.Random(7)
    made = (
        pack(rows_of(random_, n_rows), CHANNELS, schema_id=up.SCHEMA_ID)
        for _ in range(VARIANTS_COUNT)
    )
    return [up.body(columns, is_packed=is_packed) for columns in made]


def hello(site_id: str, boot_id: str) -> bytes:
    """Says who speaks."""
    spool = up.Spool(kind=SpoolKind.TELEMETRY, boot_id=boot_id, first_seq=1, next_seq=1)
    return up.hello(site_id, [spool], CHANNELS)


class Load:
    """All streams of one run."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.is_echo = asked.mode == "echo"
        is_packed = asked.rows >= up.ZLIB_ROWS_LEAST
        self.bodies = bodies(asked.rows, is_packed=is_packed)
        self.calls: list[Any] = []
        self.sent_ns: list[dict[int, int]] = []
        self.latencies_ns: list[int] = []
        self.sent = self.acked = self.wire_bytes = 0
        self.is_measured = False
        self.channels: list[grpc.aio.Channel] = []

    async def open(self) -> None:
        """Opens the streams, some at a time."""
        for first in range(0, self.asked.streams, OPENING_COUNT):
            last = min(first + OPENING_COUNT, self.asked.streams)
            await asyncio.gather(*(self._open(number) for number in range(first, last)))

    async def _open(self, number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(self.asked.address, options=options)
        self.channels.append(channel)
        call: Any = channel.stream_stream(ECHO_METHOD if self.is_echo else up.METHOD)()
        await call.write(hello(site_of(number), uuid.uuid4().hex))
        await call.read()
        self.calls.append(call)
        self.sent_ns.append({})

    async def listen(self, place: int) -> None:
        """Reads what comes back on one stream, until it ends."""
        call, sent_ns, acked = self.calls[place], self.sent_ns[place], 0
        is_sampled = place % SAMPLE_EACH == 0
        while isinstance(data := await call.read(), bytes):
            if self.is_echo:
                seq = acked + 1
            elif not (seq := _durable(data)):
                continue
            self.acked += seq - acked
            if is_sampled:
                now_ns = time.monotonic_ns()
                for one in range(acked + 1, seq + 1):
                    began_ns = sent_ns.pop(one)
                    if self.is_measured:
                        self.latencies_ns.append(now_ns - began_ns)
            acked = seq

    async def send(self, seconds: float, state: list[int]) -> None:
        """Sends at the asked pace, stream after stream, in slices of 5 ms."""
        began, sent = time.monotonic(), 0
        span_ns = self.asked.rows * STEP_NS
        while (elapsed_s := time.monotonic() - began) < seconds:
            # A stream takes one message at a time: after a stall the rest comes in the next slice.
            due = min(int(elapsed_s * self.asked.rate), sent + len(self.calls))
            now_ns, now_mono_ns = time.time_ns(), time.monotonic_ns()
            writes = []
            for _ in range(sent, due):
                place = state[0] % len(self.calls)
                seq = state[0] // len(self.calls) + 1
                state[0] += 1
                body = self.bodies[state[0] % len(self.bodies)]
                data = up.telemetry(seq, body, start_ns=now_ns - span_ns, sent_ns=now_ns)
                self.wire_bytes += len(data)
                if place % SAMPLE_EACH == 0:
                    self.sent_ns[place][seq] = now_mono_ns
                writes.append(self.calls[place].write(data))
            if writes:
                await asyncio.gather(*writes)
            sent = max(due, sent)
            self.sent = state[0]
            await asyncio.sleep(0.005)

    async def run(self) -> dict[str, Any]:
        """One measurement, told by lines."""
        state = [0]
        await self.open()
        gc.freeze()
        tell("ready")
        await asyncio.to_thread(sys.stdin.readline)
        listeners = [asyncio.ensure_future(self.listen(p)) for p in range(len(self.calls))]
        await self.send(WARM_S, state)
        acked, sent, wire_bytes = self.acked, self.sent, self.wire_bytes
        self.is_measured = True
        tell("start")
        await self.send(self.asked.seconds, state)
        tell("stop")
        self.is_measured = False
        found: dict[str, Any] = {
            "sent": self.sent - sent,
            "acked": self.acked - acked,
            "wire_bytes": self.wire_bytes - wire_bytes,
        }
        await asyncio.sleep(DRAIN_S)
        found |= {"left": self.sent - self.acked, "latencies_ms": quantiles(self.latencies_ns)}
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self.channels))
        return found


def _durable(data: bytes) -> int:
    response = pb.TelemetryServiceStreamResponse.FromString(data)
    return max((spool.durable_seq for spool in response.ack.spools), default=0)


def quantiles(values_ns: Sequence[int]) -> dict[str, float]:
    """p50 and p99, ms."""
    ordered = sorted(values_ns) or [0]
    return {
        name: ordered[min(len(ordered) - 1, int(len(ordered) * frac))] / 1e6
        for name, frac in (("p50", 0.5), ("p99", 0.99))
    }


def tell(line: str) -> None:
    """A line to the parent."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("echo", "ours"))
    parser.add_argument("address")
    for name, kind in (("streams", int), ("rate", float), ("rows", int), ("seconds", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    return parser.parse_args()


async def main() -> None:
    """Loads, measures, reports."""
    tell(json.dumps(await Load(parsed()).run()))


def start() -> None:
    """The program, as the parent starts it."""
    gc.set_threshold(50_000, 20, 1_000)
    asyncio.run(main())
