"""Many connections, broken bodies, many screens: each is bounded, counted, and told once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from https_bench import Bench, opened

from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.web import listening
from heatpool_aggregator.web.events import OWN_MAX_COUNT

PLACES = 12  # of one address: half of it
BOMB = b"\x1f\x8b\x08\x00 no gzip at all"


@pytest.fixture
def short_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that opens after this waits less for one, but long enough for a crowd to come."""
    monkeypatch.setattr(listening, "HANDSHAKE_S", 3.0)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(listening, "CONNECTIONS_LIMIT", PLACES)
    async with opened(tmp_path) as found:
        yield found


async def test_a_crowd_takes_no_more_than_its_places_and_leaves_them(
    short_handshakes: None, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = bench.address.rpartition(":")
    lines = [await asyncio.open_connection(host, int(port)) for _ in range(3 * PLACES)]
    async with asyncio.timeout(60):
        # Those that are one too many at once, the others for want of a handshake.
        await asyncio.gather(*(reader.read() for reader, _ in lines))
    for _, writer in lines:
        writer.close()
    assert bench.board.turned_away.counts[Reason.OVERLOAD] == 3 * PLACES - PLACES // 2
    assert len([one for one in caplog.records if one.getMessage() == "web.refused"]) == 1
    assert b" 200 " in await bench.raw(b"GET /healthz HTTP/1.0\r\n\r\n")


async def test_a_body_that_is_not_what_its_head_says_is_one_line_and_no_traceback(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /v1/join HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    told = b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    for _ in range(3):
        assert b" 400 " in await bench.raw(head + told % len(BOMB) + BOMB, wait_s=2.0)
    assert b" 400 " in await bench.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n")
    lines = [one for one in caplog.records if one.getMessage() == "http.not_understood"]
    assert len(lines) == 2  # of a body nobody says whose it was
    assert not [one for one in caplog.records if one.exc_info]
    assert bench.board.turned_away.counts[Reason.MALFORMED] == 4


async def test_an_answer_does_not_say_what_made_it(bench: Bench) -> None:
    answer = await bench.raw(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b"\r\nServer: heatpool\r\n" in answer
    assert b"aiohttp" not in answer and b"Python" not in answer


async def test_one_reader_leaves_room_for_the_event_streams_of_others(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as bench, AsyncExitStack() as stack:
        tokens = [await bench.api_token(f"person/{name}", Role.READ_ONLY) for name in ("a", "b")]
        mine, others = ({"Authorization": f"Bearer {token}"} for token in tokens)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                bench.url, connector=aiohttp.TCPConnector(limit=0, ssl=bench.context)
            )
        )

        async def listens(headers: dict[str, str]) -> int:
            get = session.get("/v1/events", headers=headers)
            return (await stack.enter_async_context(get)).status

        assert [await listens(mine) for _ in range(OWN_MAX_COUNT)] == [200] * OWN_MAX_COUNT
        assert await listens(mine) == 503
        assert await listens(others) == 200
