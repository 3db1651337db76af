"""What has run out, what another CA signed, and a head that swells: at a real aggregator."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from e2e.rig import Program, free_port
from e2e.test_enrol import AGGREGATOR
from https_bench import csr
from integration import site_client as site
from integration.door import http2, pki

from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import ApiToken, JoinToken, UserRecord
from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.identity import authority, places, server
from heatpool_aggregator.identity.tokens import new_api_token, new_join_token
from heatpool_aggregator.stores.identities import SqliteIdentities, open_identities

pytestmark = pytest.mark.e2e

NS_PER_S = 1_000_000_000
# Time enough to be let in once, though much else runs.
LIFE_S = 4
STREAM = "/heatpool.v1.TelemetryService/Stream"
SWOLLEN_COUNT = 50
CROWD = 300


class Clock:
    """The machine's."""

    def now_ns(self) -> int:
        return time.time_ns()

    def boot_ns(self) -> int:
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Place:
    """An aggregator of its own process, and its identities as another process has them."""

    program: Program
    ca: authority.Authority
    identities: SqliteIdentities
    grpc: str
    http: aiohttp.ClientSession
    folder: Path

    def issued(self, life_s: float) -> pki.Identity:
        """A certificate of site e1 that our CA signed, for so long."""
        key = ec.generate_private_key(ec.SECP256R1())
        found = self.ca.sign_holder(
            key.public_key(),
            "site/e1",
            trust_domain="heatpool",
            life=timedelta(seconds=life_s),
            now_ns=time.time_ns(),
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pki.Identity(key=pem, chain=found.chain_pem.encode(), serial=found.serial)

    @asynccontextmanager
    async def line(self, who: pki.Identity) -> AsyncIterator[site.Line]:
        """A telemetry stream that has said hello."""
        told = grpc.ssl_channel_credentials(self.ca.pem.encode(), who.key, who.chain)
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(self.grpc, told, options) as channel:
            call: Any = channel.stream_stream(STREAM)()
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(site.hello("e1").SerializeToString())
            yield site.Line(call, site.pb.TelemetryServiceStreamResponse)
            call.cancel()

    async def refused(self, token: str) -> dict[str, float]:
        """What /metrics tells of refusals, none that is zero."""
        async with self.http.get(
            "/metrics", headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            lines = [one for one in (await answer.text()).splitlines() if "refused_total{" in one]
        counts = {one.split('"')[1]: float(one.rpartition(" ")[2]) for one in lines}
        return {reason: count for reason, count in counts.items() if count}

    def told(self, text: str) -> int:
        """How many lines of the journal have this in them."""
        return self.program.log_tail().count(text)


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)  # which our client sets for itself
    state = tmp_path / "aggregator"
    files = places.places(state)

    def certified() -> authority.Authority:
        state.mkdir()
        places.make_folder(files.folder)
        ca = authority.make(files, now_ns=time.time_ns())
        server.make(ca, files, ["localhost", "127.0.0.1"], now_ns=time.time_ns())
        return ca

    ca = await asyncio.to_thread(certified)
    web, grpc_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = AGGREGATOR.format(folder=tmp_path, web=web, grpc=grpc_address, life_s=3_600)
    program = Program("heatpool_aggregator", tmp_path, settings, "aggregator")
    trusted = ssl.create_default_context(cadata=ca.pem)
    async with (
        open_identities(state, trust_domain="heatpool", clock=Clock()) as identities,
        aiohttp.ClientSession(
            f"https://{web}", connector=aiohttp.TCPConnector(ssl=trusted)
        ) as http,
    ):
        await identities.add_site(SiteId("e1"), "")
        try:
            await program.start()
            yield Place(program, ca, identities, grpc_address, http, tmp_path)
        finally:
            if program.child is not None and program.child.poll() is None:
                await program.kill()


async def api_token(place: Place, name: str, life_s: float) -> str:
    """A reader's, for so long."""
    now_ns = time.time_ns()
    await place.identities.add_user(
        UserRecord(
            name=name,
            role=Role.READ_ONLY,
            tenant="",
            added_ns=now_ns,
            revoked_ns=None,
            expires_ns=None,
        ),
        None,
    )
    secret, expires_ns = new_api_token(), now_ns + int(life_s * NS_PER_S)
    token = ApiToken(
        token_id=secret.token_id,
        name=name,
        role=Role.READ_ONLY,
        created_ns=now_ns,
        expires_ns=expires_ns,
    )
    await place.identities.add_api_token(token, secret.sha256)
    return secret.text


async def join_token(place: Place, life_s: float) -> str:
    """Site e2's, for so long."""
    secret, now_ns = new_join_token(), time.time_ns()
    token = JoinToken(
        token_id=secret.token_id,
        site_id=SiteId("e2"),
        owner="",
        uses_count=1,
        uses_left=1,
        created_ns=now_ns,
        expires_ns=now_ns + int(life_s * NS_PER_S),
        is_approval_needed=False,
    )
    await place.identities.add_join_token(token, secret.sha256)
    return secret.text


async def end_of(line: site.Line) -> str:
    """How the stream ended."""
    with pytest.raises(EOFError) as ended:
        while True:
            await line.next()
    return str(ended.value)


async def until(is_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await is_true():  # noqa: ASYNC110  # another process's state
            await asyncio.sleep(0.1)


async def test_what_has_run_out_is_refused_counted_and_told_once(place: Place) -> None:
    good = await api_token(place, "person/rob", 3_600)
    short = await api_token(place, "person/cleo", LIFE_S)
    headers = {"Authorization": f"Bearer {short}"}
    wish = {"token": await join_token(place, 0.0), "csr_pem": csr().decode(), "site_id": "e2"}
    who = place.issued(LIFE_S)
    async with place.line(who) as line:
        await line.next()
        async with place.http.get("/v1/sites", headers=headers) as answer:
            assert answer.status == 200
        assert (await end_of(line)).startswith("UNAUTHENTICATED: expired: the certificate of")
    async with place.line(who) as line:
        assert (await end_of(line)).startswith("UNAVAILABLE")

    async def is_out() -> bool:
        async with place.http.get("/v1/sites", headers=headers) as answer:
            return answer.status == 401

    await until(is_out)
    for _ in range(2):
        assert await is_out()
        async with place.http.post("/v1/join", json=wish) as answer:
            assert (answer.status, "expired" in await answer.text()) == (403, True)
    found = await place.refused(good)
    assert (found["expired"], found["api_token"], found["join"]) == (1, 3, 2)
    for reason in ("expired", "api_token", "join"):
        assert place.told(f"reason={reason} ") == 1, place.program.log_tail()
    assert {one.site_id for one in await place.identities.sites()} == {"e1"}


async def test_a_foreign_ca_that_names_our_site_and_a_crowd_keep_nobody_out(place: Place) -> None:
    host, _, port = place.grpc.rpartition(":")
    crowd = [await asyncio.open_connection(host, int(port)) for _ in range(CROWD)]
    for _, writer in crowd:
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    async with place.line(pki.Ca().caller("spiffe://heatpool/site/e1")) as line:
        assert (await end_of(line)).startswith("UNAVAILABLE")
    async with place.line(place.issued(3_600)) as line:
        assert (await line.next()).HasField("hello_reply")
    for _, writer in crowd:
        writer.transport.abort()


async def test_heads_that_swell_fill_no_journal(place: Place) -> None:
    kept, again = http2.field(b"x", b"y" * 3_500, is_kept=True), b"\xbe" * 8_000
    who = place.issued(3_600)
    async with http2.opened(place.grpc, place.ca.pem.encode(), who, place.folder) as raw:
        await raw.send(http2.head(1, STREAM, kept))
        for number in range(1, SWOLLEN_COUNT):
            await raw.send(http2.head(2 * number + 1, STREAM, again))
        ended = 0
        while ended < SWOLLEN_COUNT - 1:  # the first head is small, and its call waits
            ended += (await raw.next())[0] == http2.RST_STREAM
    async with place.line(who) as line:
        assert (await line.next()).HasField("hello_reply")
    assert "hpack" not in place.program.log_tail()
