"""Every answer that is not the thing asked for, as `application/problem+json` (RFC 9457)."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

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


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or a problem that says why there is none."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _refused(request, error)
    except Exception:
        # The edge: a fault in one view must not take the others, or the site's loops, with it.
        logger.exception("http.failed", extra=facts(path=request.path))
        detail = "this page has a fault; it is in the agent's log with this path"
        return answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _refused(request: web.Request, error: web.HTTPException) -> web.Response:
    status = HTTPStatus(error.status)
    detail = {
        HTTPStatus.NOT_FOUND: f"nothing is at {request.path}; / is the page",
        HTTPStatus.METHOD_NOT_ALLOWED: (
            f"{request.path} takes {error.headers.get('Allow', 'GET')} alone, not {request.method}"
        ),
    }.get(status, error.reason)
    kept = {key: value for key, value in error.headers.items() if key == "Allow"}
    return answer(request, status, detail, headers=kept)


def answer(
    request: web.Request, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] = {}
) -> web.Response:
    """A problem as a response."""
    problem = Problem(
        title=status.phrase, status=status.value, detail=detail, instance=request.path
    )
    return web.Response(
        status=status.value,
        body=msgspec.json.encode(problem),
        content_type="application/problem+json",
        headers=dict(headers),
    )
