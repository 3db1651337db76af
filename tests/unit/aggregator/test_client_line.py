"""What the operator's command makes of an identity file and an address."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heatpool.errors import HeatpoolError
from heatpool_aggregator.client.line import Place, read_identity

KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
EC_KEY = KEY.replace(b"PRIVATE", b"EC PRIVATE")


def certificate(name: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + name + b"\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("key", [KEY, EC_KEY])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_key_chain_and_ca_come_out_of_one_file(tmp_path: Path, key: bytes, line_end: bytes) -> None:
    own, ca = certificate(b"own"), certificate(b"ca")
    (file := tmp_path / "who.pem").write_bytes((key + own + ca).replace(b"\n", line_end))
    found = read_identity(file)
    assert (found.key, found.chain, found.ca) == (key, own, ca)
    assert b"AAAA".decode() not in repr(found)


def test_what_stands_between_is_sent_along_and_trusted_too(tmp_path: Path) -> None:
    own, between, ca = (certificate(name) for name in (b"own", b"between", b"ca"))
    (file := tmp_path / "who.pem").write_bytes(KEY + own + between + ca)
    found = read_identity(file)
    assert (found.chain, found.ca) == (own + between, between + ca)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        KEY,
        KEY + certificate(b"own"),
        certificate(b"own") + certificate(b"ca"),
        KEY + KEY + certificate(b"own") + certificate(b"ca"),
        (KEY + certificate(b"own") + certificate(b"ca"))[:-10],
    ],
)
def test_half_an_identity_is_refused(tmp_path: Path, data: bytes) -> None:
    (file := tmp_path / "who.pem").write_bytes(data)
    with pytest.raises(HeatpoolError, match=r"who\.pem"):
        read_identity(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.sampled_from([KEY, certificate(b"x"), b"-----BEGIN CERTIFICATE-----\n", b"?"])))
def test_no_file_breaks_the_reader(tmp_path: Path, parts: list[bytes]) -> None:
    (file := tmp_path / "who.pem").write_bytes(b"".join(parts))
    try:
        found = read_identity(file)
    except HeatpoolError:
        return
    assert found.key == KEY and found.chain and found.ca


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8443", "[::1]:8443", "localhost:8443", "127.9.9.9:1"]
)
def test_loopback_is_this_machine(address: str) -> None:
    assert Place(address=address).is_own


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:8443",
        "heat.example:8443",
        "localhost.example:8443",
        "127.0.0.1.example:8443",
        "0.0.0.0:8443",
    ],
)
def test_what_only_looks_like_loopback_is_another_machine(address: str) -> None:
    assert not Place(address=address).is_own
