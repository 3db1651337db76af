"""Who is let in and who is not: certificates, refusals, overload, and what a person reads of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from integration.uplink_site import Clock, Server, becomes, listening, pushing, site
from unit.agent.certificates import Ca, key_pem, new_key

from heatpool.errors import ConfigError, UplinkError
from heatpool.sample import SpoolKind
from heatpool_agent.core.line import LineReplaced
from heatpool_agent.ports import Identity, LineBusy, LineRefused
from heatpool_agent.uplinks import grpc as uplink
from heatpool_agent.uplinks.address import Address, address_of
from heatpool_agent.uplinks.failures import failure

SITE_CA, FOREIGN_CA = Ca(), Ca("another CA")


def identity(
    ca: Ca = SITE_CA, *, root: Ca = SITE_CA, age_days: float = 1.0, life_days: float = 30.0
) -> Identity:
    key = new_key()
    start = datetime.now(UTC) - timedelta(days=age_days)
    chain = ca.site(key.public_key(), "s1", start=start, life=timedelta(days=life_days))
    return Identity(
        root_pem=root.pem.encode(), key_pem=key_pem(key).encode(), chain_pem=chain.encode()
    )


def credentials() -> grpc.ServerCredentials:
    key = new_key()
    chain = SITE_CA.server(key.public_key(), "127.0.0.1")
    return grpc.ssl_server_credentials(
        [(key_pem(key).encode(), chain.encode())],
        root_certificates=SITE_CA.pem.encode(),
        require_client_auth=True,
    )


async def test_a_site_with_a_certificate_sends_over_tls(tmp_path: Path) -> None:
    async with listening(Server(credentials=credentials())) as server, site(tmp_path) as own:
        await own.rows(3)
        async with pushing(own, server, scheme="https", identity=identity()):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 3)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (identity(root=FOREIGN_CA), "CERTIFICATE_VERIFY_FAILED"),
        (identity(age_days=40.0), "certificate ended on 20"),
        (None, "has no certificate: heatpool-agent join"),
    ],
    ids=["a foreign CA", "an expired certificate", "no certificate"],
)
async def test_a_line_that_cannot_be_trusted_is_refused_with_what_mends_it(
    tmp_path: Path, shown: Identity | None, words: str
) -> None:
    async with listening(Server(credentials=credentials())) as server, site(tmp_path) as own:
        async with pushing(own, server, scheme="https", identity=shown):
            await becomes(lambda: own.board.uplink.state == "refused")
        assert words in own.board.uplink.detail
        assert "join" in own.board.uplink.fix + own.board.uplink.detail
    assert server.hellos == []


async def test_a_certificate_of_a_foreign_ca_gets_nobody_in(tmp_path: Path) -> None:
    shown = identity(FOREIGN_CA)
    async with listening(Server(credentials=credentials())) as server, site(tmp_path) as own:
        async with pushing(own, server, scheme="https", identity=shown):
            await becomes(lambda: own.board.uplink.state in ("refused", "waiting"))
    assert server.hellos == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, LineRefused),
        (grpc.StatusCode.PERMISSION_DENIED, LineRefused),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LineBusy),
        (grpc.StatusCode.ABORTED, LineReplaced),
        (grpc.StatusCode.CANCELLED, UplinkError),
        (grpc.StatusCode.FAILED_PRECONDITION, UplinkError),
        (grpc.StatusCode.INTERNAL, UplinkError),
    ],
)
async def test_each_status_says_when_to_come_again(
    tmp_path: Path, code: grpc.StatusCode, kind: type[UplinkError]
) -> None:
    server = Server(refuse_with=code, trailing=(("grpc-retry-pushback-ms", "42000"),))
    async with listening(server), site(tmp_path) as own:
        url = f"http://127.0.0.1:{server.port}"
        with pytest.raises(kind, match=code.name) as raised:
            async with uplink.open(url, own.speaker(), Clock()):
                pass
    assert type(raised.value) is kind
    assert raised.value.wait_s == (None if kind is LineRefused else 42.0)


async def test_a_revoked_site_says_so_and_keeps_trying(tmp_path: Path) -> None:
    server = Server(refuse_with=grpc.StatusCode.UNAUTHENTICATED)
    async with listening(server), site(tmp_path) as own, pushing(own, server):
        await becomes(lambda: own.board.uplink.state == "refused")
        assert own.board.uplink.detail == "UNAUTHENTICATED: so it is"
        assert "heatpool-aggregator site" in own.board.uplink.fix


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ("Tls handshake failed: SSL_ERROR_SSL: WRONG_VERSION_NUMBER", "speaks no TLS"),
        ("UNAUTHENTICATED: Hostname Verification Check failed.", "does not name this address"),
        ("Failed to create security handshaker.", "do not fit"),
        ("SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", "do not trust each other"),
    ],
)
def test_a_handshake_that_fails_for_good_says_what_mends_it(details: str, words: str) -> None:
    error = failure(grpc.StatusCode.UNAVAILABLE, details, None)
    assert isinstance(error, LineRefused)
    assert words in error.fix


def test_a_line_that_is_cut_while_shaking_hands_is_no_refusal() -> None:
    assert type(failure(grpc.StatusCode.UNAVAILABLE, "Socket closed", None)) is UplinkError


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://127.0.0.1:1", "heatpool-agent join"),
        ("http://192.0.2.1:8443", "without TLS"),
        ("aggregator.example:8443", "without TLS"),
        ("http://127.0.0.1", "must be https://HOST:PORT"),
        ("ftp://a:1", "must be https://HOST:PORT"),
        ("://", "must be https://HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_mistake_of_the_settings(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"aggregator\.url") as raised:
        address_of(url, None)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:1", Address(target="127.0.0.1:1", is_secure=False)),
        ("localhost:7", Address(target="localhost:7", is_secure=False)),
        ("https://[2001:db8::1]:8443", Address(target="[2001:db8::1]:8443", is_secure=True)),
    ],
)
def test_an_address_is_plain_on_this_machine_alone(url: str, found: Address) -> None:
    assert address_of(url, identity()) == found


@pytest.mark.parametrize(("age_days", "due_count"), [(24.0, 1), (25.5, 0)])
def test_a_new_line_is_due_once_at_five_sixths_of_a_certificate_s_life(
    age_days: float, due_count: int
) -> None:
    now_ns = Clock().event_ns()
    due_ns = uplink._renewal_ns(identity(age_days=age_days), now_ns)
    due_days = [] if due_ns is None else [(due_ns - now_ns) / 86_400e9]
    assert due_days == [pytest.approx(1.0, abs=0.01)] * due_count
