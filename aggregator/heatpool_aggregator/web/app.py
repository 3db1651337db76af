"""The aggregator's face to people: page, REST, events, metrics and joining on one address.

Without certificates it binds loopback only; with them it speaks TLS, and asks who is there.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import metadata

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.identity import places, server
from heatpool_aggregator.ports import Clock, Store
from heatpool_aggregator.web import assets, events, join, listening, router, views
from heatpool_aggregator.web.access import LOGIN_PATH, LOGOUT_PATH, Access
from heatpool_aggregator.web.address import check_listen, check_loopback, only_own_hosts
from heatpool_aggregator.web.desk import Desk
from heatpool_aggregator.web.join import Join
from heatpool_aggregator.web.login import Login
from heatpool_aggregator.web.pace import place_of
from heatpool_aggregator.web.problem import problems
from heatpool_aggregator.web.secured import Secured, keep_fresh

logger = logging.getLogger(__name__)

_STOP_S = 1.5  # open event streams end at once; others get this long
# Who sends no whole head within it is hung up on, as is who keeps a line open and asks nothing.
_IDLE_S = 30.0
# A refused body is read on for so long, so that the answer arrives whole.
_LINGER_S = 1.0
_BODY_BYTES_LIMIT = 64 << 10
_REASON_LIMIT = 100  # of a head that was not understood, a part of it may be in it
_SECURITY = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; object-src 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
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
    secured: Secured | None = None,
) -> AsyncIterator[str]:
    """The bound address, `127.0.0.1:PORT`; leaving stops the server in at most 2 s.

    Without `render_metrics` there is no /metrics; without `secured` there is no TLS.

    Raises:
        ConfigError: the address is not a loopback one, and there is no TLS.
        HeatpoolError: the address cannot be bound, or the certificates cannot be used.
    """
    address = config.listen.http
    host, port = check_loopback(address) if secured is None else check_listen(address)
    desk = Desk(
        config=config, board=board, store=store, clock=clock, host_name=socket.gethostname()
    )
    files = await asyncio.to_thread(assets.read)
    if secured is None:
        app, context = application(desk, files), None
        app.middlewares.append(only_own_hosts(desk.host_name, _tells_hosts(board, clock)))
    else:
        app = await _guarded(desk, files, secured)
        context = await asyncio.to_thread(server.context, secured.files.cert, secured.files.key)
    if render_metrics is not None:
        app.router.add_get("/metrics", _metrics(board, render_metrics))
    async with _running(app, (host, port), context, _Doorman(board, clock)) as bound:
        try:
            if secured is None or context is None:
                yield bound
            else:
                async with _fresh(context, secured):
                    yield bound
        finally:
            desk.closing.set()


@asynccontextmanager
async def _running(
    app: web.Application,
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    doorman: "_Doorman",
) -> AsyncIterator[str]:
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=_STOP_S,
        keepalive_timeout=_IDLE_S,
        lingering_time=_LINGER_S,
    )
    await runner.setup()
    server_log = logging.getLogger("aiohttp.server")
    server_log.addFilter(doorman)
    try:
        await _listen(runner, address, context, doorman)
        yield _bound(runner)
    finally:
        await runner.cleanup()
        server_log.removeFilter(doorman)


@asynccontextmanager
async def _fresh(context: ssl.SSLContext, secured: Secured) -> AsyncIterator[None]:
    """While open, the served certificate follows its file."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep_fresh(context, secured.files), name="web.certificate")
        try:
            yield
        finally:
            task.cancel()


def _tells_hosts(board: Board, clock: Clock) -> Callable[[web.Request], None]:
    """Counts who calls us by another's name, and logs the first time of each."""

    def told(request: web.Request) -> None:
        peer = place_of(request.remote)
        if board.turned_away.count(peer, Reason.HOST, boot_ns=clock.boot_ns()):
            host = request.headers.get("Host", "")[:100]
            logger.warning("web.refused", extra=facts(peer=peer, reason="host", host=host))

    return told


