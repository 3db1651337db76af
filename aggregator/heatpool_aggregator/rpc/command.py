"""The command service: an order goes into the audit log first, and out to the site then."""

import json
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.board import Board, SiteView
from heatpool_aggregator.core.orders import (
    Commanded,
    Order,
    ask_mistake,
    reason_mistake,
    site_mistake,
)
from heatpool_aggregator.ports import Audit, Clock
from heatpool_aggregator.rpc.refused import Refused
from heatpool_aggregator.rpc.tenants import Tenants, unknown_site
from heatpool_aggregator.wire import command as wire

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class Orders(Protocol):
    """Where orders go to."""

    def next_seq(self, site_id: SiteId) -> int:
        """A number above all that this site ever had."""
        ...

    async def order(self, order: Order) -> None:
        """Gives an order."""
        ...

    def order_of(self, site_id: SiteId) -> Order | None:
        """The order that holds for a site."""
        ...

    async def end(self, site_id: SiteId, *, why: str) -> Order | None:
        """Takes the order back; what it was."""
        ...


class Book(Protocol):
    """Where orders are kept with the steps of their lives."""

    async def listed(self, site_ids: Sequence[SiteId] | None, limit: int) -> list[Commanded]:
        """Newest first; of these sites, None: of all."""
        ...


class Command:
    """Answers of the command service, as bytes; each caller orders its own sites alone."""

    def __init__(
        self,
        *,
        orders: Orders,
        book: Book,
        board: Board,
        audit: Audit,
        clock: Clock,
        tenants: Tenants,
    ) -> None:
        self._orders, self._book, self._board = orders, book, board
        self._audit, self._clock, self._tenants = audit, clock, tenants

    async def set(self, request: bytes, context: Context) -> bytes:
        """Gives an order.

        Raises:
            Refused: it cannot be given.
            StoreError: it could not be written down, and was not given.
        """
        ask = wire.ask_from_bytes(request)
        site = await self._site(context, ask.site_id)
        _check(ask_mistake(ask, now_ns=self._clock.now_ns()))
        await self._tenants.check_hears(context, ask.site_id)
        mistake = site_mistake(
            ask, rejection_capacity_w=site.rejection_capacity_w, loop_ids=site.loop_ids
        )
        if mistake:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, mistake)
        order = Order(
            ask=ask,
            number=self._orders.next_seq(ask.site_id),
            asked_by=(await self._tenants.principal(context)).name,
            asked_ns=self._clock.now_ns(),
            upper_w=site.rejection_capacity_w,
        )
        await self._written("setpoint.set", order, ask.reason)
        await self._orders.order(order)
        logger.info("order.given", extra=facts(who=order.asked_by, **_told(order)))
        return wire.set_to_bytes(await self._row(order))

    async def end(self, request: bytes, context: Context) -> bytes:
        """Takes an order back.

        Raises:
            Refused: it cannot be taken back by this caller.
            StoreError: it could not be written down, and stands.
        """
        site_id, reason = wire.end_from_bytes(request)
        await self._site(context, site_id)
        _check(reason_mistake(reason))
        order = self._orders.order_of(site_id)
        if order is None:
            return wire.ended_to_bytes(None)
        who = (await self._tenants.principal(context)).name
        await self._written("setpoint.end", order, reason, who=who)
        await self._orders.end(site_id, why=f"ended by {who}: {reason}")
        logger.info("order.ended", extra=facts(who=who, site=site_id, reason=reason))
        return wire.ended_to_bytes(await self._row(order))

    async def list(self, request: bytes, context: Context) -> bytes:
        """Orders with the steps of their lives, of one site or of all that the caller sees."""
        site_id, limit = wire.list_from_bytes(request)
        if site_id:
            await self._site(context, site_id)
            return wire.listed_to_bytes(await self._book.listed([site_id], limit))
        site_ids = None
        # The book knows sites that the board does not know yet: those on it are not all.
        if not await self._tenants.sees_all(context):
            known = [view.site_id for view in self._board.sites]
            site_ids = sorted(await self._tenants.seen(context, known))
        return wire.listed_to_bytes(await self._book.listed(site_ids, limit))

    async def audit(self, request: bytes, context: Context) -> bytes:
        """Entries of the audit log, newest first; of all sites, so for who sees them all."""
        limit, before_number = wire.audit_from_bytes(request)
        if not await self._tenants.sees_all(context):
            text = "the audit log tells of all tenants: it is not shown to one of them"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, text)
        return wire.entries_to_bytes(await self._audit.read(limit, before_number))

    async def _site(self, context: Context, site_id: SiteId) -> SiteView:
        """The site, if there is one that the caller may order."""
        found = [view for view in self._board.sites if view.site_id == site_id]
        if not found:
            raise Refused(grpc.StatusCode.NOT_FOUND, unknown_site(site_id))
        await self._tenants.check(context, site_id)
        return found[0]

    async def _written(self, action: str, order: Order, reason: str, *, who: str = "") -> None:
        await self._audit.append(
            who=who or order.asked_by,
            action=action,
            subject=f"site/{order.ask.site_id}",
            reason=reason,
            detail=json.dumps(_told(order), separators=(",", ":")),
            at_ns=self._clock.now_ns(),
        )

    async def _row(self, order: Order) -> Commanded:
        rows = await self._book.listed([order.ask.site_id], wire.LIMIT_DEFAULT)
        found = [row for row in rows if row.number == order.number]
        if not found:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "given, but not found in the store yet")
        return found[0]


def add_to(server: grpc.aio.Server, command: Command) -> None:
    """Serves the command service on the server."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "SetSetpoint": grpc.unary_unary_rpc_method_handler(command.set),
        "EndSetpoint": grpc.unary_unary_rpc_method_handler(command.end),
        "ListSetpoints": grpc.unary_unary_rpc_method_handler(command.list),
        "ListAudit": grpc.unary_unary_rpc_method_handler(command.audit),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))


def _check(mistake: str) -> None:
    if mistake:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, mistake)


def _told(order: Order) -> dict[str, object]:
    """What the audit log says of an order beside who and why."""
    ask = order.ask
    return {
        "setpoint_seq": order.number,
        "site_id": ask.site_id,
        "loop_id": ask.loop_id,
        "heat_rate_w": ask.heat_rate_w,
        "lease_s": ask.lease_s,
        "hot_c": ask.hot_c,
        "until_ns": ask.until_ns,
        "dry_run": ask.dry_run,
    }
