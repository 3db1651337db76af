"""The query service: state of sites and virtual sources from the board, the rest from the store."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import grpc
import grpc.aio

from heatpool.errors import HeatpoolError, StoreError, WireError
from heatpool.period import Period, period_containing
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.board import Board, SiteView, SourceView
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.agreement import memberships
from heatpool_aggregator.core.instant import utc
from heatpool_aggregator.core.settlement import PointSeries, Statement, settle_all, statement
from heatpool_aggregator.core.shown_sums import whole_sources
from heatpool_aggregator.ports import Event, Store
from heatpool_aggregator.rpc.tenants import Tenants, unknown_site
from heatpool_aggregator.wire import query as wire

logger = logging.getLogger(__name__)

WATCH_S = 1.0  # a person or a planner's screen needs no more than one look a second
STORE_S = 10.0  # less than the minute that clients wait, so that they get a reason
GAPS_LIMIT = 1000  # about 100 kB: fits a message of the default 4 MB many times
GAP_EVENT = "gap"

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")
Q = TypeVar("Q")


class Query:
    """Answers of the query service, as bytes; each caller hears of its own sites alone.

    A sum it hears where it sees all that is in it: less one's own part it is the neighbour's.
    """

    def __init__(self, board: Board, store: Store, config: Config, tenants: Tenants) -> None:
        self._board, self._store, self._tenants = board, store, tenants
        self._configured = config.virtual_source
        self._members = memberships(config.virtual_source)
        self._period_s = config.settlement.period_s

    async def sites(self, _: bytes, context: Context) -> bytes:
        """State of every site."""
        return wire.sites_to_bytes(await self._seen_sites(context))

    async def sources(self, _: bytes, context: Context) -> bytes:
        """State of every virtual source."""
        return wire.sources_to_bytes(await self._seen_sources(context))

    async def watch(self, _: bytes, context: Context) -> AsyncIterator[bytes]:
        """State of the virtual sources each time it changes, at most once a second."""
        shown = None
        while True:
            if shown != (now := self._board.sources):
                shown = now
                yield wire.sources_to_bytes(await self._seen_sources(context))
                await asyncio.sleep(WATCH_S)
            if shown == self._board.sources:
                await self._board.changed()

    async def statement(self, request: bytes, context: Context) -> bytes:
        """Statement of the period around an instant, or of the last closed one."""
        last = self._board.statement
        at_ns = wire.statement_request_from_bytes(request)
        if at_ns is None or last is None:
            if at_ns is not None:
                await _not_found(context, "no settlement period was closed yet")
            return wire.statement_to_bytes(last and await self._seen_part(context, last))
        if at_ns >= last.end_ns:
            detail = f"the period around {utc(at_ns)} is not closed; the last one ends at"
            await _not_found(context, f"{detail} {utc(last.end_ns)}")
        found = await self._statement_at(at_ns)
        if not (found.lines or found.missing):
            detail = f"the period around {utc(at_ns)} has no metered member; nothing was settled"
            await _not_found(context, detail)
        return wire.statement_to_bytes(await self._seen_part(context, found))

    async def gaps(self, request: bytes, context: Context) -> bytes:
        """What is missing and why, of one site or of all."""
        site_id = SiteId(wire.gaps_request_from_bytes(request))
        known = [view.site_id for view in self._board.sites]
        if site_id and site_id not in known:
            await _not_found(context, unknown_site(site_id))
        if site_id:
            await self._tenants.check(context, site_id)
        # The store knows sites that the board does not know yet: those on it are not all.
        is_plain = bool(site_id) or await self._tenants.sees_all(context)
        seen = await self._tenants.seen(context, known)
        async with asyncio.timeout(STORE_S):
            if is_plain:
                events = await self._store.events.read(GAP_EVENT, site_id or None, GAPS_LIMIT)
            else:
                events = await self._events_of(sorted(seen))
        return wire.gaps_to_bytes(gap_view(event) for event in events)

    async def _events_of(self, site_ids: Sequence[SiteId]) -> Sequence[Event]:
        """The newest of these sites, asked one by one: others' must not push them out."""
        read = self._store.events.read
        found = [event for one in site_ids for event in await read(GAP_EVENT, one, GAPS_LIMIT)]
        return sorted(found, key=lambda event: event.event_ns, reverse=True)[:GAPS_LIMIT]

    async def _seen_sites(self, context: Context) -> Sequence[SiteView]:
        views = self._board.sites
        seen = await self._tenants.seen(context, [view.site_id for view in views])
        return views if len(seen) == len(views) else [v for v in views if v.site_id in seen]

    async def _seen_sources(self, context: Context) -> Sequence[SourceView]:
        views = self._board.sources
        if await self._tenants.sees_all(context):
            return views
        seen = await self._tenants.seen(context, {member.site_id for member in self._members})
        whole = whole_sources(self._configured, seen.__contains__)
        return [view for view in views if view.virtual_source_id in whole]

    async def _seen_part(self, context: Context, whole: Statement) -> Statement:
        named = {line.site_id for line in whole.lines} | {site_id for site_id, _ in whole.missing}
        seen = await self._tenants.seen(context, named)
        return replace(
            whole,
            lines=tuple(line for line in whole.lines if line.site_id in seen),
            missing=tuple(entry for entry in whole.missing if entry[0] in seen),
        )

    async def _statement_at(self, at_ns: int) -> Statement:
        async with asyncio.timeout(STORE_S):
            grid = period_containing(at_ns, self._period_s)
            near = await self._store.ledger.read(grid.start_ns, grid.end_ns)
            # A period of an earlier grid may lie inside today's one: show the one that was meant.
            spans = [(e.start_ns, e.end_ns) for e in near if e.start_ns <= at_ns < e.end_ns]
            start_ns, end_ns = spans[0] if spans else (grid.start_ns, grid.end_ns)
            period = Period(start_ns=start_ns, end_ns=end_ns)
            return statement(near, period=period, missing=await self._missing(period))

    async def _missing(self, period: Period) -> list[tuple[SiteId, str]]:
        sites = {member.site_id for member in self._members}
        missing: list[tuple[SiteId, str]] = []
        for site_id, point_id in await self._store.registers.points():
            if site_id not in sites:
                continue
            rows = await self._store.registers.series(
                site_id, point_id, period.start_ns, period.end_ns
            )
            series = PointSeries(site_id=site_id, point_id=point_id, rows=rows)
            missing += settle_all([series], period, self._members).missing
        return missing


