"""Reading over real HTTPS: tokens, roles, tenants, browser sessions, and renewed certificates."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import https_bench
import pytest
from https_bench import OWN_SITES, OWN_SOURCE, TENANT, Bench

from heatpool.errors import HeatpoolError
from heatpool.sample import SiteId
from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.identity import certificates, places, server
from heatpool_aggregator.loops.renewal import Renewal
from heatpool_aggregator.web import secured
from heatpool_aggregator.web.access import COOKIE

DATA_PATHS = (
    "/v1/sites",
    "/v1/sites/lido-hall-1",
    "/v1/sources",
    "/v1/sources/lido-hall",
    "/v1/statements",
    "/v1/statements/last",
    "/v1/status",
    "/v1/balance",
    "/v1/state",
    "/v1/events",
    "/metrics",
    "/openapi.json",
    "/v1/nothing",
)
ACCOUNTS_PATHS = ("/v1/statements", "/v1/statements/last", "/v1/balance")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with https_bench.opened(tmp_path) as opened:
        yield opened


async def status_of(bench: Bench, path: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with bench.session.get(path, headers=headers) as response:
        return response.status


async def test_a_stranger_sees_that_we_live_and_how_to_get_in(bench: Bench) -> None:
    for path in ("/healthz", "/readyz", "/v1/ca", "/login"):
        async with bench.session.get(path) as response:
            assert response.status == 200, path
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


async def test_a_stranger_sees_nothing_else(bench: Bench) -> None:
    told = {}
    for path in DATA_PATHS:
        async with bench.session.get(path) as response:
            kind, how = response.content_type, response.headers.get("WWW-Authenticate", "")
            told[path] = (response.status, kind, how.partition(" ")[0])
    assert set(told.values()) == {(401, "application/problem+json", "Bearer")}, told


async def test_an_operator_sees_everything(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    paths = [path for path in DATA_PATHS if path != "/v1/events"]
    told = {path: await status_of(bench, path, token) for path in paths}
    assert told == {path: 404 if path == "/v1/nothing" else 200 for path in paths}


async def test_who_only_reads_sees_no_money(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.READ_ONLY)
    assert {await status_of(bench, path, token) for path in ACCOUNTS_PATHS} == {403}
    status, state = await bench.get("/v1/state", token)
    assert status == 200 and state["statement"] is None
    assert state["balance"]["balance_error_wh"] is None
    assert len(state["sites"]) == 13


async def own_sites(bench: Bench) -> None:
    for site_id in OWN_SITES:
        await bench.identities.add_site(SiteId(site_id), TENANT)


async def test_a_site_owner_sees_its_own_alone(bench: Bench) -> None:
    token = await bench.api_token("person/olaf", Role.SITE_OWNER, TENANT)
    assert (await bench.get("/v1/sites", token))[1] == {"sites": []}
    await own_sites(bench)
    _, state = await bench.get("/v1/state", token)
    assert {site["site_id"] for site in state["sites"]} == set(OWN_SITES)
    assert [one["virtual_source_id"] for one in state["virtual_sources"]] == [OWN_SOURCE]
    lines = state["statement"]["lines"]
    assert lines and {line["site_id"] for line in lines} <= set(OWN_SITES)
    assert {one["site_id"] for one in state["statement"]["missing"]} == {"lido-hall-4"}
    assert state["balance"]["balance_error_wh"] is None
    _, sources = await bench.get("/v1/sources", token)
    assert [one["virtual_source_id"] for one in sources["virtual_sources"]] == [OWN_SOURCE]
    _, told = await bench.get("/v1/statements", token)
    for one in told["statements"]:
        assert {line["site_id"] for line in one["lines"]} <= set(OWN_SITES)


@pytest.mark.parametrize("role", [Role.SITE_OWNER, Role.OPERATOR, Role.SETTLEMENT])
async def test_a_neighbour_is_as_if_not_there(bench: Bench, role: Role) -> None:
    token = await bench.api_token("person/olaf", role, TENANT)
    await own_sites(bench)
    assert await status_of(bench, "/v1/sites/lido-hall-1", token) == 200
    for path in ("/v1/sites/altstadt-loop-2", "/v1/sources/glasshouse-nord"):
        status, problem = await bench.get(path, token)
        assert status == 404 and "altstadt-loop-1" not in problem["detail"]
    assert await status_of(bench, "/metrics", token) == 403


async def test_a_part_of_a_source_does_not_show_its_sum(bench: Bench) -> None:
    token = await bench.api_token("person/olaf", Role.SITE_OWNER, TENANT)
    await bench.identities.add_site(SiteId("altstadt-loop-1"), TENANT)
    _, state = await bench.get("/v1/state", token)
    assert [site["virtual_source_id"] for site in state["sites"]] == ["altstadt-loop"]
    assert state["virtual_sources"] == []
    assert (await bench.get("/v1/sources", token))[1] == {"virtual_sources": []}
    status, problem = await bench.get("/v1/sources/altstadt-loop", token)
    assert status == 403 and "other owners" in problem["detail"]
    assert "altstadt-loop-2" not in problem["detail"]
    async with bench.session.get(
        "/v1/events", headers={"Authorization": f"Bearer {token}"}
    ) as stream:
        lines = [line async for line in _until_data(stream)]
    assert b'"virtual_sources":[]' in lines[-1]


async def _until_data(stream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for line in stream.content:
        yield line
        if line.startswith(b"data:"):
            return


async def test_an_owner_without_a_tenant_sees_nobody(bench: Bench) -> None:
    token = await bench.api_token("person/olaf", Role.SITE_OWNER)
    assert (await bench.get("/v1/sites", token))[1] == {"sites": []}


NO_TOKENS = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    "Basic YWRtaW46YWRtaW4=",
    "Bearer heatpool-aaaaaa-" + "0" * 64,
    "Bearer heatpool-aaaaaa-" + "0" * 63 + "'",
    "Bearer " + "a" * 7000,
)


async def test_a_token_that_is_none_is_refused(bench: Bench) -> None:
    told = {}
    for value in NO_TOKENS:
        async with bench.session.get("/v1/state", headers={"Authorization": value}) as response:
            told[value] = response.status
    assert set(told.values()) == {401}, told


async def test_two_tokens_in_one_request_are_none(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer x")]
    async with bench.session.get("/v1/state", headers=headers) as response:
        assert response.status == 401


async def test_a_token_ends_with_its_time_and_with_its_holder(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    bench.clock.at_ns += https_bench.DAY_NS
    assert await status_of(bench, "/v1/state", token) == 401
    bench.clock.at_ns -= https_bench.DAY_NS
    assert await status_of(bench, "/v1/state", token) == 200
    await bench.identities.revoke_user("person/anna", "left")
    assert await status_of(bench, "/v1/state", token) == 401
    assert bench.board.turned_away.counts[Reason.API_TOKEN] == 2


async def test_an_event_stream_ends_when_its_reader_is_revoked(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    headers = {"Authorization": f"Bearer {token}"}
    async with bench.session.get("/v1/events", headers=headers) as response:
        assert response.status == 200
        assert b"retry" in await response.content.readline()
        await bench.identities.revoke_user("person/anna", "left")
        async with asyncio.timeout(20):
            await response.content.read()  # to its end


async def test_each_listener_of_events_hears_its_own_tenant(bench: Bench) -> None:
    await own_sites(bench)
    for name, role, tenant, count in (
        ("person/olaf", Role.SITE_OWNER, TENANT, len(OWN_SITES)),
        ("person/anna", Role.OPERATOR, "", 13),
        ("person/otto", Role.SITE_OWNER, "south", 0),
    ):
        token = await bench.api_token(name, role, tenant)
        headers = {"Authorization": f"Bearer {token}"}
        async with bench.session.get("/v1/events", headers=headers) as response:
            data = b""
            while not data.startswith(b"data: "):
                data = await response.content.readline()
        assert data.count(b'"is_this_machine"') == count


async def login(bench: Bench, token: str, **headers: str) -> aiohttp.ClientResponse:
    origin = f"https://localhost:{bench.address.rpartition(':')[2]}"
    async with bench.session.post(
        "/login",
        data={"token": token},
        headers={"Origin": origin, **headers},
        allow_redirects=False,
    ) as response:
        await response.read()
        return response


async def test_a_browser_logs_in_reads_and_logs_out(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    answer = await login(bench, token)
    assert answer.status == 303 and answer.headers["Location"] == "/"
    set_cookie = answer.headers["Set-Cookie"]
    assert set_cookie.startswith(f"{COOKIE}=")
    for flag in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/"):
        assert flag in set_cookie
    assert token not in set_cookie
    headers = {"Cookie": set_cookie.partition(";")[0]}
    async with bench.session.get("/", headers=headers, allow_redirects=False) as response:
        assert response.status == 200
    async with bench.session.get("/v1/state", headers=headers) as response:
        assert response.status == 200
    async with bench.session.post("/logout", headers=headers) as response:
        assert response.status == 403  # no Origin: another page may have sent it
    origin = {"Origin": str(response.url.origin()), **headers}
    async with bench.session.post("/logout", headers=origin, allow_redirects=False) as response:
        assert response.status == 303
    async with bench.session.get("/v1/state", headers=headers) as response:
        assert response.status == 401
    assert [entry.action for entry in await bench.audit.read(9)][-1] == "login"


async def test_a_session_ends_with_its_token(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    cookie = (await login(bench, token)).headers["Set-Cookie"].partition(";")[0]
    await bench.identities.revoke_user("person/anna", "left")
    async with bench.session.get("/v1/state", headers={"Cookie": cookie}) as response:
        assert response.status == 401


async def test_a_browser_without_a_session_is_shown_the_way_in(bench: Bench) -> None:
    async with bench.session.get("/", allow_redirects=False) as response:
        assert response.status == 303 and response.headers["Location"] == "/login"
    async with bench.session.get("/", headers={"Cookie": f"{COOKIE}=made-up"}) as response:
        assert response.url.path == "/login"
        assert "script" not in await response.text()


async def test_another_page_logs_nobody_in(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    for origin in ("https://elsewhere.example", "null", "", "http://localhost"):
        answer = await login(bench, token, Origin=origin)
        assert answer.status == 403 and "Set-Cookie" not in answer.headers
    assert bench.board.turned_away.counts[Reason.ORIGIN] == 4


async def test_who_may_not_is_counted_and_told_once_by_name(bench: Bench) -> None:
    token = await bench.api_token("person/rita", Role.READ_ONLY)
    for _ in range(3):
        await bench.get("/v1/statements", token)
    assert bench.board.turned_away.counts[Reason.ROLE] == 3
    refusals = [entry for entry in await bench.audit.read(9) if entry.who == "person/rita"]
    assert [entry.action for entry in refusals] == ["refused.role"]


async def test_who_guesses_at_the_login_page_is_slowed_down(bench: Bench) -> None:
    answers = [await login(bench, "heatpool-aaaaaa-" + "0" * 64) for _ in range(7)]
    assert [answer.status for answer in answers] == [403] * 5 + [429] * 2
    assert all("Set-Cookie" not in answer.headers for answer in answers)


async def seen_serial(bench: Bench, *, named: str = "localhost") -> str:
    """Serial of the certificate that a new connection is served with."""
    host, _, port = bench.address.rpartition(":")
    context = bench.context
    context.check_hostname = named == "localhost"
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=named)
    try:
        return str(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
    finally:
        writer.close()


async def test_a_renewed_certificate_is_served_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secured, "LOOK_S", 0.02)
    async with https_bench.opened(tmp_path) as bench:
        before = await seen_serial(bench)
        # Half a pair: whoever comes is served with the one before.
        await asyncio.to_thread(places.write, bench.files.server_key, b"no key at all")
        await asyncio.sleep(0.1)
        assert await seen_serial(bench) == before
        now_ns = bench.clock.now_ns()
        issued = await asyncio.to_thread(
            lambda: server.make(bench.ca, bench.files, ["localhost"], now_ns=now_ns)
        )
        async with asyncio.timeout(20):
            while int(await seen_serial(bench), 16) != int(issued.serial, 16):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        # Who comes by address names no server.
        assert int(await seen_serial(bench, named="127.0.0.1"), 16) == int(issued.serial, 16)


async def test_our_own_certificate_is_renewed_at_two_thirds_of_its_life(bench: Bench) -> None:
    renewal = Renewal(ca=bench.ca, files=bench.files, audit=bench.audit, clock=bench.clock)
    key = await asyncio.to_thread(places.read, bench.files.server_key)
    assert not await renewal.step()
    bench.clock.at_ns += 58 * https_bench.DAY_NS
    assert not await renewal.step()
    bench.clock.at_ns += 3 * https_bench.DAY_NS
    assert await renewal.step()
    assert not await renewal.step()
    assert await asyncio.to_thread(places.read, bench.files.server_key) == key
    (newest,) = await bench.audit.read(1)
    assert newest.action == "certificate.renew_server"
    await asyncio.to_thread(server.context, bench.files.server, bench.files.server_key)


async def test_a_certificate_that_a_clock_ahead_made_is_replaced_once_it_is_right(
    bench: Bench,
) -> None:
    renewal = Renewal(ca=bench.ca, files=bench.files, audit=bench.audit, clock=bench.clock)
    right_ns = bench.clock.at_ns
    bench.clock.at_ns = right_ns + 65 * https_bench.DAY_NS
    assert await renewal.step()
    bench.clock.at_ns = right_ns
    assert await renewal.step() and not await renewal.step()
    made = certificates.named(await asyncio.to_thread(places.read, bench.files.server))
    assert made.issued_ns <= right_ns < made.expires_ns


async def test_a_certificate_from_elsewhere_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    def foreign() -> None:
        other = places.places(tmp_path / "other")
        places.make_folder(other.folder)
        from heatpool_aggregator.identity import authority  # noqa: PLC0415

        now_ns = bench.clock.now_ns()
        ca = authority.make(other, now_ns=now_ns)
        server.make(ca, other, ["localhost"], now_ns=now_ns)
        os.replace(other.server, bench.files.server)

    # Both CAs have the day in their name, and it is the same one.
    await asyncio.to_thread(foreign)
    renewal = Renewal(ca=bench.ca, files=bench.files, audit=bench.audit, clock=bench.clock)
    bench.clock.at_ns += 999 * https_bench.DAY_NS
    assert not await renewal.step()
    with pytest.raises(HeatpoolError, match="cannot be used together"):
        await asyncio.to_thread(server.context, bench.files.server, bench.files.server_key)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_an_old_tls_is_not_spoken(bench: Bench, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cadata=bench.ca.pem)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = version
        context.maximum_version = version
    host, _, port = bench.address.rpartition(":")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(host, int(port), ssl=context, server_hostname="localhost")


async def test_plain_http_gets_no_answer_on_the_tls_port(bench: Bench) -> None:
    host, _, port = bench.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer: Any = b""
    try:
        async with asyncio.timeout(20):
            answer = await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert b"HTTP/1.1" not in answer
