"""A certificate of our own CA is renewed over the connection that it made."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from integration.door.calls import QUERY, REGISTRY, ask, status
from integration.door.conftest import settings

from heatpool.sample import SiteId
from heatpool.v1 import registry_pb2
from heatpool_aggregator import app
from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.identity import authority, places, server
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities

RENEW = f"{REGISTRY}/RenewCertificate"


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Any]:
    """An aggregator with a CA of its own, and what it keeps."""
    clock, files = SystemClock(), places.places(tmp_path)
    places.make_folder(files.folder)
    ca = authority.make(files, now_ns=time.time_ns())
    server.make(ca, files, ["127.0.0.1"], now_ns=time.time_ns())
    async with (
        open_identities(tmp_path, trust_domain="heatpool", clock=clock) as identities,
        open_audit(tmp_path) as audit,
        app.serving(settings({}), tmp_path) as addresses,
    ):
        await identities.add_site(SiteId("e1"), "north")
        yield addresses, ca, identities, audit


@asynccontextmanager
async def connected(
    own: Any, key: ec.EllipticCurvePrivateKey, chain_pem: str
) -> AsyncIterator[grpc.aio.Channel]:
    addresses, ca, *_ = own
    credentials = grpc.ssl_channel_credentials(
        ca.pem.encode(), authority.key_pem(key), chain_pem.encode()
    )
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(addresses["grpc"], credentials, options) as channel:
        yield channel


def first_of(own: Any, key: ec.EllipticCurvePrivateKey, name: str = "site/e1") -> str:
    life = authority.SITE_LIFE
    issued = own[1].sign_holder(
        key.public_key(), name, trust_domain="heatpool", life=life, now_ns=time.time_ns()
    )
    chain_pem: str = issued.chain_pem
    return chain_pem


def request_of(key: ec.EllipticCurvePrivateKey, uri: str = "spiffe://heatpool/site/e1") -> bytes:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.add_extension(names, critical=False).sign(key, hashes.SHA256())
    der = signed.public_bytes(Encoding.DER)
    return registry_pb2.RenewCertificateRequest(csr_der=der).SerializeToString()


async def test_a_renewed_certificate_opens_the_door_and_is_in_the_audit_log(own: Any) -> None:
    key, new_key = authority.new_key(), authority.new_key()
    async with connected(own, key, first_of(own, key)) as channel:
        answer = await ask(channel, RENEW, request_of(new_key))
    renewed = registry_pb2.RenewCertificateResponse.FromString(answer)
    assert renewed.ca_pem == own[1].pem
    days = (renewed.renew_after_ns - time.time_ns()) / 86_400e9
    assert 18 < days < 21
    async with connected(own, new_key, renewed.chain_pem) as channel:
        assert (await ask(channel, RENEW, request_of(new_key))) != answer
    assert [e.who for e in await own[3].read(10) if e.action == "certificate.renew"] == [
        "site/e1",
        "site/e1",
    ]


async def test_nobody_renews_into_another_name(own: Any) -> None:
    key = authority.new_key()
    async with connected(own, key, first_of(own, key)) as channel:
        for uri in ("spiffe://heatpool/site/e2", "spiffe://heatpool/person/ada"):
            asked = request_of(authority.new_key(), uri)
            assert (await status(ask(channel, RENEW, asked)))[0] == "INVALID_ARGUMENT"
        for data in (b"", b"\xff", b"\x0a\x02hi"):
            assert (await status(ask(channel, RENEW, data)))[0] == "INVALID_ARGUMENT"


async def test_a_revoked_site_does_not_renew(own: Any) -> None:
    key = authority.new_key()
    async with connected(own, key, first_of(own, key)) as channel:
        await ask(channel, RENEW, request_of(key))
        await own[2].revoke_site(SiteId("e1"), "stolen")
        assert (await status(ask(channel, RENEW, request_of(key))))[0] == "UNAUTHENTICATED"
        code, _ = await status(ask(channel, f"{QUERY}/ListSiteStatus"))
        assert code == "UNAUTHENTICATED"
