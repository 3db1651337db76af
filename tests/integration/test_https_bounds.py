"""What strangers and other pages cannot do on HTTPS, however they word it or many they are."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import https_bench
import pytest
from https_bench import Bench, csr

from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.core.turned_away import Reason


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with https_bench.opened(tmp_path) as opened:
        yield opened


async def test_a_name_with_a_line_end_is_none(bench: Bench) -> None:
    wish = {"token": (await bench.join_token()).text, "csr_pem": csr().decode(), "site_id": "e1\n"}
    async with bench.session.post("/v1/join", json=wish) as response:
        assert response.status == HTTPStatus.BAD_REQUEST
        assert "site_id is no name" in (await response.json(content_type=None))["detail"]


async def test_a_certificate_is_kept_by_nobody_on_its_way(bench: Bench) -> None:
    wish = {"token": (await bench.join_token()).text, "csr_pem": csr().decode(), "site_id": "e1"}
    async with bench.session.post("/v1/join", json=wish) as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")


async def test_another_page_drives_no_session(bench: Bench) -> None:
    origin = str(bench.session._base_url).rstrip("/")
    token = await bench.api_token("person/anna", Role.OPERATOR)
    async with bench.session.post(
        "/login", data={"token": token}, headers={"Origin": origin}, allow_redirects=False
    ) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    found = []
    for named in (origin, "https://elsewhere.example"):
        headers = {"Cookie": cookie, "Origin": named}
        async with bench.session.post("/v1/sites", headers=headers) as response:
            found.append(response.status)
    assert found == [HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.FORBIDDEN]
    assert bench.board.turned_away.counts[Reason.ORIGIN] == 1


async def test_strangers_from_everywhere_do_not_fill_the_audit_log(bench: Bench) -> None:
    host, _, port = bench.address.rpartition(":")
    request = b"GET /v1/sites HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n"

    async def ask(number: int) -> bytes:
        context: ssl.SSLContext = bench.context
        reader, writer = await asyncio.open_connection(
            host,
            int(port),
            ssl=context,
            server_hostname="localhost",
            local_addr=(f"127.0.1.{number}", 0),
        )
        try:
            writer.write(request)
            return await reader.readline()
        finally:
            writer.close()

    answers = [await ask(number) for number in range(1, 31)]
    assert all(b"401" in answer for answer in answers)
    assert bench.board.turned_away.counts[Reason.API_TOKEN] == 30
    told = [one for one in await bench.audit.read(99) if one.action.startswith("refused.")]
    assert len(told) == 20
