"""Asks one named host, one protocol after the other, and gives up soon."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from heatpool_agent.search.bus import mbus
from heatpool_agent.search.found import Found
from heatpool_agent.search.modbus import modbus
from heatpool_agent.search.others import ipmi, mqtt, redfish

Ask = Callable[[str, int], Awaitable[Found | None]]

_TLS, _PLAIN = partial(redfish, is_tls=True), partial(redfish, is_tls=False)
# Where each protocol usually listens.
USUAL: Sequence[tuple[int, Ask]] = (
    (443, _TLS),
    (502, modbus),
    (10001, partial(mbus, is_usual_port=True)),
    (1883, mqtt),
    (623, ipmi),
)
# At a port that a person named: those that tell themselves from others first.
ANY: Sequence[Ask] = (_TLS, _PLAIN, mqtt, modbus, partial(mbus, is_usual_port=False), ipmi)


def split_host(text: str) -> tuple[str, int | None]:
    """Host and port of `HOST`, `HOST:PORT`, `[::1]:PORT` or a bare IPv6 address.

    Raises:
        ValueError: there is no host in it, or no port of 1..65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, ""
    host = host.strip("[]")
    if not host or any(sign in host for sign in "/@ ?"):
        raise ValueError(f"{text!r} is no HOST or HOST:PORT")
    if not port:
        return host, None
    if not port.isdecimal() or not 0 < int(port) < 0x10000:
        raise ValueError(f"{text!r} has no port of 1 to 65535")
    return host, int(port)


async def ask_host(host: str, port: int | None) -> list[Found]:
    """Everything that the host offers: at the usual ports, or at the one named."""
    if port is not None:
        for ask in ANY:
            if one := await _asked(ask, host, port):
                return [one]
        return [_nothing(f"{host}:{port}")]
    found = [one for usual, ask in USUAL if (one := await _asked(ask, host, usual))]
    return found or [_nothing(host)]


def _nothing(place: str) -> Found:
    said = "nothing answers by Redfish, Modbus, M-Bus, MQTT or IPMI"
    return Found(place=place, kind="", seen=(said,))


async def _asked(ask: Ask, host: str, port: int) -> Found | None:
    try:
        return await ask(host, port)
    # UnicodeError: a name that no name server could know.
    except (OSError, TimeoutError, UnicodeError, asyncio.IncompleteReadError):
        return None