def add_to(server: grpc.aio.Server, query: Query) -> None:
    """Serves the query service on the server."""
    unary = {
        "ListSiteStatus": query.sites,
        "ListSourceStatus": query.sources,
        "GetStatement": query.statement,
        "ListGaps": query.gaps,
    }
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(_answering(answer))
        for name, answer in unary.items()
    }
    handlers["WatchSourceStatus"] = grpc.unary_stream_rpc_method_handler(query.watch)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))


def gap_view(event: Event) -> wire.GapView:
    """A gap as the event tells it: facts as JSON in its detail, or words, which are the reason."""
    told: dict[str, Any] = {"reason": event.detail}
    try:
        found = json.loads(event.detail)
    except ValueError:
        found = None
    if isinstance(found, dict):
        told = found
    return wire.GapView(
        site_id=event.site_id,
        boot_id=str(told.get("boot_id", "")),
        first_seq=int(told.get("first_seq", 0)),
        last_seq=int(told.get("last_seq", 0)),
        start_ns=told.get("start_ns", event.event_ns),
        end_ns=told.get("end_ns"),
        reason=str(told.get("reason", "")),
    )


def _answering(
    answer: Callable[[Q, Context], Awaitable[T]],
) -> Callable[[Q, Context], Awaitable[T]]:
    """The same answer; what it expects to fail becomes a status with its reason."""

    @wraps(answer)
    async def guarded(request: Q, context: Context) -> T:
        try:
            return await answer(request, context)
        except WireError:
            raise  # the guard's: it counts them
        except (StoreError, TimeoutError) as error:
            logger.warning("query.store_failed", extra=facts(reason=str(error)))
            detail = str(error) or f"the store did not answer within {STORE_S:g} s; ask again"
            await context.abort(grpc.StatusCode.UNAVAILABLE, detail)
        except HeatpoolError as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        raise AssertionError("query: abort always raises")

    return guarded


async def _not_found(context: Context, detail: str) -> None:
    await context.abort(grpc.StatusCode.NOT_FOUND, detail)
