"""A browser's way in: a page for pasting an API token, which becomes a session cookie."""

import hashlib
from http import HTTPStatus
from urllib.parse import parse_qs

from aiohttp import web

from heatpool_aggregator.core.principal import Action, may
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.identity.tokens import is_api_token
from heatpool_aggregator.ports import Clock, Identities
from heatpool_aggregator.web.access import COOKIE, LOGIN_PATH, Access
from heatpool_aggregator.web.body import read_body
from heatpool_aggregator.web.pace import Pace, place_of
from heatpool_aggregator.web.problem import Refused
from heatpool_aggregator.web.sessions import LIFE_S

_FORM = "application/x-www-form-urlencoded"
_BODY_BYTES_LIMIT = 1024
_FIELDS_LIMIT = 4
_HEADERS = {
    "Cache-Control": "no-store",
    # As for every page, but this one has a form, and no script at all.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    # With no-referrer a browser says `Origin: null` for our own form, too.
    "Referrer-Policy": "same-origin",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>heatpool: log in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="%s">
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}
input,button{font:inherit;padding:.5rem;box-sizing:border-box}
input{width:100%%;margin:.25rem 0 1rem}
code{display:block;font-size:.85em}</style></head><body><main><h1>heatpool</h1>%s
<form method="post" action="/login"><label for="token">API token</label>
<input id="token" name="token" type="password" autocomplete="off" required autofocus>
<button>Log in</button></form>
<p>An admin makes one by <code>heatpool-aggregator user add NAME --role ROLE --api-token</code></p>
%s</main></body></html>
"""
_OUT = """<form method="post" action="/logout"><button>Log out of this browser</button></form>
<p><a href="/">To the figures</a></p>
"""
_NO = '<p role="alert"><strong>This token is unknown, expired or revoked.</strong></p>'


class Login:
    """Serves /login and /logout."""

    def __init__(
        self, access: Access, identities: Identities, clock: Clock, *, icon_url: str
    ) -> None:
        self._access, self._identities, self._clock = access, identities, clock
        self._icon_url = icon_url
        self._pace = Pace(burst_count=5, refill_s=6)

    async def page(self, request: web.Request) -> web.Response:
        """The form, and the way out for who is in."""
        return self._page("", is_in=COOKIE in request.cookies)

    async def begin(self, request: web.Request) -> web.Response:
        """A session for a good token, the form again for another."""
        await self._access.check_origin(request)
        boot_ns = self._clock.boot_ns()
        if wait_s := self._pace.wait_s(place_of(request.remote), boot_ns):
            await self._access.tell(request, Reason.TOO_OFTEN, "log-ins")
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS, "too many log-ins from your address", wait_s=wait_s
            )
        token = await _token(request)
        principal = None
        if is_api_token(token):
            principal = await self._identities.principal_of_token(token)
        if principal is None or not may(principal, Action.READ):
            await self._access.tell(request, Reason.API_TOKEN, "at the log-in page")
            return self._page(_NO, status=HTTPStatus.FORBIDDEN)
        await self._access.record(
            principal.name, "login", principal.name, peer=place_of(request.remote)
        )
        answer = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/", **_HEADERS})
        cookie = self._access.sessions.begin(hashlib.sha256(token.encode()).digest(), boot_ns)
        answer.set_cookie(
            COOKIE, cookie, max_age=LIFE_S, path="/", secure=True, httponly=True, samesite="Strict"
        )
        return answer

    async def end(self, request: web.Request) -> web.Response:
        """Ends the session of this browser."""
        await self._access.check_origin(request)
        self._access.sessions.end(request.cookies.get(COOKIE, ""))
        answer = web.Response(
            status=HTTPStatus.SEE_OTHER, headers={"Location": LOGIN_PATH, **_HEADERS}
        )
        answer.set_cookie(
            COOKIE, "", max_age=0, path="/", secure=True, httponly=True, samesite="Strict"
        )
        return answer

    def _page(
        self, note: str, *, status: HTTPStatus = HTTPStatus.OK, is_in: bool = False
    ) -> web.Response:
        return web.Response(
            status=status,
            text=_PAGE % (self._icon_url, note, _OUT if is_in else ""),
            content_type="text/html",
            headers=_HEADERS,
        )


async def _token(request: web.Request) -> str:
    """The pasted token; empty where the form is none of ours."""
    if request.content_type != _FORM:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"/login takes {_FORM}")
    body = await read_body(request, bytes_limit=_BODY_BYTES_LIMIT)
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=_FIELDS_LIMIT)
    except ValueError:
        return ""
    return fields.get("token", [""])[0].strip()
