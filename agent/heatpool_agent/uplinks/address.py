"""Where an aggregator listens, and whether the line to it may be plain."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from heatpool.errors import ConfigError
from heatpool_agent.config import is_loopback
from heatpool_agent.ports import Identity

_PLAIN = ("http", "grpc", "")
_SECURE = "https"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`host:port`, and whether it is spoken to over TLS."""

    target: str
    is_secure: bool


def address_of(url: str, identity: Identity | None) -> Address:
    """The address behind an aggregator url.

    Raises:
        ConfigError: no address in it, a scheme that is not known, or a line that would be open.
    """
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number, or half an IPv6 address
        host, port = None, None
    if not host or not port or parts.scheme not in (*_PLAIN, _SECURE):
        raise ConfigError(
            [f"aggregator.url: is {url!r}, must be https://HOST:PORT, or http:// on this machine"]
        )
    is_secure = parts.scheme == _SECURE
    _check(url, is_secure=is_secure, identity=identity)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(target=target, is_secure=is_secure)


def _check(url: str, *, is_secure: bool, identity: Identity | None) -> None:
    if is_secure and identity is None:
        raise ConfigError(
            [
                f"aggregator.url: is {url!r}, and this site has no certificate: "
                "heatpool-agent join ADDRESS --token TOKEN --ca-hash HASH gets one"
            ]
        )
    if not is_secure and not is_loopback(url):
        raise ConfigError(
            [
                f"aggregator.url: is {url!r}, beyond this machine and without TLS, so that anybody "
                "could read it or speak for this site: use https://, after heatpool-agent join"
            ]
        )
