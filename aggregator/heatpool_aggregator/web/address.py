"""Where the web port listens, and by which names it may be called while it has no TLS."""

from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Middleware

from heatpool.errors import ConfigError
from heatpool_aggregator.web.problem import Handler, Refused

_PORT_MAX = 65_535
Told = Callable[[web.Request], None]


def check_loopback(address: str) -> tuple[str, int]:
    """Host and port of `listen.http` without TLS.

    Raises:
        ConfigError: the address is not a loopback one.
    """
    host, port = _split(address)
    if not _is_port(port) or not _is_own(host):
        raise ConfigError(
            [
                f"listen.http: is {address!r}, must be 127.0.0.1:PORT: without certificates "
                "anybody could read it, so it serves this machine only; "
                "`heatpool-aggregator init` makes certificates, [tls] names those from elsewhere"
            ]
        )
    return host, int(port)


def check_listen(address: str) -> tuple[str, int]:
    """Host and port of `listen.http` with TLS: any of this machine's.

    Raises:
        ConfigError: it is no HOST:PORT.
    """
    host, port = _split(address)
    if not host or not _is_port(port):
        raise ConfigError([f"listen.http: is {address!r}, must be HOST:PORT, like 0.0.0.0:8080"])
    return host, int(port)


def only_own_hosts(host_name: str, told: Told) -> Middleware:
    """Refuses who calls us by another name than this machine's, while there is no TLS.

    A web page can have its own name point at 127.0.0.1 and read us through its reader's browser;
    the browser then names that page's host. With TLS no certificate of ours has that name.
    `told` hears of each.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        names = request.headers.getall("Host", [])
        if len(names) > 1 or not _is_ours(names, host_name):
            told(request)
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"{', '.join(names)[:100]!r} is no name of this machine: call it localhost",
            )
        return await handler(request)

    return check


def _is_ours(names: list[str], host_name: str) -> bool:
    if not names:  # HTTP/1.0 of a load balancer; every browser names a host
        return True
    host = names[0].rpartition(":")[0] if _has_port(names[0]) else names[0]
    return host.lower() in ("localhost", host_name.lower()) or _is_own(host.strip("[]"))


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdecimal() and not name.endswith("]") and ":" in name


def _split(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text) <= _PORT_MAX


def _is_own(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
