"""Steps of operators' orders on their way into the audit log, beside what is sent and renewed.

A log that takes nothing is told in /readyz; steps wait for it here, as many as there is room for.
"""

import asyncio
import json
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointReport, SetpointState
from heatpool_aggregator.core.audit import AuditEntry, Deed
from heatpool_aggregator.core.orders import Order
from heatpool_aggregator.ports import Audit, Clock

logger = logging.getLogger(__name__)

US = "aggregator"
ACTION = "setpoint."
ROOM_COUNT = 20_000
BATCH_COUNT = 500
AGAIN_S = 1.0
# Orders whose steps are known; what is told again of an older one is written once more.
ORDERS_COUNT = 20_000
# A site that changes its mind without end may not fill the log.
STEPS_MOST = 200
# Entries that are looked through at a start for steps that were written already.
LOOK_BACK_COUNT = 10_000
DETAIL_SIGNS = 200
_HINDERED = frozenset(
    {
        SetpointState.SUPERSEDED,
        SetpointState.EXPIRED,
        SetpointState.REFUSED,
        SetpointState.OVERRIDDEN,
    }
)

Key = tuple[str, int]


class Life:
    """What was told of one order, whatever numbers it went out under."""

    def __init__(self) -> None:
        self._told: set[tuple[str, SetpointState]] = set()
        self._count = 0

    def is_news(self, who: str, state: SetpointState) -> bool:
        """Whether this is no repeat; after a hindrance the order may come to its states anew."""
        step = who, state
        if step in self._told or self._count >= STEPS_MOST:
            return False
        if state in _HINDERED:
            self._told = {one for one in self._told if one[1] in _HINDERED}
        elif state is SetpointState.APPLIED:
            self._told = {one for one in self._told if one[1] not in _HINDERED}
        self._told.add(step)
        self._count += 1
        return True


class OrderTrail:
    """Takes steps at once, and writes them in its own time; `note` hears why it cannot."""

    def __init__(self, *, audit: Audit, clock: Clock, note: Callable[[str], None]) -> None:
        self._audit, self._clock, self._note = audit, clock, note
        self._lives: OrderedDict[Key, Life] = OrderedDict()
        self._waiting: deque[Deed] = deque()
        self._lost_count = 0
        self._is_failing = self._is_in_doubt = False
        self._news = asyncio.Event()

    async def restore(self) -> None:
        """Learns what an earlier process has written, so that it is not written again."""
        try:
            entries = await self._audit.read(LOOK_BACK_COUNT)
        except StoreError as error:
            logger.error("order.trail_unread", extra=facts(reason=str(error)))
            return
        for entry in reversed(entries):
            self._learn(entry)

    def told(self, order: Order, report: SetpointReport, *, who: str) -> None:
        """A step of an order; `who` says so. Never waits."""
        if report.state is SetpointState.RENEWED:
            return
        if not self._life((order.ask.site_id, order.number)).is_news(who, report.state):
            return
        if len(self._waiting) >= ROOM_COUNT:
            self._lost_count += 1
            return
        self._waiting.append(_deed(order, report, who=who, at_ns=self._clock.now_ns()))
        self._news.set()

    async def run(self) -> None:
        """Writes what comes until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()
            if self._waiting:
                await asyncio.sleep(AGAIN_S)
                self._news.set()

    async def flush(self) -> None:
        """Writes all that waits, or as much as the log takes."""
        while self._waiting:
            deeds = list(islice(self._waiting, BATCH_COUNT))
            lost_count, lost = self._lost_count, self._lost()
            try:
                news = await self._unwritten(deeds)
                # What is given up half way may be in the log all the same.
                self._is_in_doubt = True
                await self._audit.append_all([*news, *lost])
            except StoreError as error:
                self._fail(error)
                return
            self._is_in_doubt = False
            for _ in deeds:
                self._waiting.popleft()
            self._lost_count -= lost_count
            self._well()

    async def _unwritten(self, deeds: Sequence[Deed]) -> Sequence[Deed]:
        if not self._is_in_doubt:
            return deeds
        entries = await self._audit.read(2 * BATCH_COUNT)
        there = {(e.at_ns, e.who, e.action, e.detail) for e in entries}
        return [d for d in deeds if (d.at_ns, d.who, d.action, d.detail) not in there]

    def _life(self, key: Key) -> Life:
        life = self._lives.setdefault(key, Life())
        self._lives.move_to_end(key)
        if len(self._lives) > ORDERS_COUNT:
            self._lives.popitem(last=False)
        return life

    def _learn(self, entry: AuditEntry) -> None:
        state = SetpointState.__members__.get(entry.action.removeprefix(ACTION).upper())
        if state is None or not entry.action.startswith(ACTION):
            return
        number = int(json.loads(entry.detail)["number"])
        site_id = SiteId(entry.subject.partition("/")[2])
        self._life((site_id, number)).is_news(entry.who, state)

    def _lost(self) -> Sequence[Deed]:
        if not self._lost_count:
            return ()
        reason = f"{self._lost_count} steps of orders found no room while the audit log failed"
        at_ns = self._clock.now_ns()
        return (Deed(at_ns=at_ns, who=US, action="setpoint.steps_lost", subject=US, reason=reason),)

    def _fail(self, error: StoreError) -> None:
        lost = f"; {self._lost_count} more were lost" if self._lost_count else ""
        self._note(f"{len(self._waiting)} steps of orders wait{lost}: {error}")
        if not self._is_failing:
            logger.error("order.trail_failed", extra=facts(reason=str(error)))
        self._is_failing = True

    def _well(self) -> None:
        if self._is_failing:
            logger.info("order.trail_writes_again")
            self._note("")
        self._is_failing = False


def _deed(order: Order, report: SetpointReport, *, who: str, at_ns: int) -> Deed:
    ask, said = order.ask, report.detail[:DETAIL_SIGNS]
    told = {
        "number": order.number,
        "setpoint_seq": report.setpoint_seq,
        "asked_by": order.asked_by,
        "heat_rate_w": ask.heat_rate_w,
        "applied_heat_rate_w": report.applied_heat_rate_w,
        "event_ns": report.event_ns,
        "dry_run": ask.dry_run,
    }
    return Deed(
        at_ns=at_ns,
        who=who,
        action=f"{ACTION}{report.state.name.lower()}",
        subject=f"site/{ask.site_id}",
        reason=f"{ask.reason}; {said}" if said and said != ask.reason else ask.reason,
        detail=json.dumps(told, separators=(",", ":")),
    )
