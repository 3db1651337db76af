"""The web port's sockets: so many connections at most, or anybody could use up the descriptors.

Sites come in by another port of the same process: where none are left, they stay outside.
"""

import asyncio
import resource
import socket
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from heatpool_aggregator.web.pace import place_of

HANDSHAKE_S = 10.0  # asyncio's own is a minute
CONNECTIONS_LIMIT = 4_096
_BACKLOG = 1_024

Told = Callable[[str], None]


def connections_limit() -> int:
    """How many the port may have: a quarter of all descriptors, or less."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_LIMIT if soft < 0 else min(CONNECTIONS_LIMIT, soft // 4)


class _Connection(socket.socket):
    """Leaves its place when it is closed, or forgotten."""

    leave: Callable[[], object] | None = None

    def close(self) -> None:
        super().close()
        if self.leave is not None:
            self.leave()


class Listening(socket.socket):
    """Hangs up on whoever is one too many; one address has at most half of all places."""

    def admit(self, limit: int, told: Told) -> None:
        """From now on, at most `limit` connections; `told` hears whence one was turned away."""
        self._limit, self._told = limit, told
        self._places: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            ConnectionAbortedError: it was hung up on.
        """
        accepted, address = super().accept()
        place = place_of(address[0])
        if (
            self._places.total() >= self._limit or self._places[place] >= self._limit // 2
        ):  # the loop goes on with the next one
            accepted.close()
            self._told(place)
            raise ConnectionAbortedError
        connection = _Connection(fileno=accepted.detach())
        self._places[place] += 1
        connection.leave = weakref.finalize(connection, _left, self._places, place)
        return connection, address


class Site(web.SockSite):
    """As its parent, with less time for a handshake."""

    async def start(self) -> None:
        """Listens from now on."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None  # the runner is set up
        self._server = await asyncio.get_running_loop().create_server(
            server,
            sock=self._sock,
            ssl=self._ssl_context,
            backlog=_BACKLOG,
            ssl_handshake_timeout=None if self._ssl_context is None else HANDSHAKE_S,
        )


async def bound(host: str, port: int, told: Told) -> list[Listening]:
    """A socket for each address of the host.

    Raises:
        OSError: one cannot be bound.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[Listening] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made.append(one := Listening(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.admit(connections_limit(), told)
            one.bind(address)
    except OSError:
        for one in made:
            one.close()
        raise
    return made


def _left(places: Counter[str], place: str) -> None:
    places[place] -= 1
    if not places[place]:
        del places[place]
