"""A certificate is read as the library for certificates reads it, and junk is refused."""

from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.certificates import START, Ca, new_key, spki_sha256

from heatpool.errors import WireError
from heatpool_agent.core import certificate
from heatpool_agent.core.renewal import TRY_LEAST_S, TRY_MOST_S, due_ns, retry_s

CA = Ca()
KEY = new_key()
PEM = CA.site(KEY.public_key(), "e1")
DER = x509.load_pem_x509_certificate(PEM.encode()).public_bytes(Encoding.DER)
DAY_NS = 86_400 * 10**9


def ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9


@pytest.mark.parametrize("life", [timedelta(seconds=7), timedelta(days=30), timedelta(days=9000)])
def test_all_fields_are_those_that_the_library_reads(life: timedelta) -> None:
    # Beyond 2049 a time is written in another form.
    text = CA.site(KEY.public_key(), "north-7", start=START, life=life)
    peer = x509.load_pem_x509_certificate(text.encode())
    own = certificate.first(text + CA.pem)
    assert own.start_ns == ns(peer.not_valid_before_utc)
    assert own.end_ns == ns(peer.not_valid_after_utc) == ns(START + life)
    assert own.serial == f"{peer.serial_number:x}"
    assert own.fingerprint == peer.fingerprint(hashes.SHA256()).hex()
    assert own.key_sha256 == spki_sha256(KEY.public_key())
    assert own.uris == ("spiffe://heatpool/site/north-7",)
    assert own.site_ids == ("north-7",)


def test_a_ca_has_no_name_of_a_site_and_its_hash_is_that_of_its_key() -> None:
    (der,) = certificate.blocks(CA.pem)
    assert certificate.read(der).site_ids == ()
    assert f"sha256:{certificate.read(der).key_sha256}" == CA.ca_hash


@given(st.binary(max_size=300))
def test_bytes_that_are_no_certificate_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        certificate.read(data)


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_a_spoilt_certificate_is_read_or_refused(at: int, value: int) -> None:
    try:
        certificate.read(DER[:at] + bytes([value]) + DER[at + 1 :])
    except WireError:
        return


@pytest.mark.parametrize("end", range(0, len(DER), 29))
def test_half_a_certificate_is_refused(end: int) -> None:
    with pytest.raises(WireError):
        certificate.read(DER[:end])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no certificate",
        PEM.replace("-----END CERTIFICATE-----", ""),
        PEM.replace("M", "*", 1),
        PEM + "-----BEGIN CERTIFICATE-----",
        PEM * 200,
    ],
)
def test_text_that_is_no_pem_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        certificate.first(text)


@given(st.integers(1, 400 * DAY_NS), st.floats(0, 1))
def test_a_renewal_is_due_between_two_thirds_and_seven_tenths(life_ns: int, frac: float) -> None:
    at_ns = due_ns(renew_after_ns=life_ns * 2 // 3, end_ns=life_ns, spread_frac=frac)
    assert life_ns * 2 // 3 <= at_ns <= life_ns * 0.7 + 2


@given(st.integers(-(10**18), 10**18), st.floats(0, 1))
def test_tries_go_on_at_least_every_hour_and_never_in_a_rush(left_ns: int, frac: float) -> None:
    assert TRY_LEAST_S / 2 <= retry_s(end_ns=left_ns, now_ns=0, jitter_frac=frac) <= TRY_MOST_S


def test_tries_come_faster_near_the_end() -> None:
    waits_s = [
        retry_s(end_ns=days * DAY_NS // 10, now_ns=0, jitter_frac=0.0) for days in (100, 2, 1)
    ]
    assert waits_s == [TRY_MOST_S, 1728.0, 864.0]


def test_after_the_end_tries_go_on_hour_by_hour() -> None:
    assert retry_s(end_ns=0, now_ns=DAY_NS, jitter_frac=0.0) == TRY_MOST_S
