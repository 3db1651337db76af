"""Signing requests of strangers: any bytes are a key we sign for, or refused with the one error."""

from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from https_bench import csr
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import HeatpoolError
from heatpool_aggregator.core.enrolment import JoinRefused
from heatpool_aggregator.identity import requests
from heatpool_aggregator.identity.certificates import general_name, named

URI = "spiffe://heatpool/site/e1"
SAN = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI)])
PEM = csr(extensions=[SAN, x509.BasicConstraints(ca=False, path_length=None)])
DER = x509.load_pem_x509_csr(PEM).public_bytes(Encoding.DER)
BYTES = st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255))


def test_pem_and_der_of_one_request_have_one_key() -> None:
    one, other = requests.read_pem(PEM, uri=URI), requests.read_der(DER, uri=URI)
    assert requests.key_sha256(one) == requests.key_sha256(other)


@given(st.lists(BYTES, min_size=1, max_size=6))
def test_a_request_with_other_bytes_is_refused_in_order(changes: list[tuple[int, int]]) -> None:
    der = bytearray(DER)
    for place, value in changes:
        der[place] = value
    with suppress(JoinRefused):
        key = requests.read_der(bytes(der), uri=URI)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        # Only ever on the key that signed it: any other byte breaks the signature.
        assert bytes(der) == DER or requests.key_sha256(key) == requests.key_sha256(
            requests.read_der(DER, uri=URI)
        )


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    for read in (requests.read_der, requests.read_pem):
        with pytest.raises(JoinRefused):
            read(data, uri=URI)
    with pytest.raises(HeatpoolError):
        named(data)


def test_the_same_extension_twice_is_refused() -> None:
    # The builder refuses to write it, so one is renamed: 2.5.29.19 becomes another 2.5.29.17.
    der = DER.replace(bytes.fromhex("0603551d13"), bytes.fromhex("0603551d11"))
    assert der != DER
    with pytest.raises(JoinRefused):
        requests.read_der(der, uri=URI)


def test_a_request_that_is_too_long_is_not_read() -> None:
    with pytest.raises(JoinRefused, match="at most"):
        requests.read_der(DER + bytes(requests.CSR_BYTES_LIMIT), uri=URI)


@pytest.mark.parametrize("host", ["agg.example", "localhost", "192.0.2.7", "::1", "[::1]", "a_b-c"])
def test_a_host_stands_in_a_certificate(host: str) -> None:
    assert general_name(host)


@pytest.mark.parametrize("host", ["", "https://x", "x:80", "a b", "a..b", "ä.example", "x" * 64])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(HeatpoolError, match="no host name"):
        general_name(host)


def test_a_request_over_a_weak_hash_is_refused() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA224())
    with pytest.raises(JoinRefused, match="weak hash"):
        requests.read_der(made.public_bytes(Encoding.DER), uri=URI)


def test_a_key_that_is_too_long_to_check_is_refused() -> None:
    # Never made: only its length is looked at, before anything is computed with it.
    key = rsa.RSAPublicNumbers(65_537, 2 ** (requests.RSA_BITS_MAX + 7) + 1).public_key()
    with pytest.raises(JoinRefused, match="4104 bits"):
        requests._check_rsa(key)
