"""The settings of one MQTT sensor, and what in them does not fit together."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import msgspec

from heatpool_agent.config import SensorSettings, is_loopback
from heatpool_agent.core.mqtt_rules import Point, topic_flaws
from heatpool_agent.core.mqtt_rules import mistakes as point_mistakes
from heatpool_agent.core.reading import Node

PORTS = {"mqtt": 1883, "mqtts": 8883}


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One broker, whom it is asked as, and the points of one device behind it.

    `client_id` is made anew at each start unless told: a broker ends the older of two connections
    with one id. `availability_topic` is where the device says, or the broker for it as its last
    will, `payload_offline`.
    """

    url: str
    point: tuple[Point, ...] = ()
    node: Node = Node.CDU
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    insecure: bool = False
    client_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    availability_topic: str = ""
    payload_offline: str = "offline"

    @property
    def topics(self) -> tuple[str, ...]:
        """What is subscribed to, each once."""
        named = [point.topic for point in self.point]
        return tuple(dict.fromkeys(filter(None, (self.availability_topic, *named))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker listens."""

    host: str
    port: int
    is_tls: bool


def broker(config: Config) -> Broker:
    """The broker behind a url that has no mistakes."""
    parts = urlsplit(config.url)
    port = parts.port or PORTS[parts.scheme]
    return Broker(host=parts.hostname or "", port=port, is_tls=parts.scheme == "mqtts")


def client_id(config: Config) -> str:
    """The id told, else one of at most 23 characters, which every broker takes (3.1.3.1)."""
    return config.client_id or f"hp-{config.id[:11]}-{secrets.token_hex(4)}"


def mistakes(config: Config) -> list[str]:
    """Everything that does not fit together, each with its key."""
    try:
        parts = urlsplit(config.url)
        _ = parts.port
    except ValueError as error:
        return [f"url: {config.url!r} cannot be read: {error}", *point_mistakes(config.point)]
    return [
        *_of_url(config, parts),
        *_of_login(config, parts),
        *_of_role(config),
        *_of_availability(config),
        *point_mistakes(config.point),
    ]


def _of_url(config: Config, parts: SplitResult) -> Iterator[str]:
    known = "mqtts://HOST[:8883] or mqtt://HOST[:1883]"
    if parts.username or parts.password:
        yield "url: holds a login; set user and password_file instead"
    elif parts.scheme not in PORTS or not parts.hostname or parts.port == 0:
        yield f"url: {config.url!r} must be {known}"
    elif parts.path not in ("", "/") or parts.query or parts.fragment:
        yield f"url: {config.url!r} must be {known}, with nothing after the port"
    if config.ca_file and parts.scheme == "mqtt":
        yield "ca_file: has no effect without TLS; use mqtts:// or drop it"


def _of_login(config: Config, parts: SplitResult) -> Iterator[str]:
    if config.user and not config.password_file:
        yield "password_file: is missing, and user is set"
    if config.password_file and not config.user:
        yield "user: is missing, and password_file is set"
    is_plain = parts.scheme == "mqtt" and not is_loopback(config.url)
    if config.user and is_plain and not config.insecure:
        yield (
            f"url: {config.url!r} would send the password in clear; use mqtts://, "
            "or say insecure = true"
        )


def _of_role(config: Config) -> Iterator[str]:
    if config.role == "billing":
        yield 'role: "billing" is for a meter that is asked; what is published may be lost or old'


def _of_availability(config: Config) -> Iterator[str]:
    if not config.availability_topic:
        return
    yield from topic_flaws("availability_topic:", config.availability_topic)
    if config.availability_topic in {point.topic for point in config.point}:
        yield "availability_topic: is a point's topic too; words and figures come on two"
