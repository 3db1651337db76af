"""The agent's page on loopback, and who comes by a name or in a language that is not its own."""

import asyncio

import aiohttp
import pytest
from integration.site_board import StoppedClock, filled

from heatpool_agent.http import serve


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9188", 200),
        ("127.0.0.1", 200),
        ("[::1]:9188", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:9188", 421),
        ("localhost@evil.example", 421),
        ("", 421),
    ],
)
async def test_a_page_that_names_itself_as_this_machine_reads_nothing(
    host: str, status: int
) -> None:
    clock = StoppedClock()
    async with (
        serve("127.0.0.1:0", filled(clock), clock, period_s=1.0) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
        client.get("/v1/status", headers={"Host": host}) as answer,
    ):
        assert answer.status == status
        assert ("site_id" in await answer.text()) is (status == 200)


async def test_who_speaks_no_http_is_one_line_without_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = StoppedClock()
    async with serve("127.0.0.1:0", filled(clock), clock, period_s=1.0) as address:
        host, _, port = address.rpartition(":")
        for said in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nX: \x1b[2J\r\n\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(said)
            async with asyncio.timeout(20):
                await reader.read()
            writer.close()
    assert [one.getMessage() for one in caplog.records] == ["http.not_understood"]
    assert caplog.records[0].exc_info is None
