"""Server-sent events: the whole state when it changes, at most once a second, and a sign of life.

An unnamed event carries a `State`. In a second without one, `event: alive` carries the clock, so
that a page can tell within 3 s that the line is dead. Comments keep proxies from closing it.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import ClientConnectionResetError, web

from heatpool_aggregator.web import shown
from heatpool_aggregator.web.desk import Desk
from heatpool_aggregator.web.problem import Refused

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
    """Serves /v1/events to at most `CLIENTS_MAX_COUNT` clients."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._clients_count = 0
        self._encoded: tuple[str, bytes] = ("", b"")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Streams until the client leaves or the server stops."""
        if self._clients_count >= CLIENTS_MAX_COUNT:
            detail = f"{CLIENTS_MAX_COUNT} clients listen already; GET /v1/state gives it once"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail, wait_s=5)
        self._clients_count += 1
        response = web.StreamResponse(headers=_HEADERS)
        response.content_type = "text/event-stream"
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await response.prepare(request)
            await self._stream(response, seen=request.headers.get("Last-Event-ID", ""))
        except (ClientConnectionResetError, TimeoutError):
            pass  # a closed tab is no fault
        finally:
            self._clients_count -= 1
        return response

    async def _stream(self, response: web.StreamResponse, *, seen: str) -> None:
        tick = 0
        await _write(response, b"retry: 1000\n\n")
        while not self._desk.closing.is_set():
            event_id, event = self._state()
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

    def _state(self) -> tuple[str, bytes]:
        """Id and bytes of the present state; encoded once for all clients."""
        # Boards of two runs count from 0 alike; this object's id keeps them apart.
        event_id = f"{id(self):x}.{self._desk.board.version}"
        if self._encoded[0] != event_id:
            data = msgspec.json.encode(shown.state(self._desk))
            self._encoded = (event_id, b"id: %b\ndata: %b\n\n" % (event_id.encode(), data))
        return self._encoded

    def _alive(self) -> bytes:
        data = msgspec.json.encode({"at_ns": self._desk.clock.now_ns()})
        return b"event: alive\ndata: %b\n\n" % data


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_TIMEOUT_S):
        await response.write(data)
