"""Floods of frames at the gRPC port, from somebody with a certificate: bounded, others served."""

import asyncio
import resource
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from integration import site_client as site
from integration.door import http2
from integration.door.calls import QUERY
from integration.door.http2 import CONTINUATION, DATA, PING, SETTINGS, WINDOW_UPDATE, Raw
from integration.door.test_abuse import still_serves

from heatpool_aggregator.rpc import calls, server

STREAM = "/heatpool.v1.TelemetryService/Stream"
CROWD = 20


def raw_of(rig: Any, name: str = "site/e1", **more: Any) -> AbstractAsyncContextManager[Raw]:
    return http2.opened(rig.address, rig.ca.pem, rig.caller(name), rig.folder, **more)


async def test_a_connection_has_few_calls_at_once_and_short_heads(rig: Any) -> None:
    async with raw_of(rig) as raw:
        _, payload = await raw.next_of(SETTINGS)
    pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
    told = {int.from_bytes(one[:2], "big"): int.from_bytes(one[2:], "big") for one in pairs}
    assert calls.CALLER_LIMIT < told[http2.MAX_CONCURRENT_STREAMS] <= 128
    assert told[http2.MAX_HEADER_LIST_SIZE] <= 16 << 10


async def test_a_head_of_many_references_is_refused_call_by_call(rig: Any) -> None:
    kept, again = http2.field(b"x", b"y" * 3_500, is_kept=True), b"\xbe" * 8_000
    async with raw_of(rig) as raw:
        await raw.send(http2.head(1, STREAM, kept) + http2.head(3, STREAM, again))
        assert (await raw.next_of(http2.RST_STREAM))[0] in (1, 3)
    await still_serves(rig)


@pytest.mark.parametrize(
    "flood",
    [
        http2.frame(PING, payload=bytes(8)) * 10,
        http2.head(1, STREAM, flags=0) + http2.frame(CONTINUATION, 1) * 1_000,
        http2.head(1, STREAM) + http2.frame(DATA, 1) * 40_000,
    ],
    ids=["pings", "empty continuations", "empty data"],
)
async def test_who_sends_frames_of_nothing_is_hung_up_on(rig: Any, flood: bytes) -> None:
    async with raw_of(rig) as raw:
        await raw.send(flood)
        assert await raw.hung_up()
    await still_serves(rig)


def resets() -> list[bytes]:
    places = range(1, 6_000, 2)
    return [http2.head(place, STREAM) + http2.reset(place) for place in places]


def asked_and_reset() -> list[bytes]:
    path = f"/{QUERY}/ListSiteStatus"
    return [
        http2.head(at, path) + http2.message(at, b"", flags=http2.END_STREAM) + http2.reset(at)
        for at in range(1, 4_000, 2)
    ]


@pytest.mark.parametrize(
    "parts",
    [
        resets(),
        asked_and_reset(),
        [http2.frame(SETTINGS, payload=http2.setting(http2.INITIAL_WINDOW_SIZE, 1))] * 5_000,
        [http2.frame(WINDOW_UPDATE, payload=bytes((0, 0, 0, 1)))] * 20_000,
        [
            http2.head(1, STREAM, flags=0),
            *[http2.frame(CONTINUATION, 1, http2.field(b"x", b"y" * 1_000))] * 3_000,
        ],
    ],
    ids=["reset at once", "asked and reset", "settings", "windows", "continuations"],
)
async def test_a_flood_keeps_nobody_else_waiting(rig: Any, parts: list[bytes]) -> None:
    async with raw_of(rig) as raw:
        reading = asyncio.create_task(raw.hung_up())
        for at in range(0, len(parts), 100):
            await raw.send(b"".join(parts[at : at + 100]))
        await still_serves(rig)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_what_nobody_reads_waits_as_one_message(rig: Any) -> None:
    closed = http2.setting(http2.INITIAL_WINDOW_SIZE, 0)
    async with raw_of(rig, settings=closed) as raw:
        await raw.send(
            http2.head(1, STREAM) + http2.message(1, site.hello("e1").SerializeToString())
        )
        now_ns = time.time_ns()
        for seq in range(1, 1_001):
            await raw.send(http2.message(1, site.batch(seq, now_ns + seq).SerializeToString()))
        await still_serves(rig)
        await raw.send(http2.frame(WINDOW_UPDATE, 1, (1 << 20).to_bytes(4, "big")))
        answer = b""
        while not answer.count(b"e1-t"):
            answer += (await raw.next_of(DATA))[1]
        assert len(answer) < 4 << 10


@pytest.fixture
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts after this has room for a crowd and no more."""
    monkeypatch.setattr(server, "connections_limit", lambda: CROWD)


async def test_a_crowd_without_a_handshake_leaves_us_our_descriptors(
    few_places: None, rig: Any
) -> None:
    host, _, port = rig.address.rpartition(":")
    lines = [await asyncio.open_connection(host, int(port)) for _ in range(2 * CROWD)]
    ends = [asyncio.create_task(reader.read()) for reader, _ in lines]
    async with asyncio.timeout(20):
        while sum(end.done() for end in ends) < CROWD:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=0.1)
    for _, writer in lines:
        writer.transport.abort()
    await asyncio.gather(*ends, return_exceptions=True)
    await still_serves(rig)


def test_files_keep_a_part_of_all_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 1_024))
    assert server.connections_limit() == 704
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, -1))
    assert server.connections_limit() == server.NO_LIMIT
