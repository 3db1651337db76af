"""Who may call: recognised at the start of each call, and looked at again while it lasts.

A stream may last for months, so it is ended when its caller is revoked, changes, or runs out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from enum import Enum, auto

import grpc
import grpc.aio

from heatpool.errors import StoreError, WireError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.core.contested import TAKEN_COUNT, TAKEN_NS
from heatpool_aggregator.core.principal import (
    LOCAL,
    Action,
    Principal,
    Role,
    may,
    name_of,
    roles_that_may,
    speaks_for,
)
from heatpool_aggregator.core.turned_away import Reason, TurnedAway
from heatpool_aggregator.identity.certificates import Named
from heatpool_aggregator.ports import Audit, Clock, Identities
from heatpool_aggregator.rpc.calls import CALL, Call, OpenCalls
from heatpool_aggregator.rpc.certificate import Context, certificate_of, host_of
from heatpool_aggregator.rpc.refused import Refused
from heatpool_aggregator.wire.telemetry import SERVICE

logger = logging.getLogger(__name__)

LOOK_S = 1.0
# Looking at every caller again takes no more than a tenth of the time, however often we must.
REST_FOLD = 9
STORE_S = 10.0
LOOK_AGAIN_S = 30.0
AUDIT_S = 5.0
SETTLE_NS = 15 * 10**9  # a little longer than a handshake may take
_SUBJECT_LIMIT = 64
TELEMETRY = f"/{SERVICE}/Stream"


class Anybody(Enum):
    """Needs that no role decides."""

    AT_ALL = auto()
    PROVEN = auto()


Need = Action | Anybody


class Guard:
    """Every door's guard; without a trust domain there is no TLS and every caller is LOCAL."""

    def __init__(
        self,
        *,
        identities: Identities,
        audit: Audit,
        clock: Clock,
        turned_away: TurnedAway,
        trust_domain: str | None,
        members: frozenset[SiteId],
    ) -> None:
        self._identities, self._audit, self._clock = identities, audit, clock
        self._turned_away, self._trust_domain = turned_away, trust_domain
        self._members = members
        self._calls = OpenCalls()
        self._version = -1
        self._epoch = 0
        self._is_blind = False
        self._settled_ns = clock.boot_ns()

    async def principal(self, context: Context) -> Principal:
        """Who calls.

        Raises:
            Refused: nobody whom we know.
        """
        call = CALL.get(None)
        return (await self._recognised(context))[0] if call is None else call.principal

    async def admit(self, context: Context, site_ids: Sequence[SiteId]) -> None:
        """Lets the caller speak for these sites from now on; an older stream of one of them ends.

        Raises:
            Refused: it may not speak for one of them.
        """
        principal = await self.principal(context)
        if strangers := [one for one in site_ids if not self._may_speak(principal, one)]:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                self._stranger(principal, strangers[0]),
                reason=Reason.OTHER_SITE,
            )
        # What has proven nothing may not end what others do.
        if principal.role is Role.SITE:
            call = CALL.get()
            older = self._calls.take_places(call, tuple(site_ids))
            # A site has two streams, that are taken over together.
            if call.method == TELEMETRY:
                for site_id, peer in older.items():
                    self._note_contested(site_id, (peer, call.peer))

    def _note_contested(self, site_id: SiteId, peers: tuple[str, str]) -> None:
        contested, now_ns = self._turned_away.contested, self._clock.boot_ns()
        if contested.take_over(site_id, now_ns):
            why = (
                f"it came {TAKEN_COUNT} times within {TAKEN_NS // 3_600_000_000_000} h while it was"
                " here: a line that breaks often, or two machines with one identity; look which "
                "machines have these addresses, stop one, or revoke the site and enrol it anew"
            )
            logger.warning(
                "rpc.site_contested", extra=facts(site_id=site_id, peers=peers, reason=why)
            )
        self._turned_away.contested_count = contested.count(now_ns)

    async def serve(
        self, context: Context, method: str, need: Need, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Does the work of one call, if the caller may; what goes wrong becomes its status."""
        self._turned_away.meet(context.peer())
        try:
            await self._serve(context, method, need, work)
        except Refused as refused:
            await self.turn_away(context, refused)
        except WireError as error:
            await self.turn_away(context, Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        except (StoreError, TimeoutError) as error:
            text = str(error) or f"a file did not answer within {STORE_S:g} s; ask again"
            await self.turn_away(context, Refused(grpc.StatusCode.UNAVAILABLE, text))
        except grpc.aio.BaseError:
            raise  # the work has set the status itself
        except Exception as error:
            if (gone := _hung_up(error)) is not None:
                raise gone from None
            logger.exception("rpc.broken", extra=facts(method=method))
            text = "a fault of the aggregator; its journal says more"
            await self.turn_away(context, Refused(grpc.StatusCode.INTERNAL, text))

    async def turn_away(self, context: Context, refused: Refused) -> None:
        """Ends the call with this status; counted, and told once per peer and reason."""
        self._turned_away.meet(context.peer())
        if refused.reason is not None:
            await self._tell(context, refused.reason, refused)
        await context.abort(refused.code, refused.detail, refused.trailing)

    async def run(self) -> None:
        """Looks at open calls until cancelled."""
        while self._trust_domain is not None:
            began_ns = self._clock.boot_ns()
            await self.step()
            took_s = (self._clock.boot_ns() - began_ns) / 1e9
            await asyncio.sleep(max(LOOK_S, REST_FOLD * took_s))

    async def step(self) -> None:
        """One look: who ran out, and whether anybody was revoked."""
        self._settle_handshakes()
        now_ns = self._clock.now_ns()
        for call in self._calls.now():
            if call.certificate is not None and call.certificate.expires_ns <= now_ns:
                call.end(_expired(call.certificate))
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                version = await self._identities.version()
                if version != self._version:
                    self._epoch += 1
                    await self._look_again()
                    self._version = version
            self._is_blind = False
        except (StoreError, TimeoutError) as error:
            # Where nothing can be read nothing was revoked: who is in stays in.
            if not self._is_blind:
                logger.exception("rpc.identities_failed", extra=facts(reason=str(error)))
            self._is_blind = True

    def _settle_handshakes(self) -> None:
        now_ns = self._clock.boot_ns()
        if now_ns - self._settled_ns < SETTLE_NS:
            return
        self._settled_ns = now_ns
        self._turned_away.contested_count = self._turned_away.contested.count(now_ns)
        if count := self._turned_away.settle_handshakes():
            logger.warning("rpc.handshakes_failed", extra=facts(count=count))

    async def _serve(
        self, context: Context, method: str, need: Need, work: Callable[[], Awaitable[None]]
    ) -> None:
        if need is Anybody.AT_ALL:
            await work()
            return
        epoch = self._epoch
        principal, certificate = await self._recognised(context)
        call = Call(
            method=method,
            principal=principal,
            certificate=certificate,
            peer=host_of(context),
            task=asyncio.current_task(),
        )
        CALL.set(call)
        if isinstance(need, Action) and not may(principal, need):
            roles = " or ".join(roles_that_may(need))
            text = (
                f"{principal.name} is {principal.role}, which may not {need.replace('_', ' ')} "
                f"({method}): that takes the role {roles}"
            )
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, text, reason=Reason.ROLE)
        self._calls.enter(call)
        try:
            if self._epoch != epoch:  # somebody was revoked while this one was recognised
                await self._check(call)
            await work()
        except asyncio.CancelledError:
            if call.ending is None or call.task is None:
                raise
            call.task.uncancel()
            raise call.ending from None
        finally:
            self._calls.leave(call)

    async def _recognised(self, context: Context) -> tuple[Principal, Named | None]:
        if self._trust_domain is None:
            return LOCAL, None
        certificate = certificate_of(context)
        name = name_of(self._trust_domain, certificate.uri)
        if name is None:
            text = f"the client certificate is not of trust domain {self._trust_domain!r}"
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, text, reason=Reason.UNKNOWN)
        if certificate.expires_ns <= self._clock.now_ns():
            raise _expired(certificate)
        async with asyncio.timeout(STORE_S):
            found = await self._identities.principal_of_cert(certificate.uri, certificate.serial)
        if found is None:
            raise _revoked(name)
        return found, certificate

    async def _look_again(self) -> None:
        for call in self._calls.now():
            await self._check(call)

    async def _check(self, call: Call) -> None:
        """Ends the call if its caller is not who it was."""
        certificate = call.certificate
        if certificate is None:
            return
        found = await self._identities.principal_of_cert(certificate.uri, certificate.serial)
        if found is None:
            call.end(_revoked(call.principal.name))
        elif found != call.principal:
            text = f"revoked: the rights of {call.principal.name} have changed, connect again"
            call.end(Refused(grpc.StatusCode.UNAUTHENTICATED, text, reason=Reason.REVOKED))

    def _may_speak(self, principal: Principal, site_id: SiteId) -> bool:
        if principal == LOCAL:
            return site_id in self._members
        return speaks_for(principal, site_id)

    def _stranger(self, principal: Principal, site_id: SiteId) -> str:
        if principal == LOCAL:
            return (
                f"site {site_id!r} is no member of a virtual source here: add it as "
                "[[virtual_source.member]] to the aggregator's configuration and start it again"
            )
        return f"site {site_id!r} is named, and the certificate is that of {principal.name}"

    async def _tell(self, context: Context, reason: Reason, refused: Refused) -> None:
        call = CALL.get(None)
        peer = host_of(context) if call is None else call.principal.name
        if not self._turned_away.count(peer, reason, boot_ns=self._clock.boot_ns()):
            return
        logger.warning(
            "rpc.refused", extra=facts(peer=peer, reason=str(reason), detail=refused.detail)
        )
        if call is None or refused.code is not grpc.StatusCode.PERMISSION_DENIED:
            return
        try:
            async with asyncio.timeout(AUDIT_S):
                await self._audit.append(
                    who=peer,
                    action=f"refused.{reason}",
                    subject=call.method.rpartition(".")[2][:_SUBJECT_LIMIT],
                    reason=refused.detail,
                    at_ns=self._clock.now_ns(),
                )
        except (StoreError, TimeoutError) as error:
            logger.error("rpc.audit_failed", extra=facts(reason=str(error)))


def _hung_up(error: BaseException) -> BaseException | None:
    """What gRPC says when the other end went while tasks of the call wrote; None: all else."""
    while isinstance(error, BaseExceptionGroup):
        if error.split(grpc.aio.BaseError)[1] is not None:
            return None
        error = error.exceptions[0]
    return error if isinstance(error, grpc.aio.BaseError) else None


def _revoked(name: str) -> Refused:
    text = f"revoked: {name} is not enrolled here, or not any more; enrol it again"
    return Refused(grpc.StatusCode.UNAUTHENTICATED, text, reason=Reason.REVOKED)


def _expired(certificate: Named) -> Refused:
    until = datetime.fromtimestamp(certificate.expires_ns // 10**9, UTC).isoformat()
    text = f"expired: the certificate of {certificate.uri} ended at {until}; renew it, or enrol"
    return Refused(grpc.StatusCode.UNAUTHENTICATED, text, reason=Reason.EXPIRED)
