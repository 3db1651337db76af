"""Who the MQTT driver is to a broker: passwords, rights, certificates, and what cannot be meant."""

import datetime
import ipaddress
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from integration.mqtt_rig import Clock, S, cancelled_while_connecting, peer, sensor, subscribed
from ports.benches.mqtt import Mosquitto, free_port

from heatpool.errors import ConfigError, SensorGone


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with Mosquitto(tmp_path).running() as running:
        yield running


def _password_lines(folder: Path, *, acl: str = "") -> tuple[str, ...]:
    passwords = folder / "passwords"
    command = ["mosquitto_passwd", "-b", "-c", str(passwords), "agent", "right-word"]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    lines = ("allow_anonymous false", f"password_file {passwords}")
    if not acl:
        return lines
    rights = folder / "acl"
    rights.write_text(acl)
    return (*lines, f"acl_file {rights}")


async def test_a_wrong_login_is_tried_once_and_a_new_password_at_once(
    tmp_path: Path, clock: Clock
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong-word\n")
    lines = _password_lines(tmp_path)
    async with Mosquitto(tmp_path, lines).running() as broker:
        login = {"user": "agent", "password_file": str(secret)}
        async with sensor(broker.port, clock, timeout_s=1.0, **login) as bound:
            with pytest.raises(SensorGone, match="refused user 'agent'") as caught:
                await bound.read()
            assert "password_file" in caught.value.fix
            assert "wrong-word" not in str(caught.value)
            with pytest.raises(SensorGone, match="not tried again so soon"):
                await bound.read()
            clock.ns += 601 * S
            with pytest.raises(SensorGone, match=r"refused user 'agent': (?!not tried)"):
                await bound.read()
            secret.write_text("right-word\n")
            with pytest.raises(SensorGone, match="no message came"):
                await bound.read()


async def test_a_broker_that_keeps_topics_from_us_in_silence_is_told(
    tmp_path: Path, clock: Clock
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("right-word")
    lines = _password_lines(tmp_path, acl="user agent\ntopic read other\n")
    async with Mosquitto(tmp_path, lines).running() as broker:
        login = {"user": "agent", "password_file": str(secret)}
        async with sensor(broker.port, clock, timeout_s=1.0, **login) as bound:
            with pytest.raises(SensorGone, match="no message came") as caught:
                await bound.read()
    assert "may read them" in caught.value.fix


async def test_a_silent_tls_peer_holds_no_read_that_is_cancelled(clock: Clock) -> None:
    async with peer() as port:
        async with sensor(port, clock, url=f"mqtts://127.0.0.1:{port}") as bound:
            await cancelled_while_connecting(bound)


async def test_a_missing_password_file_is_told(clock: Clock) -> None:
    login = {"user": "agent", "password_file": "/nowhere/secret"}
    async with sensor(free_port(), clock, **login) as bound:
        with pytest.raises(SensorGone, match="/nowhere/secret") as caught:
            await bound.read()
    assert caught.value.fix


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[tuple[Mosquitto, Path]]:
    cert, key = _certificate(tmp_path)
    lines = ("allow_anonymous true", f"certfile {cert}", f"keyfile {key}")
    async with Mosquitto(tmp_path, lines).running() as running:
        yield running, cert


async def test_a_broker_with_tls_is_read_by_its_authority(
    tls: tuple[Mosquitto, Path], clock: Clock
) -> None:
    broker, cert = tls
    trust = {"url": f"mqtts://127.0.0.1:{broker.port}", "ca_file": str(cert)}
    parameters = aiomqtt.TLSParameters(ca_certs=str(cert))
    async with (
        sensor(broker.port, clock, **trust) as bound,
        aiomqtt.Client("127.0.0.1", broker.port, tls_params=parameters) as client,
    ):
        probe = await subscribed(bound)
        await client.publish("t", "7", qos=1)
        assert await probe == ["mqtt/t"]


async def test_a_certificate_of_nobody_known_is_refused_with_a_cure(
    tls: tuple[Mosquitto, Path], clock: Clock
) -> None:
    broker, _ = tls
    async with sensor(broker.port, clock, url=f"mqtts://127.0.0.1:{broker.port}") as bound:
        with pytest.raises(SensorGone) as caught:
            await bound.read()
    assert "ca_file" in caught.value.fix


async def test_an_authority_s_file_that_is_not_there_is_told(clock: Clock) -> None:
    trust = {"url": "mqtts://127.0.0.1", "ca_file": "/nowhere/ca.pem"}
    async with sensor(1, clock, **trust) as bound:
        with pytest.raises(SensorGone, match=r"/nowhere/ca\.pem: No such file"):
            await bound.read()


async def test_a_plain_port_is_no_tls_port(broker: Mosquitto, clock: Clock) -> None:
    async with sensor(broker.port, clock, url=f"mqtts://127.0.0.1:{broker.port}") as bound:
        with pytest.raises(SensorGone) as caught:
            await bound.read()
    assert caught.value.fix


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ({"url": "tcp://h:1"}, "must be mqtts://"),
        ({"url": "mqtt://u:p@h"}, "holds a login"),
        ({"url": "mqtt://h/x"}, "nothing after the port"),
        ({"url": "mqtt://h:x"}, "cannot be read"),
        ({"url": "mqtt://h", "ca_file": "c"}, "no effect without TLS"),
        ({"user": "u"}, "password_file: is missing"),
        ({"password_file": "p"}, "user: is missing"),
        ({"url": "mqtt://h", "user": "u", "password_file": "p"}, "insecure = true"),
        ({"availability_topic": "a/#"}, "wildcard"),
        ({"availability_topic": "t"}, "a point's topic too"),
        ({"point": []}, "at least one"),
        ({"role": "billing"}, "billing"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_opened(
    clock: Clock, keys: Mapping[str, Any], mistake: str
) -> None:
    with pytest.raises(ConfigError, match=mistake):
        async with sensor(1, clock, **keys):
            pass


async def test_every_mistake_is_told_at_once(clock: Clock) -> None:
    point = {"topic": "#", "quantity": "power", "unit": "horse"}
    with pytest.raises(ConfigError) as caught:
        async with sensor(1, clock, url="x", user="u", point=[point]):
            pass
    assert len(caught.value.mistakes) == 4


async def test_in_clear_is_well_where_it_is_said(clock: Clock) -> None:
    keys = {"url": "mqtt://h", "user": "u", "password_file": "p", "insecure": True}
    async with sensor(1, clock, **keys):
        pass