class _Doorman(logging.Filter):
    """Counts who speaks no HTTP/1, or comes when all places are taken; never a traceback."""

    def __init__(self, board: Board, clock: Clock) -> None:
        super().__init__()
        self._turned_away, self._clock = board.turned_away, clock

    def filter(self, record: logging.LogRecord) -> bool:
        """False where the fault is not ours: one line for each caller and day."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return True
        args = record.args if isinstance(record.args, tuple) else ()
        peer = place_of(str(args[0]) if args else None)
        if self._turned_away.count(peer, Reason.MALFORMED, boot_ns=self._clock.boot_ns()):
            told = getattr(error, "message", "") or type(error).__name__
            reason = told.partition("\n")[0].rstrip(":")[:_REASON_LIMIT]
            logger.warning("http.not_understood", extra=facts(peer=peer, reason=reason))
        return False

    def crowded(self, peer: str) -> None:
        """Counts a connection that was one too many."""
        if self._turned_away.count(peer, Reason.OVERLOAD, boot_ns=self._clock.boot_ns()):
            logger.warning("web.refused", extra=facts(peer=peer, reason="overload"))


async def _listen(
    runner: web.AppRunner,
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    doorman: _Doorman,
) -> None:
    host, port = address
    try:
        for one in await listening.bound(host, port, doorman.crowded):
            await listening.Site(runner, one, ssl_context=context).start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise HeatpoolError(
            f"listen.http: {host}:{port} cannot be bound ({reason}): choose another port"
        ) from error


def application(
    desk: Desk, files: dict[str, assets.Asset], access: Access | None = None
) -> web.Application:
    """All endpoints, with security headers on each answer and problems for each error."""
    guards = [problems] if access is None else [problems, access.middleware]
    app = web.Application(middlewares=guards, client_max_size=_BODY_BYTES_LIMIT)
    app.on_response_prepare.append(_secure)
    endpoints = router.endpoints_of(views)

    async def desk_for() -> Desk:
        return desk if access is None else await access.own_desk(desk)

    router.add(app, endpoints, desk_for)
    assets.add(app, files)
    app.router.add_get("/v1/events", events.Events(desk, access).handle, allow_head=False)
    app.router.add_get("/openapi.json", _openapi(endpoints, {} if access is None else join.PATHS))
    return app


async def _guarded(desk: Desk, files: dict[str, assets.Asset], secured: Secured) -> web.Application:
    """The application with its guard, and the ways in."""
    access = Access(
        identities=secured.identities,
        audit=secured.audit,
        clock=desk.clock,
        turned_away=desk.board.turned_away,
    )
    app = application(desk, files, access)
    icon_url = files["favicon.svg"].url
    login = Login(access, secured.identities, desk.clock, icon_url=icon_url)
    app.router.add_get(LOGIN_PATH, login.page)
    app.router.add_post(LOGIN_PATH, login.begin)
    app.router.add_post(LOGOUT_PATH, login.end)
    newcomers = Join(
        access=access,
        joining=secured.joining,
        ca_pem=(await asyncio.to_thread(places.read, secured.files.ca)).decode(),
        grpc_address=secured.grpc_address,
        clock=desk.clock,
    )
    app.router.add_get("/v1/ca", newcomers.ca)
    app.router.add_post("/v1/join", newcomers.join)
    return app


def _metrics(board: Board, render: RenderMetrics) -> assets.Handler:
    async def metrics(_: web.Request) -> web.Response:
        text = render(board)
        body = text.encode() if isinstance(text, str) else text
        return web.Response(
            body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    return metrics


def _openapi(endpoints: list[router.Endpoint], more: Mapping[str, object]) -> assets.Handler:
    document = router.description(endpoints, version=metadata.version("heatpool"))
    document["paths"]["/v1/events"] = events.DESCRIPTION
    document["paths"] |= more
    body = msgspec.json.encode(document)

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return openapi


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _SECURITY.items():
        # A page may have a policy of its own, as the one with the log-in form.
        response.headers.setdefault(name, value)
    response.headers["Server"] = "heatpool"  # its maker's own, with its version, is there already


def _bound(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
