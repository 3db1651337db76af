"""Joining over real HTTPS: who has a token gets a certificate of our wording; others nothing."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import https_bench
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from https_bench import Bench, csr

from heatpool.sample import SiteId
from heatpool_aggregator.core.audit import first_break
from heatpool_aggregator.core.principal import Principal, Role
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.identity.certificates import ca_hash, named

URI = "spiffe://heatpool/site/e1"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with https_bench.opened(tmp_path) as opened:
        yield opened


async def post(bench: Bench, body: Any, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a join; `body` is sent as it is, if it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    async with bench.session.post("/v1/join", data=data, headers=headers) as response:
        return response.status, json.loads(await response.read())


def wish(token: str, request: bytes | None = None, site_id: str = "e1") -> dict[str, str]:
    return {"token": token, "csr_pem": (request or csr()).decode(), "site_id": site_id}


async def left(bench: Bench) -> int:
    return sum(token.uses_left for token in await bench.identities.join_tokens())


async def test_a_site_with_a_token_gets_a_certificate_of_our_wording(bench: Bench) -> None:
    token = await bench.join_token()
    key = ec.generate_private_key(ec.SECP256R1())
    status, answer = await post(bench, wish(token.text, csr(key, subject_name="root of all")))
    assert status == 200
    assert answer["grpc"] == https_bench.GRPC and answer["site_id"] == "e1"
    found = x509.load_pem_x509_certificate(answer["chain_pem"].encode())
    ca = x509.load_pem_x509_certificate(answer["ca_pem"].encode())
    found.verify_directly_issued_by(ca)
    assert found.public_key() == key.public_key()
    assert found.subject.rfc4514_string() == "CN=e1"
    kinds = {type(one.value): one.value for one in found.extensions}
    assert list(kinds[x509.SubjectAlternativeName]) == [x509.UniformResourceIdentifier(URI)]
    assert kinds[x509.BasicConstraints] == x509.BasicConstraints(ca=False, path_length=None)
    assert list(kinds[x509.ExtendedKeyUsage]) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    usage = kinds[x509.KeyUsage]
    assert isinstance(usage, x509.KeyUsage)
    assert usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign
    life = found.not_valid_after_utc - found.not_valid_before_utc
    assert life == timedelta(days=31)  # thirty, and one for clocks that are behind
    due_ns = answer["renew_after_ns"] - bench.clock.now_ns()
    assert due_ns == pytest.approx(20 * https_bench.DAY_NS, abs=10**9)


async def test_the_certificate_speaks_for_its_site_at_once(bench: Bench) -> None:
    token = await bench.join_token()
    _, answer = await post(bench, wish(token.text))
    mine = named(answer["chain_pem"].encode())
    assert await bench.identities.principal_of_cert(mine.uri, mine.serial) == Principal(
        name="site/e1", role=Role.SITE, tenant=https_bench.TENANT
    )
    newest = (await bench.audit.read(1))[0]
    assert (newest.who, newest.action) == ("site/e1", "site.enrol")
    assert json.loads(newest.detail)["serial"] == mine.serial


async def test_a_newcomer_knows_the_ca_by_the_hash_of_its_key(bench: Bench) -> None:
    async with bench.session.get("/v1/ca") as response:
        assert response.status == 200
        ca = x509.load_pem_x509_certificate(await response.read())
    assert ca_hash(ca) == bench.ca.ca_hash
    assert bench.ca.ca_hash.startswith("sha256:") and len(bench.ca.ca_hash) == 71


async def test_a_used_token_is_worth_nothing_to_a_thief(bench: Bench) -> None:
    token = await bench.join_token()
    await post(bench, wish(token.text))
    status, problem = await post(bench, wish(token.text))
    assert status == 403 and "was used 1 of 1" in problem["detail"]


async def test_whoever_lost_the_answer_hears_it_again(bench: Bench) -> None:
    token, request = await bench.join_token(), csr()
    first, again = [await post(bench, wish(token.text, request)) for _ in range(2)]
    assert first == again and first[0] == 200
    (site,) = await bench.identities.sites()
    assert len(site.serials) == 1


async def test_of_many_that_race_for_one_use_exactly_one_gets_in(bench: Bench) -> None:
    token = await bench.join_token()
    answers = await asyncio.gather(*(post(bench, wish(token.text)) for _ in range(6)))
    assert sorted(status for status, _ in answers) == [200, 403, 403, 403, 403, 403]
    (site,) = await bench.identities.sites()
    assert len(site.serials) == 1 and await left(bench) == 0


async def test_an_expired_token_says_so(bench: Bench) -> None:
    token = await bench.join_token(expires_ns=bench.clock.now_ns())
    status, problem = await post(bench, wish(token.text))
    assert status == 403 and "has expired" in problem["detail"]


async def test_another_sites_token_lets_nobody_in(bench: Bench) -> None:
    token = await bench.join_token("e2")
    status, problem = await post(bench, wish(token.text, site_id="e1"))
    assert status == 403 and "for another" in problem["detail"]
    assert "e2" not in problem["detail"]
    assert await left(bench) == 1 and not await bench.identities.sites()


def bent(pem: bytes) -> bytes:
    """The request with another signature."""
    lines = pem.decode().split("\n")
    der = bytearray(base64.b64decode("".join(lines[1:-2])))
    der[-3] ^= 1
    text = base64.encodebytes(bytes(der)).decode()
    return f"{lines[0]}\n{text}{lines[-2]}\n".encode()


def ed25519_csr() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, None).public_bytes(Encoding.PEM)


SAN = x509.SubjectAlternativeName
BAD_REQUESTS = {
    "weak RSA": lambda: csr(rsa.generate_private_key(65537, 1024)),
    "weak exponent": lambda: csr(rsa.generate_private_key(3, 2048)),
    "foreign curve": lambda: csr(ec.generate_private_key(ec.SECP256K1())),
    "small curve": lambda: csr(ec.generate_private_key(ec.SECP224R1())),
    "other kind": ed25519_csr,
    "asks to be a CA": lambda: csr(extensions=[x509.BasicConstraints(ca=True, path_length=None)]),
    "other site": lambda: csr(extensions=[SAN([x509.UniformResourceIdentifier(URI + "0")])]),
    "also a host": lambda: csr(
        extensions=[SAN([x509.UniformResourceIdentifier(URI), x509.DNSName("localhost")])]
    ),
    "a host": lambda: csr(extensions=[SAN([x509.DNSName("localhost")])]),
    "bent": lambda: bent(csr()),
    "cut": lambda: csr()[:200],
    "garbage": lambda: (
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"
    ),
    "empty": lambda: b"",
    "a key": lambda: (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
}


async def test_a_request_that_asks_too_much_or_is_weak_is_refused(bench: Bench) -> None:
    taken = {}
    for name, make in BAD_REQUESTS.items():
        token = await bench.join_token()
        pem = (await asyncio.to_thread(make)).decode()
        status, problem = await post(bench, {**wish(token.text), "csr_pem": pem})
        if status != 400 or not problem["detail"]:
            taken[name] = problem
    assert not taken
    assert await left(bench) == len(BAD_REQUESTS) and not await bench.identities.sites()
    assert bench.board.turned_away.counts[Reason.JOIN] == len(BAD_REQUESTS)


@pytest.mark.parametrize(
    "extension",
    [
        SAN([x509.UniformResourceIdentifier(URI)]),
        x509.BasicConstraints(ca=False, path_length=None),
    ],
)
async def test_who_asks_for_what_it_gets_anyway_gets_it(
    bench: Bench, extension: x509.ExtensionType
) -> None:
    token = await bench.join_token()
    status, _ = await post(bench, wish(token.text, csr(extensions=[extension])))
    assert status == 200


TOKEN = "abc123.0123456789abcdef"
GOOD = {"token": TOKEN, "csr_pem": "x", "site_id": "e1"}
BAD_BODIES = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b"null", 400),
    (b"\xff\xfe", 400),
    (b"[" * 15_000, 400),
    (json.dumps({**GOOD, "role": "admin"}).encode(), 400),
    (json.dumps({**GOOD, "token": 7}).encode(), 400),
    (json.dumps({**GOOD, "token": TOKEN + "\n"}).encode(), 400),
    (json.dumps({**GOOD, "token": TOKEN.upper()}).encode(), 400),
    (json.dumps({**GOOD, "site_id": "../e1"}).encode(), 400),
    (json.dumps({**GOOD, "site_id": "e1/x"}).encode(), 400),
    (json.dumps({**GOOD, "site_id": "e1\n"}).encode(), 400),
    (json.dumps({**GOOD, "site_id": "e" * 65}).encode(), 400),
    (json.dumps({**GOOD, "csr_pem": "x" * 9000}).encode(), 400),
    (json.dumps({"token": TOKEN, "site_id": "e1"}).encode(), 400),
    (json.dumps({**GOOD, "csr_pem": "x" * 40_000}).encode(), 413),
]


async def test_a_body_that_is_no_join_is_a_problem(bench: Bench) -> None:
    wrong = []
    for body, status in BAD_BODIES:
        found, problem = await post(bench, body)
        if not found == problem["status"] == status or TOKEN in json.dumps(problem):
            wrong.append((body[:80], found, problem))
    assert not wrong


async def test_a_form_of_another_page_is_no_join(bench: Bench) -> None:
    headers = {"Content-Type": "text/plain"}
    status, _ = await post(bench, json.dumps(GOOD).encode(), **headers)
    assert status == 415


async def test_a_bomb_of_zeros_is_not_unpacked(bench: Bench) -> None:
    import gzip  # noqa: PLC0415

    bomb = gzip.compress(b"[" * 50_000_000, compresslevel=1)
    status, _ = await post(bench, bomb[:16_000], **{"Content-Encoding": "gzip"})
    assert status in (400, 413)


async def test_who_has_to_be_approved_waits_and_then_gets_in(bench: Bench) -> None:
    token, request = await bench.join_token(is_approval_needed=True), csr()
    status, answer = await post(bench, wish(token.text, request))
    assert status == 202 and answer["retry_after_s"] > 0
    (waiting,) = await bench.identities.waiting()
    assert waiting.key_sha256.hex() == answer["key_sha256"]
    assert waiting.peer in ("127.0.0.1", "::1")
    await bench.identities.approve(SiteId("e1"), answer["key_sha256"][:8])
    status, _ = await post(bench, wish(token.text, request))
    assert status == 200
    actions = [entry.action for entry in await bench.audit.read(9)]
    assert actions == ["site.enrol", "site.wait"]


async def test_who_asks_too_often_is_told_to_wait(bench: Bench) -> None:
    answers = [await post(bench, GOOD) for _ in range(9)]
    assert [status for status, _ in answers] == [400] * 8 + [429]
    bench.clock.at_ns += 6 * 10**9
    assert (await post(bench, GOOD))[0] == 400
    told = [
        (await post(bench, {**GOOD, "token": f"abc{number:03}.0123456789abcdef"}))[0]
        for number in range(110)
    ]
    assert told[0] == 400 and told[-1] == 429  # each a token of its own, from one address
    assert bench.board.turned_away.counts[Reason.TOO_OFTEN] == 1 + told.count(429)


async def test_refusals_are_counted_each_and_told_once_without_secrets(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    spent = await bench.join_token()
    await post(bench, wish(spent.text))
    for _ in range(3):
        await post(bench, wish(spent.text))
    await post(bench, wish("zzz999.0123456789abcdef"))
    assert bench.board.turned_away.counts[Reason.JOIN] == 4
    told = [record for record in caplog.records if record.getMessage() == "web.refused"]
    assert len(told) == 1
    entries = list(await bench.audit.read(99))
    assert [entry.action for entry in entries] == ["refused.join", "site.enrol"]
    assert first_break(entries[::-1]) is None
    kept = " ".join(str(vars(record)) for record in caplog.records) + str(entries)
    assert spent.text.partition(".")[2] not in kept and "0123456789abcdef" not in kept
