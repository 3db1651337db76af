"""Every error of the REST edge as `application/problem+json` (RFC 9457)."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, for a program (`status`) and for a person (`detail`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str


class Refused(Exception):
    """A request that is answered by a problem; raised by views."""

    def __init__(self, status: HTTPStatus, detail: str, *, wait_s: int | None = None) -> None:
        self.status = status
        self.headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
        super().__init__(detail)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or a problem that says why there is none."""
    try:
        return await handler(request)
    except Refused as refused:
        return _answer(request, refused.status, str(refused), headers=refused.headers)
    except web.HTTPException as error:
        return _http_error(request, error)
    except HeatpoolError as error:
        logger.warning("web.unavailable", extra=facts(path=request.path, error=error))
        return _answer(request, HTTPStatus.SERVICE_UNAVAILABLE, f"{error}; try again later")
    except Exception:
        # The edge: a bug in one view must not take the other pages with it.
        logger.exception("web.failed", extra=facts(path=request.path))
        detail = "this page has a fault; it is in the aggregator's log with this path"
        return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    status = HTTPStatus(error.status)
    detail = {
        HTTPStatus.NOT_FOUND: f"nothing is at {request.path}; /openapi.json lists what is",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.path} does not take {request.method}",
    }.get(status, error.reason)
    kept = {key: value for key, value in error.headers.items() if key == "Allow"}
    return _answer(request, status, detail, headers=kept)


def _answer(
    request: web.Request, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] = {}
) -> web.Response:
    problem = Problem(
        title=status.phrase, status=status.value, detail=detail, instance=request.path
    )
    return web.Response(
        status=status.value,
        body=msgspec.json.encode(problem),
        content_type="application/problem+json",
        headers=dict(headers),
    )
