"""The Redfish driver's line: whom it trusts, what it refuses, and what a tape keeps of it."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from aiohttp import web
from integration.redfish_bench import METRICS, ROOT, Bmc, Clock, documents, powers
from turns import SOON_S, turning

from heatpool.errors import SensorBusy, SensorError, SensorGone
from heatpool.process import settings
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import redfish
from heatpool_agent.sensors.redfish import RedfishSensor
from heatpool_agent.sensors.redfish.http import is_same_host


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificate:
    file: Path
    server: ssl.SSLContext
    pin: str


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> _Certificate:
    """A certificate for loopback that signed itself, as BMCs have them."""
    if which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    file, key = folder / "cert.pem", folder / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=bmc", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*make.split(), *names, "-out", str(file), "-keyout", str(key)],
        check=True,
        capture_output=True,
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file, key)
    plain = ssl.PEM_cert_to_DER_cert(file.read_text())
    return _Certificate(file=file, server=server, pin=sha256(plain).hexdigest())


@asynccontextmanager
async def guarded(folder: Path, certificate: _Certificate) -> AsyncIterator[Bmc]:
    async with Bmc(folder, tls=certificate.server).serving() as bmc:
        bmc.url = bmc.url.replace("http:", "https:")
        yield bmc


@pytest.mark.parametrize("spelled", [str.lower, str.upper, lambda pin: pin[:2] + ":" + pin[2:]])
async def test_the_pinned_certificate_is_trusted(
    tmp_path: Path, certificate: _Certificate, spelled: Callable[[str], str]
) -> None:
    async with guarded(tmp_path, certificate) as bmc:
        async with bmc.sensor(fingerprint=spelled(certificate.pin)) as sensor:
            assert powers(await sensor.read()) == [374.0]


async def test_a_named_authority_is_trusted(tmp_path: Path, certificate: _Certificate) -> None:
    async with guarded(tmp_path, certificate) as bmc:
        async with bmc.sensor(ca_file=str(certificate.file)) as sensor:
            assert powers(await sensor.read()) == [374.0]


@pytest.mark.parametrize(
    ("more", "reason", "fix"),
    [
        ({"fingerprint": "ab" * 32}, "another one, SHA-256", "fingerprint"),
        ({}, "not trusted", "fingerprint"),
        ({"ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem", "PEM"),
    ],
)
async def test_no_word_and_no_login_goes_to_whom_is_not_trusted(
    tmp_path: Path, certificate: _Certificate, more: dict[str, str], reason: str, fix: str
) -> None:
    async with guarded(tmp_path, certificate) as bmc, bmc.sensor(**more) as sensor:
        with pytest.raises(SensorGone, match=reason) as caught:
            await sensor.read()
        assert fix in caught.value.fix
        assert bmc.service.requests == 0


class _Odd:
    """A service that answers most paths well and some as a test wishes."""

    def __init__(self) -> None:
        self.odd: dict[str, web.Response] = {}
        self.logins: set[str | None] = set()
        self.clock = Clock()
        self.url = ""

    async def say(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.rstrip("/")
        self.logins.add(request.headers.get("Authorization"))
        if path in self.odd:
            told = self.odd[path]
            return web.Response(status=told.status, headers=told.headers, body=told.body)
        found = documents("1", "2").get(path)
        return web.json_response(found) if found else web.Response(status=404)

    @asynccontextmanager
    async def sensor(self, **more: Any) -> AsyncIterator[RedfishSensor]:
        runner = web.ServerRunner(web.Server(self.say), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        roots = more.pop("roots", Roots())
        block = {"id": "bmc", "kind": "redfish", "url": self.url} | more
        try:
            config = settings.convert(block, redfish.Config)
            async with redfish.open(config, roots, self.clock) as sensor:
                assert isinstance(sensor, RedfishSensor)
                yield sensor
        finally:
            await runner.cleanup()


def _moved(to: str) -> web.Response:
    return web.Response(status=302, headers={"Location": to})


@pytest.mark.parametrize(
    "to",
    [
        "http://bmc.invalid/redfish/v1",
        "//bmc.invalid/redfish/v1",
        "https://127.0.0.1/redfish/v1",
        "http://127.0.0.1:1/redfish/v1",
        "http://[::1/",
        "",
    ],
)
async def test_no_redirect_leads_to_another_host(to: str) -> None:
    service = _Odd()
    service.odd[METRICS] = _moved(to)
    async with service.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0]
        assert METRICS in sensor.refused


async def test_a_redirect_on_the_same_host_is_followed() -> None:
    service = _Odd()
    service.odd[METRICS] = _moved(METRICS.replace("/1/", "/2/"))
    async with service.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0, 374.0]


@pytest.mark.parametrize(
    ("url", "told", "is_same"),
    [
        ("https://bmc:443", "https://bmc/x", True),
        ("https://bmc", "https://BMC:443/x", True),
        ("https://[2001:db8::443]", "https://[2001:db8::443]:443/x", True),
        ("https://bmc", "https://bmc:80/x", False),
        ("https://bmc", "http://bmc:443/x", False),
        ("https://bmc:8443", "https://bmc/x", False),
    ],
)
def test_the_port_that_a_scheme_implies_makes_no_other_host(
    url: str, told: str, *, is_same: bool
) -> None:
    assert is_same_host(url, told) == is_same


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heatpool_agent.sensors.redfish.http.MAX_BODY_BYTES", 10_000)
    service = _Odd()
    service.odd[METRICS] = web.Response(body=b" " * 10_001)
    async with service.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0]
        assert "larger than 10000 bytes" in sensor.refused[METRICS]


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "999999999999"}, 3600),
        ({"Retry-After": "soon"}, 120),
        ({}, 120),
        # A date counts from the service's own clock, which may be years off.
        (
            {
                "Date": "Tue, 01 Jan 2008 00:00:00 GMT",
                "Retry-After": "Tue, 01 Jan 2008 00:05:00 GMT",
            },
            300,
        ),
    ],
)
async def test_a_busy_service_says_how_long(headers: dict[str, str], wait_s: float) -> None:
    service = _Odd()
    service.odd[ROOT] = web.Response(status=503, headers=headers)
    async with service.sensor() as sensor:
        with pytest.raises(SensorBusy) as caught:
            await sensor.read()
        assert caught.value.wait_s == wait_s


async def test_one_resource_that_never_gets_ready_does_not_keep_the_others() -> None:
    service = _Odd()
    service.odd[METRICS] = web.Response(status=503)
    async with service.sensor() as sensor:
        with pytest.raises(SensorBusy):
            await sensor.read()
        service.clock.pass_s(120)
        assert powers(await sensor.read()) == [374.0]
        assert "503" in sensor.refused[METRICS]


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_where_no_session_can_be_made_basic_takes_its_place(
    tmp_path: Path, status: int
) -> None:
    (tmp_path / "password").write_text("wort")
    service = _Odd()
    service.odd[f"{ROOT}/SessionService/Sessions"] = web.Response(status=status)
    login = {"user": "agent", "password_file": str(tmp_path / "password")}
    async with service.sensor(**login) as sensor:
        assert powers(await sensor.read()) == [374.0, 374.0]
    assert service.logins == {None, "Basic YWdlbnQ6d29ydA=="}


@pytest.mark.parametrize(
    ("headers", "body", "kept"),
    [
        ({"Location": "https://bmc.invalid/redfish/v1/S/7"}, b"", "/redfish/v1/S/7"),
        ({}, b'{"@odata.id": "/redfish/v1/S/7"}', "/redfish/v1/S/7"),
        ({"Location": "http://["}, b"[" * 100_000, None),
        ({}, b"", None),
    ],
)
async def test_a_session_is_found_wherever_it_is_told(
    tmp_path: Path, headers: dict[str, str], body: bytes, kept: str | None
) -> None:
    (tmp_path / "password").write_text("wort")
    service = _Odd()
    token = {"X-Auth-Token": "t"}
    made = web.Response(status=201, headers=token | headers, body=body)
    service.odd[f"{ROOT}/SessionService/Sessions"] = made
    login = {"user": "agent", "password_file": str(tmp_path / "password")}
    async with service.sensor(roots=Roots(state=tmp_path), **login) as sensor:
        assert await sensor.read()
        assert _sessions_in(tmp_path) == ([[kept]] if kept else [])


def _sessions_in(folder: Path) -> list[list[str]]:
    return [json.loads(file.read_text())["sessions"] for file in folder.glob("redfish-*")]


async def test_a_resource_of_another_privilege_is_missed_alone() -> None:
    service = _Odd()
    service.odd[METRICS] = web.Response(status=403)
    async with service.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0]
        assert "403" in sensor.refused[METRICS]


class _Memory:
    """A tape in memory: answers by request, in their order."""

    def __init__(self, kept: list[tuple[str, bytes]] | None = None) -> None:
        self.is_playing = kept is not None
        self.kept = list(kept or [])

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        return (
            self.look(request, lambda: b"", hide=hide)
            if self.is_playing
            else self._keep(request, await ask(), hide)
        )

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if not self.is_playing:
            return self._keep(request, see(), hide)
        index = next(at for at, (asked, _) in enumerate(self.kept) if asked == request)
        return self.kept.pop(index)[1]

    def _keep(self, request: str, answer: bytes, hide: Callable[[bytes], bytes] | None) -> bytes:
        self.kept.append((request, hide(answer) if hide else answer))
        return answer


@pytest.mark.parametrize("form", ["http", "file"])
async def test_a_recording_plays_back_to_equal_readings_and_holds_no_secret(
    tmp_path: Path, form: str
) -> None:
    async with Bmc(tmp_path).serving() as bmc:
        more: dict[str, Any] = {}
        if form == "file":
            write_tree(tmp_path / "tree", bmc.tree.resources)
            more = {"url": f"file:{tmp_path}/tree", "user": "", "password_file": ""}
        live = _Memory()
        async with bmc.sensor(roots=replace(bmc.roots, tape=live), **more) as sensor:
            first, second = await sensor.read(), await sensor.read()
    shown = b"".join(answer for _, answer in live.kept)
    assert b"SN-1" not in shown and b"shelf 7" not in shown
    assert not any(word in repr(live.kept) for word in ("wort", "Token", "Sessions/1"))
    played = Roots(tape=_Memory(live.kept), state=tmp_path)
    before = bmc.service.requests
    async with bmc.sensor(roots=played, **more) as sensor:
        assert [await sensor.read(), await sensor.read()] == [first, second]
    assert bmc.service.requests == before


def write_tree(folder: Path, resources: dict[str, dict[str, Any]]) -> None:
    for path, resource in resources.items():
        place = folder / path.removeprefix(ROOT).lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "index.json").write_bytes(web.json_response(resource).body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 302 Moved\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: \xc2\xb2\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_failure_like_any_other(garbage: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2000)
        writer.write(garbage)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = settings.convert({"id": "x", "kind": "redfish", "url": url}, redfish.Config)
        async with redfish.open(config, Roots(), Clock()) as sensor:
            with pytest.raises(SensorError):
                await sensor.read()


async def test_leaving_a_dead_service_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    async with Bmc(tmp_path, slow_s=4.0).serving() as bmc:
        async with bmc.sensor() as sensor:
            await sensor.read()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("heatpool_agent.sensors.redfish.bmc.LEAVE_S", 0.1)
                bmc.faults = frozenset({"redfish_slow"})
                async with turning() as turns:
                    await sensor.close()
        assert turns.passed_s < SOON_S
        assert len(bmc.kept()) == 1
