"""Another CA while the service runs: who renews keeps speaking, and then the old one is gone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from https_bench import csr
from integration.door.calls import REGISTRY, ask, status
from integration.test_identity_commands import mode, ran, said

from heatpool.errors import HeatpoolError
from heatpool.process.settings import convert
from heatpool.v1 import registry_pb2
from heatpool_aggregator import app
from heatpool_aggregator.config import Config
from heatpool_aggregator.identity import authority, places, server
from heatpool_aggregator.identity.certificates import ca_hash
from heatpool_aggregator.loops.renewal import Renewal
from heatpool_aggregator.stores.audit import open_audit

# gRPC joins its poller thread when its last object goes, wherever that happens: keep it up instead.
grpc.aio.init_grpc_aio()

RENEW = f"{REGISTRY}/RenewCertificate"
LATER_NS = 40 * 86_400 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """What a site has: key, certificate, and whom it trusts."""

    key: bytes
    chain_pem: str
    ca_pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running aggregator and the commands beside it."""

    state: Path
    grpc: str
    http: str

    async def said(self, *words: str) -> Any:
        return await asyncio.to_thread(said, self.state, *words)

    async def join(self, site_id: str, token: dict[str, str]) -> Papers:
        """As an agent does: the CA by the hash that came with the token."""
        key = ec.generate_private_key(ec.SECP256R1())
        body = {"token": token["token"], "csr_pem": csr(key).decode(), "site_id": site_id}
        async with aiohttp.ClientSession(f"https://{self.http}") as session:
            async with session.get("/v1/ca", ssl=False) as answer:
                found = x509.load_pem_x509_certificates(await answer.read())
            assert token["ca_hash"] in {ca_hash(one) for one in found}
            async with session.post("/v1/join", json=body, ssl=False) as answer:
                told = await answer.json()
        return Papers(
            key=authority.key_pem(key), chain_pem=told["chain_pem"], ca_pem=told["ca_pem"]
        )

    async def renewed(self, papers: Papers) -> Papers:
        """Another certificate, over a line that the present papers open."""
        key = ec.generate_private_key(ec.SECP256R1())
        der = x509.load_pem_x509_csr(csr(key)).public_bytes(Encoding.DER)
        request = registry_pb2.RenewCertificateRequest(csr_der=der)
        async with self.channel(papers) as channel:
            data = await channel.unary_unary(f"/{RENEW}")(request.SerializeToString(), timeout=20)
        told = registry_pb2.RenewCertificateResponse.FromString(data)
        return Papers(key=authority.key_pem(key), chain_pem=told.chain_pem, ca_pem=told.ca_pem)

    @asynccontextmanager
    async def channel(self, papers: Papers) -> AsyncIterator[Any]:
        credentials = grpc.ssl_channel_credentials(
            papers.ca_pem.encode(), papers.key, papers.chain_pem.encode()
        )
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(self.grpc, credentials, options) as channel:
            yield channel

    async def refusal(self, papers: Papers) -> str:
        async with self.channel(papers) as channel:
            return (await status(ask(channel, RENEW, b"")))[0]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    state = tmp_path / "state"
    await asyncio.to_thread(said, state, "init", "--host", "127.0.0.1")
    config = convert({"listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}}, Config)
    async with app.serving(config, state) as addresses:
        yield Service(state=state, grpc=addresses["grpc"], http=addresses["http"])


def signed_by(papers: Papers) -> list[bool]:
    """Whether each CA that the site trusts has signed its certificate."""
    own = x509.load_pem_x509_certificate(papers.chain_pem.encode())
    found = []
    for ca in x509.load_pem_x509_certificates(papers.ca_pem.encode()):
        try:
            own.verify_directly_issued_by(ca)
        except Exception:
            found.append(False)
        else:
            found.append(True)
    return found


async def test_a_site_renews_into_the_new_ca_and_outlives_the_old_one(service: Service) -> None:
    token = await service.said("token", "new", "--site-id", "e1")
    first = await service.join("e1", token)
    began = await service.said("init", "--new-ca")
    assert began["old_ca_hash"] == token["ca_hash"] != began["ca_hash"]
    refused = await asyncio.to_thread(ran, service.state, "init", "--drop-old-ca", code=1)
    assert "site/e1" in refused.stderr and "person/admin" not in refused.stderr
    second = await service.renewed(first)  # its line trusts the old one alone
    assert signed_by(second) == [True, False]
    ended = await service.said("init", "--drop-old-ca")
    assert (ended["dropped"], ended["left"]) == (token["ca_hash"], [])
    third = await service.renewed(second)
    assert signed_by(third) == [True]
    assert await service.refusal(first) == "UNAVAILABLE"
    # A newcomer hears of the new one alone.
    token = await service.said("token", "new", "--site-id", "e2")
    assert token["ca_hash"] == began["ca_hash"]
    assert signed_by(await service.join("e2", token)) == [True]


async def test_a_newcomer_meanwhile_trusts_both_and_is_of_the_new_one(service: Service) -> None:
    before = await service.said("token", "new", "--site-id", "e1")
    await service.said("init", "--new-ca")
    after = await service.said("token", "new", "--site-id", "e2")
    assert after["ca_hash"] == before["ca_hash"]  # the server's certificate is still of that one
    for site_id, token in (("e1", before), ("e2", after)):
        papers = await service.join(site_id, token)
        assert signed_by(papers) == [True, False]
        await service.renewed(papers)
    await service.said("init", "--drop-old-ca")


async def test_who_is_left_is_dropped_only_by_force(service: Service) -> None:
    first = await service.join("e1", await service.said("token", "new", "--site-id", "e1"))
    await service.said("init", "--new-ca")
    ended = await service.said("init", "--drop-old-ca", "--force")
    assert ended["left"] == ["site/e1"]
    assert await service.refusal(first) == "UNAVAILABLE"
    entry = (await service.said("audit", "--limit", "1"))[0]
    assert (entry["action"], entry["subject"]) == ("ca.drop", "ca")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, places.Places]:
    state = tmp_path / "state"
    said(state, "init")
    return state, places.places(state)


def test_an_exchange_is_begun_once_and_ended_once(made: tuple[Path, places.Places]) -> None:
    state, files = made
    assert "no CA is being exchanged" in ran(state, "init", "--drop-old-ca", code=2).stderr
    before = set(files.folder.iterdir())
    said(state, "init", "--new-ca")
    assert {mode(path) for path in (files.ca_key, files.old_ca_key)} == {0o600}
    assert "already" in ran(state, "init", "--new-ca", code=1).stderr
    said(state, "init", "--drop-old-ca")  # the admin's file was renewed along with it
    assert set(files.folder.iterdir()) == before
    assert "no CA is being exchanged" in ran(state, "init", "--drop-old-ca", code=2).stderr
    assert "begins what" in ran(state, "init", "--new-ca", "--drop-old-ca", code=2).stderr


@pytest.mark.parametrize(
    ("exchange", "more", "told"),
    [
        ("--new-ca", ("--host", "heat.example.org"), "renew-server --host"),
        ("--new-ca", ("--admin", "anna"), "user add NAME"),
        ("--new-ca", ("--force",), "every site joins anew"),
        ("--drop-old-ca", ("--host", "heat.example.org"), "renew-server --host"),
        ("--drop-old-ca", ("--admin", "anna"), "user add NAME"),
    ],
)
def test_what_an_exchange_would_not_do_is_refused_and_nothing_changes(
    made: tuple[Path, places.Places], *, exchange: str, more: tuple[str, ...], told: str
) -> None:
    state, files = made
    before = {path: path.read_bytes() for path in files.folder.iterdir()}
    refused = ran(state, "init", exchange, *more, code=2).stderr
    assert told in " ".join(refused.split())
    assert f"{more[0]}: {exchange}" in " ".join(refused.split())
    assert {path: path.read_bytes() for path in files.folder.iterdir()} == before


def test_an_exchange_needs_a_ca(tmp_path: Path) -> None:
    assert "there is no CA here" in ran(tmp_path / "s", "init", "--new-ca", code=1).stderr


class Killed(BaseException):
    """In the midst of it."""


@pytest.mark.parametrize("writes", range(4))
def test_a_killed_exchange_leaves_the_old_ca_and_can_be_begun_again(
    made: tuple[Path, places.Places], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    _, files = made
    first, real, done = authority.load(files), places.write, list[Path]()

    def write(path: Path, data: bytes, **more: Any) -> None:
        if len(done) == writes:
            raise Killed
        real(path, data, **more)
        done.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(places, "write", write)
        with pytest.raises(Killed):
            authority.exchange(files, now_ns=LATER_NS)
    after = authority.load(files)
    assert (after.certificate, after.ca_hash, after.old) == (first.certificate, first.ca_hash, None)
    second = authority.exchange(files, now_ns=LATER_NS)
    assert second.old is not None and second.old.certificate == first.certificate


@pytest.mark.parametrize("removed", range(3))
def test_a_killed_drop_can_be_repeated(
    made: tuple[Path, places.Places], monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    _, files = made
    new = authority.exchange(files, now_ns=LATER_NS).certificate
    real, done = places.remove, list[Path]()

    def remove(path: Path) -> None:
        if len(done) == removed:
            raise Killed
        real(path)
        done.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(places, "remove", remove)
        if removed < 2:
            with pytest.raises(Killed):
                authority.drop_old(files)
    assert authority.load(files).certificate == new
    authority.drop_old(files)
    after = authority.load(files)
    assert (after.certificate, after.old) == (new, None)
    assert not files.old_ca.exists() and not files.old_ca_key.exists()


class Then:
    """A clock that stands where the server's certificate is due."""

    def now_ns(self) -> int:
        return time.time_ns() + 70 * 86_400 * 10**9

    def boot_ns(self) -> int:
        return 0


async def test_the_server_renews_by_the_ca_that_all_trust(
    made: tuple[Path, places.Places],
) -> None:
    state, files = made
    async with open_audit(state) as audit:
        first = await asyncio.to_thread(authority.load, files)
        renewal = Renewal(ca=first, files=files, audit=audit, clock=Then())
        await asyncio.to_thread(authority.exchange, files, now_ns=LATER_NS)
        assert await renewal.step()
        served = await asyncio.to_thread(files.server.read_bytes)
        x509.load_pem_x509_certificate(served).verify_directly_issued_by(first.certificate)
        new = await asyncio.to_thread(authority.load, files)
        await asyncio.to_thread(server.make, new.alone(), files, ["a"], now_ns=time.time_ns())
        await asyncio.to_thread(authority.drop_old, files)
        assert await renewal.step()
        served = await asyncio.to_thread(files.server.read_bytes)
        x509.load_pem_x509_certificate(served).verify_directly_issued_by(new.certificate)


def test_a_key_that_belongs_to_no_certificate_is_told(made: tuple[Path, places.Places]) -> None:
    _, files = made
    files.ca_key.write_bytes(authority.key_pem(authority.new_key()))
    with pytest.raises(HeatpoolError, match="same backup"):
        authority.load(files)
