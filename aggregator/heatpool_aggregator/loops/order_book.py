"""Orders and the steps of their lives as events of the store: what survives this process.

An order is found again after a restart; it is given again only where its own end lies ahead.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool.setpoint import Setpoint, SetpointReport, SetpointState
from heatpool_aggregator.core.orders import Ask, Commanded, Order, Step, in_order
from heatpool_aggregator.loops.effects import detail_of, setpoint_event
from heatpool_aggregator.ports import Event, Store

logger = logging.getLogger(__name__)

ORDER, ENDED, STEP = "order", "order_end", "setpoint"
# Each site may have one that holds: all of them are taken up at a start, endings too.
RESTORED_LIMIT = 100_000
KEPT_LIMIT = 20_000
# Steps that a setpoint has at most in an ordinary life.
STEPS_COUNT = 12
STEPS_LIMIT = 20_000


# A site says nothing more of these.
_OVER = (SetpointState.EXPIRED, SetpointState.SUPERSEDED, SetpointState.REFUSED)


class Restored(NamedTuple):
    """Orders that still hold, each site's newest; the highest number of each site; and orders that
    hold no more though nobody said so, with the number that they went out under."""

    held: list[Order]
    highest: dict[SiteId, int]
    left: list[tuple[Order, int]]


class Trail(Protocol):
    """Who else hears of the steps of orders."""

    def told(self, order: Order, report: SetpointReport, *, who: str) -> None:
        """A step of an order; `who` says so."""
        ...


class OrderBook:
    """Writes orders and steps, and reads them back."""

    def __init__(self, store: Store, trail: Trail | None = None) -> None:
        self._store, self._trail = store, trail
        self._orders: dict[tuple[SiteId, int], Order] = {}

    def order_of(self, site_id: SiteId, setpoint_seq: int) -> Order | None:
        """The order behind a setpoint; None: it is none of ours, or long past."""
        return self._orders.get((site_id, setpoint_seq))

    async def restore(self, *, now_ns: int) -> Restored:
        """What of earlier processes' orders counts at `now_ns`.

        Raises:
            StoreError: the store does not answer.
        """
        events = await self._store.events.read(ORDER, None, RESTORED_LIMIT)
        endings = await self._store.events.read(ENDED, None, RESTORED_LIMIT)
        ended = {(e.site_id, _number(e)) for e in endings}
        highest: dict[SiteId, int] = {}
        newest: dict[SiteId, Order] = {}
        for event in reversed(events):  # oldest first
            seq, order = _order(event)
            self._keep(order, seq)
            highest[event.site_id] = max(seq, highest.get(event.site_id, 0))
            if not order.ask.dry_run:
                newest[event.site_id] = order
        unended = [one for one in newest.values() if (one.ask.site_id, one.number) not in ended]
        held = [one for one in unended if (one.ask.until_ns or 0) > now_ns]
        return Restored(held, highest, await self._left(events, unended, held))

    async def _left(
        self, events: Iterable[Event], unended: Iterable[Order], held: Sequence[Order]
    ) -> list[tuple[Order, int]]:
        """Of the open orders those that do not hold, as far as the newest steps tell of them."""
        told = await self._store.events.read(STEP, None, STEPS_LIMIT)
        rows = {
            (row.site_id, row.number): row for row in _commanded(list(map(_order, events)), told)
        }
        found = [(one, rows[one.ask.site_id, one.number]) for one in unended if one not in held]
        return [
            (order, row.setpoint_seq)
            for order, row in found
            if row.newest is not None and row.newest.state not in _OVER
        ]

    async def sending(self, order: Order, setpoint_seq: int) -> None:
        """Writes that an order goes out under this number.

        Raises:
            StoreError: it is not written.
        """
        self._keep(order, setpoint_seq)
        await self._store.events.put([_order_event(order, setpoint_seq)])

    def _keep(self, order: Order, setpoint_seq: int) -> None:
        self._orders[order.ask.site_id, setpoint_seq] = order
        while len(self._orders) > KEPT_LIMIT:
            del self._orders[next(iter(self._orders))]

    async def ended(self, order: Order, *, at_ns: int) -> None:
        """Writes that an order is not to be given again.

        Raises:
            StoreError: it is not written.
        """
        event = Event(
            site_id=order.ask.site_id,
            name=ENDED,
            event_ns=at_ns,
            detail=detail_of(number=order.number),
            key=f"{ENDED}/{order.ask.site_id}/{order.number}",
        )
        await self._store.events.put([event])
        await self._store.flush()

    async def flush(self) -> None:
        """Returns when all that was written would survive a power cut."""
        await self._store.flush()

    async def step(self, report: SetpointReport, *, who: str, received_ns: int) -> None:
        """Writes a step of an order with its two times, as `who` tells it; of all else nothing.

        A store that fails loses it, and it is told.
        """
        order = self.order_of(report.site_id, report.setpoint_seq)
        if order is None:
            return
        if self._trail is not None:
            self._trail.told(order, report, who=who)
        wish_w = order.ask.heat_rate_w
        event = setpoint_event(report, wish_w=wish_w, received_ns=received_ns)
        try:
            await self._store.events.put([event])
        except StoreError as error:
            logger.error("order.step_lost", extra=facts(reason=str(error)))

    async def listed(self, site_ids: Sequence[SiteId] | None, limit: int) -> list[Commanded]:
        """Orders with their steps, newest first; of these sites, None: of all.

        Raises:
            StoreError: the store does not answer.
        """
        orders = [_order(event) for event in await self._of(ORDER, site_ids, limit)]
        count = min(limit * STEPS_COUNT, STEPS_LIMIT)
        told = await self._of(STEP, site_ids, count)
        return _commanded(orders, told)[:limit]

    async def _of(self, name: str, site_ids: Sequence[SiteId] | None, limit: int) -> list[Event]:
        if site_ids is None:
            return list(await self._store.events.read(name, None, limit))
        found = [e for one in site_ids for e in await self._store.events.read(name, one, limit)]
        return sorted(found, key=lambda event: event.event_ns, reverse=True)[:limit]


def planned(setpoint: Setpoint, *, state: SetpointState, at_ns: int, detail: str) -> SetpointReport:
    """What we say of a setpoint ourselves: where a site says what it applied, we say the wish.

    One of no plan ends an order: nothing is wished.
    """
    return SetpointReport(
        site_id=setpoint.site_id,
        setpoint_seq=setpoint.setpoint_seq,
        state=state,
        event_ns=at_ns,
        applied_heat_rate_w=setpoint.heat_rate_w if setpoint.plan_id else None,
        detail=detail,
    )


def _commanded(orders: Sequence[tuple[int, Order]], told: Iterable[Event]) -> list[Commanded]:
    """One row per order, whatever numbers it went out under; then those of the settings."""
    number_of = {(o.ask.site_id, seq): o.number for seq, o in orders}
    steps: dict[tuple[SiteId, int], list[Step]] = {}
    wished: dict[tuple[SiteId, int], float | None] = {}
    for event in told:
        fields = json.loads(event.detail)
        seq = int(fields["setpoint_seq"])
        key = event.site_id, number_of.get((event.site_id, seq), seq)
        steps.setdefault(key, []).append(_step(event, fields))
        wished[key] = fields["heat_rate_w"]
    newest: dict[tuple[SiteId, int], tuple[int, Order]] = {}
    for seq, order in orders:
        key = order.ask.site_id, order.number
        if key not in newest or newest[key][0] < seq:
            newest[key] = seq, order
    rows = [
        _row(order, seq, steps.pop((order.ask.site_id, order.number), []))
        for seq, order in newest.values()
    ]
    rows += [
        _settings_row(site_id, seq, found, wished[site_id, seq])
        for (site_id, seq), found in steps.items()
    ]
    return sorted(rows, key=lambda row: row.setpoint_seq, reverse=True)


def _row(order: Order, setpoint_seq: int, steps: Iterable[Step]) -> Commanded:
    ask = order.ask
    return Commanded(
        site_id=ask.site_id,
        loop_id=ask.loop_id,
        setpoint_seq=setpoint_seq,
        heat_rate_w=ask.heat_rate_w,
        lease_s=ask.lease_s,
        asked_by=order.asked_by,
        reason=ask.reason,
        dry_run=ask.dry_run,
        number=order.number,
        steps=in_order(steps),
    )


def _settings_row(
    site_id: SiteId, setpoint_seq: int, steps: Iterable[Step], heat_rate_w: float | None
) -> Commanded:
    """What the settings wish of a site, or, without a heat rate, what ends an order."""
    is_end = heat_rate_w is None
    return Commanded(
        site_id=site_id,
        setpoint_seq=setpoint_seq,
        heat_rate_w=heat_rate_w or 0.0,
        lease_s=0.0,
        asked_by="nobody" if is_end else "settings",
        reason="nothing is asked any more" if is_end else "",
        steps=in_order(steps),
    )


def _step(event: Event, fields: dict[str, Any]) -> Step:
    state = SetpointState[str(fields["state"]).upper()]
    is_ours = state in (SetpointState.PLANNED, SetpointState.SENT)
    return Step(
        state=state,
        event_ns=event.event_ns,
        received_ns=int(fields.get("received_ns", event.event_ns)),
        detail=str(fields.get("detail", "")),
        applied_heat_rate_w=None if is_ours else fields.get("applied_heat_rate_w"),
    )


def _order_event(order: Order, setpoint_seq: int) -> Event:
    ask = order.ask
    return Event(
        site_id=ask.site_id,
        name=ORDER,
        # Numbers rise where clocks may not: the newest is the newest.
        event_ns=setpoint_seq,
        detail=detail_of(
            number=order.number,
            setpoint_seq=setpoint_seq,
            loop_id=ask.loop_id,
            heat_rate_w=ask.heat_rate_w,
            lease_s=ask.lease_s,
            hot_c=ask.hot_c,
            reason=ask.reason,
            dry_run=ask.dry_run,
            until_ns=ask.until_ns,
            asked_by=order.asked_by,
            asked_ns=order.asked_ns,
            upper_w=order.upper_w,
        ),
        key=f"{ORDER}/{ask.site_id}/{setpoint_seq}",
    )


def _order(event: Event) -> tuple[int, Order]:
    fields = json.loads(event.detail)
    ask = Ask(
        site_id=event.site_id,
        loop_id=fields["loop_id"],
        heat_rate_w=fields["heat_rate_w"],
        lease_s=fields["lease_s"],
        hot_c=fields["hot_c"],
        reason=fields["reason"],
        dry_run=fields["dry_run"],
        until_ns=fields["until_ns"],
    )
    order = Order(
        ask=ask,
        number=fields["number"],
        asked_by=fields["asked_by"],
        asked_ns=fields["asked_ns"],
        upper_w=fields["upper_w"],
    )
    return int(fields["setpoint_seq"]), order


def _number(event: Event) -> int:
    return int(json.loads(event.detail)["number"])
