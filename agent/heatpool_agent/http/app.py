"""The server behind the page: one address, nothing that touches a device, and GET alone.

One thing can be sent, the local operator's override, and only from this machine.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from heatpool import __version__
from heatpool.errors import ConfigError, HeatpoolError
from heatpool.process.journal import facts
from heatpool_agent.board import Board
from heatpool_agent.config import is_loopback
from heatpool_agent.http import metrics
from heatpool_agent.http.override import taking
from heatpool_agent.http.page import POLICY, SCRIPT, page
from heatpool_agent.http.problem import answer, problems
from heatpool_agent.http.seen import Seen, look, unhealthy, unready
from heatpool_agent.http.status import status
from heatpool_agent.kept_orders import OverrideFile
from heatpool_agent.ports import Clock

logger = logging.getLogger(__name__)

_STOP_S = 0.5  # an answer takes milliseconds; whoever reads slower than this is cut off
_OPEN_S = 5.0  # a name may have to be looked up
_KEEPALIVE_S = 15.0  # scrapers come every 15 s; idle lines of others need not stay longer
_SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "heatpool",
}
_LOCAL = "127.0.0.1"
_REASON_LIMIT = 100  # of a head that was not understood, a part of it may be in it

Look = Callable[[], Seen]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(
    listen: str,
    board: Board,
    clock: Clock,
    *,
    period_s: float,
    override: OverrideFile | None = None,
) -> AsyncIterator[str]:
    """The bound `host:port` of the status page; leaving stops it within a second.

    Raises:
        ConfigError: `listen` is no address.
        HeatpoolError: the address cannot be had, such as a port in use.
    """
    host, port = _place(listen)
    app = application(board, clock, period_s=period_s, override=override)
    if is_loopback(listen):
        app.middlewares.append(_only_own_names)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=_STOP_S,
        keepalive_timeout=_KEEPALIVE_S,
    )
    await runner.setup()
    server_log, not_ours = logging.getLogger("aiohttp.server"), _NotOurs()
    server_log.addFilter(not_ours)
    try:
        await _open(web.TCPSite(runner, host, port), listen)
        yield _bound(runner)
    finally:
        await runner.cleanup()
        server_log.removeFilter(not_ours)


class _NotOurs(logging.Filter):
    """Who speaks no HTTP/1 is one line for all of them, and no traceback each."""

    is_told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """False where the fault is the caller's."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return True
        if not self.is_told:
            self.is_told = True
            reason = str(getattr(error, "message", "")).partition("\n")[0][:_REASON_LIMIT]
            logger.warning("http.not_understood", extra=facts(reason=reason))
        return False


@web.middleware
async def _only_own_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses a web page that has its own name point at this machine, to read us by a browser."""
    names = request.headers.getall("Host", [])
    if len(names) > 1 or (names and not is_loopback(names[0])):
        detail = f"{', '.join(names)[:100]!r} is no name of this machine: call it localhost"
        return answer(request, HTTPStatus.MISDIRECTED_REQUEST, detail)
    return await handler(request)


def application(
    board: Board, clock: Clock, *, period_s: float, override: OverrideFile | None = None
) -> web.Application:
    """All pages, with security headers on each answer and a problem for each error."""
    seen = partial(look, board, clock, period_s=period_s)
    app = web.Application(middlewares=[problems])
    app.on_response_prepare.append(_secure)
    for path, handler in _pages(seen, __version__):
        app.router.add_get(path, handler, allow_head=False)
    if override is not None:
        app.router.add_post("/v1/override", taking(override, clock))
    return app


def _pages(seen: Look, version: str) -> Iterator[tuple[str, Handler]]:
    collector = metrics.BoardCollector(seen, version=version, cpu_s=time.process_time)
    yield "/", _made(lambda: page(seen(), version=version).encode(), "text/html; charset=utf-8")
    yield "/live.js", _made(lambda: SCRIPT, "text/javascript; charset=utf-8")
    yield "/metrics", _made(lambda: metrics.render(collector), metrics.CONTENT_TYPE)
    yield (
        "/v1/status",
        _made(lambda: msgspec.json.encode(status(seen(), version=version)), "application/json"),
    )
    yield "/healthz", _judged(lambda: unhealthy(seen()))
    yield "/readyz", _judged(lambda: unready(seen()))


def _made(make: Callable[[], bytes], content_type: str) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=make(), headers={"Content-Type": content_type})

    return handle


def _judged(reasons: Callable[[], Iterator[str]]) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        if found := list(reasons()):
            return answer(request, HTTPStatus.SERVICE_UNAVAILABLE, "; ".join(found))
        return web.json_response({"status": "ok"})

    return handle


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURITY)


async def _open(site: web.TCPSite, listen: str) -> None:
    try:
        async with asyncio.timeout(_OPEN_S):
            await site.start()
    except OSError as error:
        reason = error.strerror or str(error) or f"no answer within {_OPEN_S:g} s"
        raise HeatpoolError(
            f"http.listen {listen}: {reason}; stop what listens there, or set http.listen to "
            "another address (port 0 takes any free one, an empty text serves no page)"
        ) from error


def _place(listen: str) -> tuple[str | None, int]:
    """Host (None: every address of this machine) and port.

    `localhost` is one address here: its two would get different ports if any free one is asked.
    """
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if port is None or "/" in listen:
        raise ConfigError([f"http.listen: is {listen!r}, must be host:port, as 127.0.0.1:9188"])
    return _LOCAL if host == "localhost" else host, port


def _bound(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
