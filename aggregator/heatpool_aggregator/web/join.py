"""How a site that we do not know yet gets its certificate: by a token that a person made for it."""

import hashlib
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from aiohttp import web

from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import JoinAsk, JoinReason, JoinRefused, Waiting
from heatpool_aggregator.core.principal import NAME_PATTERN, is_name
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.identity.joining import Joining
from heatpool_aggregator.identity.requests import CSR_BYTES_LIMIT
from heatpool_aggregator.identity.tokens import JOIN_PATTERN
from heatpool_aggregator.ports import Clock
from heatpool_aggregator.web.access import Access
from heatpool_aggregator.web.body import read_body
from heatpool_aggregator.web.pace import Pace, place_of
from heatpool_aggregator.web.problem import Refused

_BODY_BYTES_LIMIT = 2 * CSR_BYTES_LIMIT
_APPROVAL_POLL_S = 15
# A thousand sites may stand behind one address: ten joins a second are 2 % of a core.
PLACE_BURST_COUNT = 100
_JSON = "application/json"
_STATUS = {
    JoinReason.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    JoinReason.TOO_MANY_WAITING: HTTPStatus.TOO_MANY_REQUESTS,
}


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a newcomer sends; the key stays at the site."""

    token: Annotated[str, msgspec.Meta(pattern=JOIN_PATTERN)]
    csr_pem: Annotated[str, msgspec.Meta(max_length=CSR_BYTES_LIMIT)]
    site_id: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What a newcomer gets; `grpc` is where it sends from now on."""

    site_id: str
    chain_pem: str
    ca_pem: str
    grpc: str
    renew_after_ns: int


class ToWait(msgspec.Struct, frozen=True, kw_only=True):
    """A person has to approve: ask again with the same token and key."""

    site_id: str
    key_sha256: str
    retry_after_s: int


class Join:
    """Serves /v1/join and /v1/ca; without `joining` the CA is elsewhere, and so is joining."""

    def __init__(
        self,
        *,
        access: Access,
        joining: Joining | None,
        ca_pem: str,
        grpc_address: str,
        clock: Clock,
    ) -> None:
        self._access, self._joining, self._clock = access, joining, clock
        self._ca_pem, self._grpc_address = ca_pem, grpc_address
        self._places = Pace(burst_count=PLACE_BURST_COUNT, refill_s=0.1)
        self._tokens = Pace(burst_count=8, refill_s=5)

    async def ca(self, _: web.Request) -> web.Response:
        """The CA's certificate, which a newcomer compares with the hash that it was given."""
        return web.Response(
            text=await self._joining.ca_pem() if self._joining else self._ca_pem,
            content_type="application/x-pem-file",
            headers={"Cache-Control": "no-store"},
        )

    async def join(self, request: web.Request) -> web.Response:
        """A certificate for a site with a token, or 202 while it has to be approved."""
        if self._joining is None:
            raise Refused(
                HTTPStatus.NOT_IMPLEMENTED,
                "this aggregator's certificates come from another CA: get one there, and have the "
                "site taken in by `heatpool-aggregator site add`",
            )
        place = place_of(request.remote)
        await self._hold(request, self._places, place)
        wish = await _wish(request)
        # The whole token, hashed: by its id alone, which is no secret, anybody could lock it. By
        # one token a whole fleet may come.
        of_token = hashlib.sha256(f"{wish.token} {wish.site_id}".encode()).hexdigest()
        await self._hold(request, self._tokens, of_token)
        ask = JoinAsk(
            token=wish.token,
            site_id=SiteId(wish.site_id),
            key_sha256=b"",
            peer=request.remote or "unknown",
        )
        try:
            found = await self._joining.join(ask, wish.csr_pem.encode())
        except JoinRefused as refused:
            detail = f"{refused.reason} as site {wish.site_id}"
            await self._access.tell(request, Reason.JOIN, detail)
            status = _STATUS.get(refused.reason, HTTPStatus.FORBIDDEN)
            raise Refused(status, str(refused)) from refused
        if isinstance(found, Waiting):
            return _to_wait(found)
        # Its use is spent: that bounds them, and a fleet behind one address is not held up.
        self._places.give_back(place)
        return _answer(
            Joined(
                site_id=wish.site_id,
                chain_pem=found.chain_pem,
                ca_pem=found.ca_pem,
                grpc=self._grpc_address,
                renew_after_ns=found.renew_after_ns,
            ),
            HTTPStatus.OK,
        )

    async def _hold(self, request: web.Request, pace: Pace, key: str) -> None:
        if wait_s := pace.wait_s(key, self._clock.boot_ns()):
            await self._access.tell(request, Reason.TOO_OFTEN, "joins")
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS, f"too many joins: wait {wait_s} s", wait_s=wait_s
            )


async def _wish(request: web.Request) -> JoinRequest:
    if request.content_type != _JSON:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"/v1/join takes {_JSON}")
    return wish_of(await read_body(request, bytes_limit=_BODY_BYTES_LIMIT))


def wish_of(body: bytes) -> JoinRequest:
    """The wish in a body.

    Raises:
        Refused: it is none.
    """
    try:
        wish = msgspec.json.decode(body, type=JoinRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # It names field and rule, and never the value: that may be the token.
        raise Refused(HTTPStatus.BAD_REQUEST, f"the body cannot be used: {error}") from error
    if not is_name(wish.site_id):  # the pattern's end lets a line end through
        raise Refused(HTTPStatus.BAD_REQUEST, "the body cannot be used: site_id is no name")
    return wish


def _to_wait(found: Waiting) -> web.Response:
    wait = ToWait(
        site_id=found.site_id,
        key_sha256=found.key_sha256.hex(),
        retry_after_s=_APPROVAL_POLL_S,
    )
    return _answer(wait, HTTPStatus.ACCEPTED, {"Retry-After": str(_APPROVAL_POLL_S)})


def _answer(
    model: msgspec.Struct, status: HTTPStatus, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(model),
        content_type=_JSON,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _described(summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"summary": summary, "responses": responses, **more}


PATHS: dict[str, Any] = {
    "/v1/ca": {
        "get": _described(
            "The CA's certificate.",
            {"200": {"description": "PEM.", "content": {"application/x-pem-file": {}}}},
            operationId="ca",
        )
    },
    "/v1/join": {
        "post": _described(
            "A certificate for a site that has a join token.",
            {
                "200": {"description": "Certificate, CA, where to send.", "content": {_JSON: {}}},
                "202": {"description": "Waits for approval.", "content": {_JSON: {}}},
                "default": {
                    "description": "Why there is none.",
                    "content": {"application/problem+json": {}},
                },
            },
            operationId="join",
            requestBody={"required": True, "content": {_JSON: {}}},
        )
    },
}
