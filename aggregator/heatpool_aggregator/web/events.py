"""Server-sent events: the whole state when it changes, at most once a second, and a sign of life.

An unnamed event carries a `State`. In a second without one, `event: alive` carries the clock, so
that a page can tell within 3 s that the line is dead. Comments keep proxies from closing it.
"""

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import ClientConnectionResetError, web

from heatpool.errors import HeatpoolError
from heatpool_aggregator.core.principal import LOCAL, Role
from heatpool_aggregator.web import shown
from heatpool_aggregator.web.access import Access
from heatpool_aggregator.web.desk import Desk
from heatpool_aggregator.web.problem import Refused

Audience = tuple[str, Role]  # who have one of each in common see the same
OWN_MAX_COUNT = 16  # of one principal: who has many leaves room for the others
CLIENTS_MAX_COUNT = 64  # each holds a socket and a task; a control room has a dozen walls
_TICK_S = 1.0
_COMMENT_EVERY_TICKS = 15  # proxies cut a line that is silent for 30 s or more
_WRITE_TIMEOUT_S = 5.0  # a client that takes no bytes for so long is gone
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

DESCRIPTION: dict[str, Any] = {
    "get": {
        "operationId": "events",
        "summary": "The whole state as server-sent events, at most one a second.",
        "responses": {
            "200": {
                "description": "Data of unnamed events: State. Events named alive: a sign of life.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }
        },
    }
}


class Events:
    """Serves /v1/events to at most `CLIENTS_MAX_COUNT` clients, few of them the same one's."""

    def __init__(self, desk: Desk, access: Access | None = None) -> None:
        self._desk, self._access = desk, access
        self._clients_count = 0
        self._own_counts: Counter[str] = Counter()
        self._event_id = ""
        self._encoded: dict[Audience, bytes] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Streams until the client leaves or the server stops."""
        name = "" if self._access is None else (await self._access.reader(request)).name
        is_one_full = bool(name) and self._own_counts[name] >= OWN_MAX_COUNT
        if is_one_full or self._clients_count >= CLIENTS_MAX_COUNT:
            listen = f"{OWN_MAX_COUNT} of yours listen" if is_one_full else "all places are taken"
            detail = f"{listen} already; GET /v1/state gives it once"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail, wait_s=5)
        self._clients_count += 1
        self._own_counts[name] += 1
        response = web.StreamResponse(headers=_HEADERS)
        response.content_type = "text/event-stream"
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await response.prepare(request)
            await self._stream(request, response)
        except (ClientConnectionResetError, TimeoutError):
            pass  # a closed tab is no fault
        except (Refused, HeatpoolError):
            pass  # revoked or expired meanwhile, or nobody can say: who asks again hears why
        finally:
            self._clients_count -= 1
            self._own_counts[name] -= 1
            self._own_counts += Counter()  # names without any are forgotten
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse) -> None:
        tick, seen = 0, request.headers.get("Last-Event-ID", "")
        await _write(response, b"retry: 1000\n\n")
        while not self._desk.closing.is_set():
            event_id, event = await self._state(request)
            await _write(response, self._alive() if event_id == seen else event)
            seen = event_id
            tick += 1
            if tick % _COMMENT_EVERY_TICKS == 0:
                await _write(response, b": still here\n\n")
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_TICK_S):
                await self._desk.closing.wait()
        except TimeoutError:
            return

    async def _state(self, request: web.Request) -> tuple[str, bytes]:
        """Id and bytes of the present state; encoded once for all clients who see the same."""
        principal = LOCAL if self._access is None else await self._access.reader(request)
        # Boards of two runs count from 0 alike; this object's id keeps them apart.
        event_id = f"{id(self):x}.{self._desk.board.version}"
        if self._event_id != event_id:
            self._event_id = event_id
            self._encoded.clear()
        audience = (principal.tenant, principal.role)
        event = self._encoded.get(audience)
        if event is None:
            desk = self._desk
            if self._access is not None:
                desk = await self._access.desk(principal, desk)
            data = msgspec.json.encode(shown.state(desk))
            event = b"id: %b\ndata: %b\n\n" % (event_id.encode(), data)
            if self._event_id == event_id:  # nothing was posted while we asked who owns what
                self._encoded[audience] = event
        return event_id, event

    def _alive(self) -> bytes:
        data = msgspec.json.encode({"at_ns": self._desk.clock.now_ns()})
        return b"event: alive\ndata: %b\n\n" % data


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_TIMEOUT_S):
        await response.write(data)
