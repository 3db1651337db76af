"""A Redfish service on a socket: it counts who asks; slow or silent where a fault says so."""

import asyncio
import logging
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime

from aiohttp import web

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_sim.devices import redfish_garble as garble
from heatpool_sim.devices.redfish_answer import Answers, Ask
from heatpool_sim.devices.redfish_session import Sessions
from heatpool_sim.devices.redfish_tree import Tree
from heatpool_sim.ports import LOOPBACK, Address

logger = logging.getLogger(__name__)

SLOW_S = 55.0  # the longest answer seen of a real BMC that did come
_BODY_S = 30.0  # a request whose body does not come is given up
_GOODBYE_S = 0.5  # answers under way at the end are cut off after this
_REMEMBERED = 4096  # requests kept for those who want to know what was asked


class RedfishService:
    """One BMC or coolant unit behind its own port; without a user everybody may read."""

    def __init__(
        self,
        tree: Tree,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        user: str = "",
        password: str = "",
        slots: int = 4,
        tls: ssl.SSLContext | None = None,
        faults: Callable[[], frozenset[str]] = frozenset,
        slow_s: float = SLOW_S,
    ) -> None:
        self._answers = Answers(tree, Sessions(user=user, password=password, slots=slots))
        self._at = (host, port)
        self._tls = tls
        self._faults = faults
        self._slow_s = slow_s
        self._ending = asyncio.Event()
        self._in_flight = 0
        self.requests = 0
        self.most_in_flight = 0
        self.asked: deque[str] = deque(maxlen=_REMEMBERED)  # "GET /redfish/v1/Chassis 200"

    @property
    def open_sessions(self) -> int:
        """Session slots in use."""
        return self._answers.sessions.open_count

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Address]:
        """Answers at the address for as long as the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """
        host, port = self._at
        runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True), shutdown_timeout=_GOODBYE_S
        )
        await runner.setup()
        self._ending.clear()
        try:
            try:
                await web.TCPSite(runner, host, port, ssl_context=self._tls).start()
            except OSError as error:
                # asyncio words it at length; a name that does not resolve has no number of the OS.
                number = error.errno or 0
                reason = os.strerror(number) if number > 0 else error.strerror
                text = f"port {port} on {host}: {reason}; free it or give 0"
                raise HeatpoolError(text) from error
            yield Address(host=host, port=runner.addresses[0][1])
        finally:
            self._ending.set()
            await runner.cleanup()

    async def _dawdle(self) -> None:
        """Waits as long as a slow BMC does, or until this one ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._slow_s):
                await self._ending.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._counted():
            faults = self._faults()
            if garble.SLOW in faults:
                await self._dawdle()
            if garble.SILENT in faults or self._ending.is_set():
                _hang_up(request)
                return web.Response()
            return await self._answer(request, faults)

    async def _answer(self, request: web.BaseRequest, faults: frozenset[str]) -> web.Response:
        async with asyncio.timeout(_BODY_S):
            body = await request.read()
        ask = Ask(
            method=request.method,
            path=request.rel_url.raw_path,
            query=request.rel_url.query,
            headers=request.headers,
            body=body,
        )
        reply = self._answers.reply(ask, faults)
        self.asked.append(f"{ask.method} {ask.path} {reply.status}")
        logger.debug("redfish.answer", extra=facts(asked=self.asked[-1]))
        response = web.Response(status=reply.status, headers=reply.headers, body=reply.body)
        if garble.WRONG_CLOCK in faults:
            late = datetime.now(UTC) - garble.CLOCK_BEHIND
            response.headers["Date"] = format_datetime(late, usegmt=True)
        return response

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.requests += 1
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1


def _hang_up(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
