"""The aggregator's face to people: page, REST, events and metrics on one loopback address."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from ipaddress import ip_address

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from heatpool.errors import ConfigError, HeatpoolError
from heatpool.process.journal import facts
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.ports import Clock, Store
from heatpool_aggregator.web import assets, events, router, views
from heatpool_aggregator.web.desk import Desk
from heatpool_aggregator.web.problem import problems

logger = logging.getLogger(__name__)

_STOP_S = 1.5  # open event streams end at once; others get this long
_SECURITY = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; object-src 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "heatpool",
}


# Makes the exposition page out of the board; web does not know the exporter behind it.
RenderMetrics = Callable[[Board], str | bytes]


@asynccontextmanager
async def serve(
    config: Config,
    board: Board,
    store: Store,
    clock: Clock,
    *,
    render_metrics: RenderMetrics | None = None,
) -> AsyncIterator[str]:
    """The bound address, `127.0.0.1:PORT`; leaving stops the server in at most 2 s.

    Without `render_metrics` there is no /metrics.

    Raises:
        ConfigError: the address is not a loopback one.
        HeatpoolError: the address cannot be bound.
    """
    host, port = check_loopback(config.listen.http)
    desk = Desk(
        config=config, board=board, store=store, clock=clock, host_name=socket.gethostname()
    )
    app = application(desk, await asyncio.to_thread(assets.read))
    if render_metrics is not None:
        app.router.add_get("/metrics", _metrics(board, render_metrics))
    logging.getLogger("aiohttp.server").addFilter(_no_fault_of_ours)  # the same one is kept once
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        await _listen(web.TCPSite(runner, host, port), f"{host}:{port}")
        yield _bound(runner)
    finally:
        desk.closing.set()
        await runner.cleanup()


def _no_fault_of_ours(record: logging.LogRecord) -> bool:
    """False for a caller that speaks no HTTP/1, such as gRPC: one line, not a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    reason = (error.message or type(error).__name__).partition("\n")[0].rstrip(":")
    logger.warning("http.not_understood", extra=facts(reason=reason))
    return False


async def _listen(site: web.TCPSite, address: str) -> None:
    try:
        await site.start()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise HeatpoolError(
            f"listen.http: {address} cannot be bound ({reason}): choose another port"
        ) from error


def application(desk: Desk, files: dict[str, assets.Asset]) -> web.Application:
    """All endpoints, with security headers on each answer and problems for each error."""
    app = web.Application(middlewares=[problems])
    app.on_response_prepare.append(_secure)
    endpoints = router.endpoints_of(views)
    router.add(app, endpoints, desk)
    assets.add(app, files)
    app.router.add_get("/v1/events", events.Events(desk).handle, allow_head=False)
    app.router.add_get("/openapi.json", _openapi(endpoints))
    return app


def _metrics(board: Board, render: RenderMetrics) -> assets.Handler:
    async def metrics(_: web.Request) -> web.Response:
        text = render(board)
        body = text.encode() if isinstance(text, str) else text
        return web.Response(
            body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    return metrics


def _openapi(endpoints: list[router.Endpoint]) -> assets.Handler:
    document = router.description(endpoints, version=metadata.version("heatpool"))
    document["paths"]["/v1/events"] = events.DESCRIPTION
    body = msgspec.json.encode(document)

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return openapi


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURITY)


def check_loopback(address: str) -> tuple[str, int]:
    """Host and port of `listen.http`.

    Raises:
        ConfigError: the address is not a loopback one.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or not (host == "localhost" or _is_loopback(host)):
        raise ConfigError(
            [f"listen.http: is {address!r}, must be 127.0.0.1:PORT; other addresses need TLS first"]
        )
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
