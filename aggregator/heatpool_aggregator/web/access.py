"""Who reads: the API token of a request or the session of a browser, and what that may see.

Without TLS there is no `Access`: the port is on loopback and everybody is this machine.
"""

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace
from http import HTTPStatus

from aiohttp import web

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.core.principal import Action, Principal, Role, may, roles_that_may, sees
from heatpool_aggregator.core.turned_away import Reason, TurnedAway
from heatpool_aggregator.identity.tokens import is_api_token
from heatpool_aggregator.ports import Audit, Clock, Identities
from heatpool_aggregator.web.desk import Desk
from heatpool_aggregator.web.pace import Pace, place_of
from heatpool_aggregator.web.problem import Handler, Refused
from heatpool_aggregator.web.seen import narrowed
from heatpool_aggregator.web.sessions import Sessions

logger = logging.getLogger(__name__)

# The prefix makes browsers refuse it from any other host, path or without TLS.
COOKIE = "__Host-heatpool"
LOGIN_PATH, LOGOUT_PATH = "/login", "/logout"
_OPEN = ("/healthz", "/readyz", "/v1/ca", "/v1/join", LOGIN_PATH, LOGOUT_PATH)
_STATIC = "/static/"
_NEEDS: Mapping[str, Action] = {
    "/v1/statements": Action.READ_ACCOUNTS,
    "/v1/statements/last": Action.READ_ACCOUNTS,
    "/v1/balance": Action.READ_ACCOUNTS,
}
# Sums over all tenants: for who sees all of them.
_FOR_ALL = ("/metrics", "/v1/balance")
# Sees nothing: what the middleware let through unasked has no desk.
_NOBODY = Principal(name="nobody", role=Role.SITE)
_SAFE = ("GET", "HEAD", "OPTIONS")
_SCHEME = "bearer"
_HOW = (
    "send `Authorization: Bearer TOKEN`, or log in at /login; an admin makes tokens by "
    "`heatpool-aggregator user add NAME --role ROLE --api-token`"
)
# Of the request that this task handles; the middleware sets it anew for each.
_READER: ContextVar[Principal] = ContextVar("reader", default=_NOBODY)


