"""The one thing that can be changed over the page: the local operator's override, from here alone.

It is taken from this machine by programs that mean it: a browser elsewhere, or a page of somebody
else in a browser here, cannot send such a request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from ipaddress import ip_address

import msgspec
from aiohttp import web

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool_agent.config import is_loopback
from heatpool_agent.core.override import ask_mistake, asked
from heatpool_agent.http.problem import answer
from heatpool_agent.kept_orders import OverrideFile
from heatpool_agent.ports import Clock

logger = logging.getLogger(__name__)

BODY_BYTES = 4_096
WAIT_S = 5.0
TOLD_LIMIT = 100  # callers and reasons that the journal hears of, once each
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Either a length, or the end of what there is."""

    reason: str = ""
    for_s: float | None = None
    end: bool = False


def taking(file: OverrideFile, clock: Clock) -> Handler:
    """Answers POST /v1/override."""
    told: set[tuple[str | None, str]] = set()

    async def take(request: web.Request) -> web.StreamResponse:
        if refusal := _stranger(request):
            who = (request.remote, refusal)
            if who not in told and len(told) < TOLD_LIMIT:
                told.add(who)
                logger.warning("override.refused", extra=facts(reason=refusal, peer=request.remote))
            return answer(request, HTTPStatus.FORBIDDEN, refusal)
        try:
            async with asyncio.timeout(WAIT_S):
                wanted = msgspec.json.decode(await _body(request), type=Wanted)
                return await _done(request, wanted, file, clock)
        except (msgspec.MsgspecError, ValueError) as error:
            return answer(request, HTTPStatus.BAD_REQUEST, f"the body is no override: {error}")
        except TimeoutError:
            detail = f"neither the body nor the disk was there within {WAIT_S:g} s"
            return answer(request, HTTPStatus.REQUEST_TIMEOUT, detail)
        except StoreError as error:
            return answer(request, HTTPStatus.INSUFFICIENT_STORAGE, str(error))

    return take


async def _done(
    request: web.Request, wanted: Wanted, file: OverrideFile, clock: Clock
) -> web.StreamResponse:
    if wanted.end:
        has_ended = await asyncio.to_thread(file.remove)
        logger.info("override.end_asked", extra=facts(reason=wanted.reason))
        return web.json_response({"ended": has_ended})
    if wanted.for_s is None:
        detail = 'say {"for_s": seconds, "reason": why} or {"end": true}'
        return answer(request, HTTPStatus.BAD_REQUEST, detail)
    if mistake := ask_mistake(wanted.for_s, wanted.reason):
        return answer(request, HTTPStatus.BAD_REQUEST, mistake)
    ask = asked(wanted.for_s, wanted.reason, event_ns=clock.event_ns())
    await asyncio.to_thread(file.write, ask)
    return web.json_response({"until_ns": ask.until_ns, "reason": ask.reason})


def _stranger(request: web.Request) -> str:
    """Why this request is not the local operator's; empty: it is."""
    peer = (request.transport.get_extra_info("peername") or ("",))[0] if request.transport else ""
    try:
        is_here = ip_address(peer).is_loopback
    except ValueError:
        is_here = False
    if not is_here or not is_loopback(request.host):
        return "an override is taken on this machine alone, by its loopback address"
    if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
        return "an override is not taken from a page of another origin"
    if request.content_type != "application/json":
        return "an override is taken as application/json"
    return ""


async def _body(request: web.Request) -> bytes:
    parts = bytearray()
    async for part in request.content.iter_chunked(BODY_BYTES):
        parts += part
        if len(parts) > BODY_BYTES:
            raise ValueError(f"it has more than {BODY_BYTES} bytes")
    return bytes(parts)