class Access:
    """The guard of HTTPS; `middleware` stands before every handler."""

    def __init__(
        self, *, identities: Identities, audit: Audit, clock: Clock, turned_away: TurnedAway
    ) -> None:
        self._identities, self._audit, self._clock = identities, audit, clock
        self._turned_away = turned_away
        self.sessions = Sessions()
        self._version = -1
        self._owners: dict[SiteId, str] = {}
        # Strangers shall not fill the disk by being refused.
        self._audit_pace = Pace(burst_count=20, refill_s=60)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, if the caller may have it."""
        path = _registered_path(request)
        if path in _OPEN or path.startswith(_STATIC):
            return await handler(request)
        try:
            principal = await self.reader(request)
        except Refused:
            if path == "/":
                return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": LOGIN_PATH})
            raise
        await self._check_need(request, principal, path)
        _READER.set(principal)
        return await handler(request)

    async def reader(self, request: web.Request) -> Principal:
        """Who asks; looked up each time, so that a revocation counts at once.

        Raises:
            Refused: nobody whom we know, or a browser that another page drives.
            StoreError: nobody can say now.
        """
        headers = request.headers.getall("Authorization", [])
        if headers:
            return await self._by_header(request, headers)
        cookie = request.cookies.get(COOKIE, "")
        token_sha256 = self.sessions.token_of(cookie, self._clock.boot_ns()) if cookie else None
        if token_sha256 is None:
            if _registered_path(request) != "/":  # who opens the page is shown the way in
                self._is_first(request, place_of(request.remote), Reason.API_TOKEN, "none")
            raise self._unknown(f"{request.path} is for those we know: {_HOW}")
        if request.method not in _SAFE:
            await self.check_origin(request)
        principal = await self._identities.principal_of_digest(token_sha256)
        if principal is None:
            self.sessions.end(cookie)
            raise self._unknown(f"the token of this session has expired or was revoked: {_HOW}")
        return principal

    async def own_desk(self, desk: Desk) -> Desk:
        """The desk as whoever asked may see it; behind the middleware only."""
        return await self.desk(_READER.get(), desk)

    async def desk(self, principal: Principal, desk: Desk) -> Desk:
        """The desk as this principal may see it now."""
        owners: Mapping[SiteId, str] = {}
        if not sees(principal, ""):
            owners = await self._current_owners()
        return narrowed(replace(desk, principal=principal, owners=owners))

    async def check_origin(self, request: web.Request) -> None:
        """Lets a form through that came from our own page.

        Raises:
            Refused: another page sent it, or nobody says which.
        """
        origin = request.headers.get("Origin", "")
        if origin == f"https://{request.host}":
            return
        await self.tell(request, Reason.ORIGIN, f"Origin is {origin[:100]!r}")
        raise Refused(
            HTTPStatus.FORBIDDEN, "this request came from another page: open ours, and do it there"
        )

    async def tell(
        self, request: web.Request, reason: Reason, detail: str, *, who: str | None = None
    ) -> None:
        """Counts a refusal; logs and audits the first of a caller and reason. No secrets here."""
        peer = who or place_of(request.remote)
        if not self._is_first(request, peer, reason, detail):
            return
        if who is None and self._audit_pace.wait_s("strangers", self._clock.boot_ns()):
            return
        try:
            await self.record(peer, f"refused.{reason}", _registered_path(request), detail=detail)
        except StoreError as error:
            logger.error("web.audit_failed", extra=facts(reason=str(error)))

    async def record(self, who: str, action: str, subject: str, **detail: str) -> None:
        """Puts something into the audit log.

        Raises:
            StoreError: it is not in there.
        """
        await self._audit.append(
            who=who,
            action=action,
            subject=subject,
            detail=json.dumps(detail),
            at_ns=self._clock.now_ns(),
        )

    async def _by_header(self, request: web.Request, headers: list[str]) -> Principal:
        scheme, _, token = headers[0].partition(" ")
        found = None
        if len(headers) == 1 and scheme.lower() == _SCHEME and is_api_token(token.strip()):
            found = await self._identities.principal_of_token(token.strip())
        if found is None:
            await self.tell(request, Reason.API_TOKEN, "unknown, expired or revoked")
            raise self._unknown(f"this API token is unknown, expired or revoked: {_HOW}")
        return found

    async def _check_need(self, request: web.Request, principal: Principal, path: str) -> None:
        need = _NEEDS.get(path, Action.READ)
        if not may(principal, need):
            roles = " or ".join(roles_that_may(need))
            text = (
                f"{principal.name} is {principal.role}, which may not {need.replace('_', ' ')}: "
                f"that takes the role {roles}"
            )
            await self.tell(request, Reason.ROLE, text, who=principal.name)
            raise Refused(HTTPStatus.FORBIDDEN, text)
        if path in _FOR_ALL and not sees(principal, ""):
            text = f"{path} adds up all tenants, and {principal.name} sees one of them"
            await self.tell(request, Reason.OTHER_TENANT, text, who=principal.name)
            raise Refused(HTTPStatus.FORBIDDEN, text)

    def _is_first(self, request: web.Request, peer: str, reason: Reason, detail: str) -> bool:
        """Counts; logs, where this caller was not told of with this reason within a day."""
        if not self._turned_away.count(peer, reason, boot_ns=self._clock.boot_ns()):
            return False
        path = _registered_path(request)
        logger.warning(
            "web.refused", extra=facts(peer=peer, path=path, reason=str(reason), detail=detail)
        )
        return True

    async def _current_owners(self) -> Mapping[SiteId, str]:
        version = await self._identities.version()
        if version != self._version:
            self._owners = {one.site_id: one.owner for one in await self._identities.sites()}
            self._version = version
        return self._owners

    def _unknown(self, text: str) -> Refused:
        refused = Refused(HTTPStatus.UNAUTHORIZED, text)
        refused.headers["WWW-Authenticate"] = 'Bearer realm="heatpool"'
        return refused


def _registered_path(request: web.Request) -> str:
    """The path under which the handler was registered; empty: nothing is there.

    Never the path as it was sent: what that means is for the router to say.
    """
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical
