"""When periods are settled: registers of the store -> ledger, statement and balance.

How far it is stands in the ledger itself, so a restart goes on where it stood and posts nothing
twice. Registers that come late restate their periods; what a wake-up does is bounded.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

from heatpool.errors import StoreError
from heatpool.period import Period, align_down_ns, align_up_ns
from heatpool.process.journal import facts
from heatpool.sample import MeteringPointId, RegisterRow, SiteId
from heatpool.units import NS_PER_S
from heatpool_aggregator.board import BalanceView, Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.agreement import memberships
from heatpool_aggregator.core.closed import as_posted, left_over
from heatpool_aggregator.core.settlement import (
    LedgerEntry,
    PeriodBalance,
    PointSeries,
    Settled,
    Statement,
    is_continuous,
    posted_wh,
    reconcile,
    settle_all,
    standing_lines,
    statement,
    worst_balance,
)
from heatpool_aggregator.loops.returning import Returning
from heatpool_aggregator.ports import Clock, Store

logger = logging.getLogger(__name__)

WAKE_S = 1.0
QUIET_S = 0.5  # posts on the board come many a second; registers do not
STORE_S = 30.0  # a store that is silent for longer is treated as failed, and asked again

# Register rows that a wake-up may spend, about 6 us each: closing may take a second after a long
# absence, with waits between the points; looking again at closed periods 2 % of a core.
CLOSE_ROWS = 100_000
AGAIN_ROWS = 3_000
POINT_ROWS = 20  # what asking for one point costs besides its rows

# Closed periods that are looked at again for late registers: a month of quarters, past lock day 10.
HORIZON = 3000
NEAR = 32  # most late registers concern the newest ones, so these take every second turn
TURN_WAKES = 5  # nothing waits for a turn: what is known to be late is looked at without it

_DAY_NS = 86_400 * NS_PER_S  # the longest period that settings allow
T = TypeVar("T")


class Planner:
    """Closes each period on the grid after its grace, and restates what late registers change."""

    def __init__(
        self,
        config: Config,
        store: Store,
        board: Board,
        clock: Clock,
        *,
        is_clock_suspect: Callable[[], bool] = bool,
    ) -> None:
        self._is_clock_suspect = is_clock_suspect
        self._store, self._board, self._clock = store, board, clock
        self._members = memberships(config.virtual_source)
        self._period_s = config.settlement.period_s
        self._period_ns = self._period_s * NS_PER_S
        self._returning = Returning(config.settlement, self._members, clock, self._series)
        self._points: list[tuple[SiteId, MeteringPointId]] = []
        self._first_ns: int | None = None
        self._closed_ns: int | None = None
        self._floor_ns = 0  # before it the ledger has another grid: left alone
        self._again: dict[int, None] = {}  # starts of periods to look at again, in order
        self._missing: dict[int, None] = {}  # starts of periods that wait for a register
        self._sold_wh: dict[int, int] = {}  # running sums of the virtual sources, by period
        self._balances: dict[int, PeriodBalance] = {}
        self._old_count, self._old_worst = 0, list[PeriodBalance]()
        self._wakes, self._turned_wake, self._turn, self._served = 0, 0, 1, 0
        self._rows_left = 0
        self._credit_rows = 0  # may go below 0: the next wake-ups then do without
        self._statement: Statement | None = None

    async def run(self) -> None:
        """Settles until cancelled; a store that fails is asked again at the next wake-up."""
        is_failing = False
        self._returning.watch()
        while True:
            try:
                await self.step()
            except StoreError as error:
                if not is_failing:
                    logger.warning("planner.store_failed", extra=facts(reason=str(error)))
                is_failing = True
                self._board.note_disk("accounts", str(error))
            else:
                if is_failing:
                    logger.warning("planner.store_back", extra=facts())
                    self._board.note_disk("accounts", "")
                is_failing = False
            await self._sleep()

    async def step(self) -> None:
        """One wake-up: closes what is due, looks again at some closed periods, publishes.

        Raises:
            StoreError: nothing is lost; the next wake-up does it again.
        """
        if self._is_clock_suspect():
            return  # what is due by it may be hours away
        await self._look()
        if self._first_ns is None:
            return
        if self._closed_ns is None:
            self._closed_ns = await self._resume(self._first_ns)
        if self._returning.is_back:
            await self._returning.begin(self._points, self._closed_ns)
        await self._close(self._closed_ns)
        await self._look_again()
        await self._publish()

    async def settle_period(self, period: Period) -> Statement:
        """The accounts of the period, after posting what its registers say by now."""
        settled = await self._settled(period)
        around = await self._entries(period.start_ns - self._period_ns, period.end_ns)
        around += await self._entries(period.end_ns, period.end_ns + self._period_ns)
        span = (period.start_ns, period.end_ns)
        existing = [entry for entry in around if (entry.start_ns, entry.end_ns) == span]
        settled = self._as_posted(settled, existing, period)
        entries = reconcile(existing, settled.lines, period=period, posted_ns=self._clock.now_ns())
        before_wh = self._sold_wh.get(period.start_ns, posted_wh(existing))
        if entries:
            await self._ask(self._store.ledger.post, entries)
            existing = await self._entries(period.start_ns, period.end_ns)
        found = statement(existing, period=period, missing=settled.missing)
        self._sold_wh[period.start_ns] = before_wh + posted_wh(entries)
        self._weigh(found, settled.registers_wh)
        self._remember(found)
        # Two periods on the sides of a reset never fit: they must not call each other for ever.
        if entries:
            self._mark_around(found, around)
        return found

    def _as_posted(
        self, settled: Settled, existing: Sequence[LedgerEntry], period: Period
    ) -> Settled:
        """Settings rule what comes: what is closed keeps its terms and members."""
        standing = standing_lines(existing)
        if not standing:
            return settled
        gone = left_over(standing, self._members, period)
        lines = as_posted(settled.lines, standing, members=self._members, period=period)
        gone_wh = sum(line.energy_wh for line in gone)
        return replace(settled, lines=(*lines, *gone), registers_wh=settled.registers_wh + gone_wh)

    async def _look(self) -> None:
        """Metering points of members, and the period of the first register not too old."""
        known = set(self._points)
        sites = {member.site_id for member in self._members}
        # A clock that stood in 1970 must not have every period since then closed.
        oldest_ns = self._begin_ns()
        for site_id, point_id in await self._ask(self._store.registers.points):
            if (site_id, point_id) in known or site_id not in sites:
                continue
            found = await self._ask(
                self._store.registers.series, site_id, point_id, oldest_ns, oldest_ns + 1
            )
            recent = [row.event_ns for row in found if row.event_ns >= oldest_ns]
            if recent:
                first_ns = align_down_ns(min(recent), self._period_s)
                self._first_ns = min(first_ns, self._first_ns or first_ns)
            if recent or self._closed_ns is not None:
                self._points.append((site_id, point_id))

    def _begin_ns(self) -> int:
        now_ns = align_down_ns(self._clock.now_ns(), self._period_s)
        return max(self._floor_ns, now_ns - HORIZON * self._period_ns)

    def _reach_back(self, rows: Sequence[RegisterRow]) -> None:
        """A register that came late from before the first period opens the periods after it."""
        if self._closed_ns is None or self._first_ns is None or not rows:
            return
        start_ns = align_down_ns(rows[0].event_ns, self._period_s)
        if self._begin_ns() <= start_ns < self._first_ns:
            self._again |= dict.fromkeys(range(start_ns, self._first_ns, self._period_ns))
            self._first_ns = start_ns

    async def _resume(self, first_ns: int) -> int:
        """How far the ledger is; all that it holds is weighed again in the next wake-ups."""
        newest_ns = await self._newest_ns()
        closed_ns = first_ns if newest_ns is None else newest_ns
        self._first_ns = first_ns = min(first_ns, closed_ns)
        self._floor_ns = await self._other_grid_ns(closed_ns)
        await self._returning.begin(self._points, closed_ns)
        oldest_ns = self._oldest_ns(first_ns, closed_ns)
        self._again = dict.fromkeys(range(oldest_ns, closed_ns, self._period_ns))
        if self._again:
            self._statement = await self.settle_period(self._period(closed_ns - self._period_ns))
        return closed_ns

    def _oldest_ns(self, first_ns: int, closed_ns: int) -> int:
        return max(first_ns, self._floor_ns, closed_ns - HORIZON * self._period_ns)

    async def _newest_ns(self) -> int | None:
        """End of the newest period in the ledger; None if it is empty."""
        high_ns, width_ns = self._clock.now_ns() + _DAY_NS, 2 * _DAY_NS
        while high_ns > 0:
            # Windows overlap by a day, so that no period lies across an edge.
            if entries := await self._entries(high_ns - width_ns, high_ns):
                return max(entry.end_ns for entry in entries)
            high_ns -= width_ns - _DAY_NS
            width_ns *= 2
        return None

    async def _other_grid_ns(self, closed_ns: int) -> int:
        """End of the newest period in the ledger that has another length; 0 if there is none."""
        low_ns, high_ns = closed_ns - HORIZON * self._period_ns, closed_ns
        while high_ns > low_ns:
            entries = await self._entries(high_ns - 2 * _DAY_NS, high_ns)
            odd = [e.end_ns for e in entries if e.end_ns - e.start_ns != self._period_ns]
            if odd:
                return max(odd)
            high_ns -= _DAY_NS
        return 0

    async def _close(self, closed_ns: int) -> None:
        self._rows_left = CLOSE_ROWS
        while self._rows_left > 0:
            # After a change of the grid the first period is shorter: no time is left out.
            end_ns = align_up_ns(closed_ns + 1, self._period_s)
            period = Period(start_ns=closed_ns, end_ns=end_ns)
            # Asked last: it sees a step of the clock that the answer before may stand on.
            if not await self._returning.is_due(period) or self._is_clock_suspect():
                break
            if end_ns - closed_ns != self._period_ns:
                self._floor_ns = end_ns
            self._statement = await self.settle_period(period)
            self._closed_ns = closed_ns = end_ns
            logger.info(
                "planner.period_closed",
                extra=facts(
                    start_ns=period.start_ns,
                    lines_count=len(self._statement.lines),
                    missing_count=len(self._statement.missing),
                ),
            )

    async def _look_again(self) -> None:
        """Settles closed periods anew: broken ones, waiting ones, one in turn, while rows last."""
        self._wakes += 1
        self._credit_rows = min(AGAIN_ROWS, self._credit_rows + AGAIN_ROWS)
        is_served = False
        queues = [list(self._again), self._in_turn(), list(self._missing)]
        first = self._served % len(queues)  # each of the three goes first in a third of the cases
        for start_ns in dict.fromkeys(chain(*queues[first:], *queues[:first])):
            if self._credit_rows <= 0:
                break
            self._rows_left = 0
            if start_ns >= self._floor_ns:
                await self.settle_period(self._period(start_ns))
            self._again.pop(start_ns, None)
            self._credit_rows += self._rows_left
            if [start_ns] == queues[1]:
                self._turn, self._turned_wake = self._turn + 1, self._wakes
            if start_ns in self._missing:  # to the end: each has its turn
                del self._missing[start_ns]
                self._missing[start_ns] = None
            is_served = True
        self._served += is_served

    def _in_turn(self) -> list[int]:
        """The closed period whose turn it is, if any; the newest ones come round more often."""
        closed_ns, first_ns = self._closed_ns, self._first_ns
        if closed_ns is None or first_ns is None or self._wakes - self._turned_wake < TURN_WAKES:
            return []
        oldest_ns = self._oldest_ns(first_ns, closed_ns)
        closed_count = (closed_ns - oldest_ns) // self._period_ns
        if closed_count <= 0:
            return []
        reach = min(NEAR, closed_count) if self._turn % 2 else closed_count
        return [closed_ns - (self._turn // 2 % reach + 1) * self._period_ns]

    def _weigh(self, found: Statement, registers_wh: int) -> None:
        """Keeps the three counts of a period; one without lines before all others is none."""
        first_ns = found.start_ns if self._first_ns is None else self._first_ns
        if found.lines:
            self._first_ns = first_ns = min(first_ns, found.start_ns)
        if found.start_ns < first_ns:
            return
        self._balances[found.start_ns] = PeriodBalance(
            start_ns=found.start_ns,
            end_ns=found.end_ns,
            registers_wh=registers_wh,
            sources_wh=self._sold_wh[found.start_ns],
            lines_wh=sum(line.energy_wh for line in found.lines),
        )

    def _remember(self, found: Statement) -> None:
        """Keeps whether the period waits for registers, and trims what is too old."""
        if found.missing:
            self._missing[found.start_ns] = None
        else:
            self._missing.pop(found.start_ns, None)
        if self._statement is not None and self._statement.start_ns == found.start_ns:
            self._statement = found
        self._trim()

    def _mark_around(self, found: Statement, around: Sequence[LedgerEntry]) -> None:
        """Marks the neighbours that do not fit what was posted for this period."""
        before = standing_lines(e for e in around if e.end_ns == found.start_ns)
        after = standing_lines(e for e in around if e.start_ns == found.end_ns)
        if found.start_ns > self._floor_ns and not is_continuous(before, found.lines):
            self._mark(found.start_ns - self._period_ns)
        if not is_continuous(found.lines, after):
            self._mark(found.end_ns)

    def _mark(self, start_ns: int) -> None:
        is_closed = self._closed_ns is not None and start_ns < self._closed_ns
        if is_closed and start_ns >= max(self._floor_ns, self._first_ns or 0):
            self._again[start_ns] = None

    def _trim(self) -> None:
        """Keeps memory bounded: of periods past the horizon only their number and the worst."""
        while len(self._balances) > HORIZON:
            oldest_ns = min(self._balances)
            self._old_count += 1
            old = worst_balance([*self._old_worst, self._balances.pop(oldest_ns)])
            self._old_worst = [] if old is None else [old]
            self._sold_wh.pop(oldest_ns, None)
            self._missing.pop(oldest_ns, None)

    async def _publish(self) -> None:
        """Posts what has changed, when it is on disk."""
        worst = worst_balance([*self._old_worst, *self._balances.values()])
        view = BalanceView(
            periods_count=self._old_count + len(self._balances),
            balance_error_wh=0 if worst is None else worst.error_wh,
            worst=worst,
        )
        if (view, self._statement) == (self._board.balance, self._board.statement):
            return
        await self._ask(self._store.flush)
        if self._statement is not None:
            self._board.post(statement=self._statement, balance=view)

    def _period(self, start_ns: int) -> Period:
        return Period(start_ns=start_ns, end_ns=start_ns + self._period_ns)

    async def _settled(self, period: Period) -> Settled:
        """What the registers say, one point after the other: others may work between two."""
        parts = []
        for site_id, point_id in self._points:
            rows = await self._series(site_id, point_id, period.start_ns, period.end_ns)
            series = PointSeries(site_id=site_id, point_id=point_id, rows=rows)
            parts.append(settle_all([series], period, self._members))
            self._reach_back(rows)
        return Settled(
            lines=tuple(line for part in parts for line in part.lines),
            missing=tuple(entry for part in parts for entry in part.missing),
            registers_wh=sum(part.registers_wh for part in parts),
        )

    async def _series(
        self, site_id: SiteId, point_id: MeteringPointId, start_ns: int, end_ns: int
    ) -> Sequence[RegisterRow]:
        self._rows_left -= POINT_ROWS
        rows = await self._ask(self._store.registers.series, site_id, point_id, start_ns, end_ns)
        self._rows_left -= len(rows)
        return rows

    async def _entries(self, start_ns: int, end_ns: int) -> list[LedgerEntry]:
        return list(await self._ask(self._store.ledger.read, start_ns, end_ns))

    async def _ask(self, call: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """What the store answers, or StoreError if it is silent."""
        try:
            async with asyncio.timeout(STORE_S):
                return await call(*args)
        except TimeoutError as error:
            raise StoreError(f"store: no answer within {STORE_S:g} s; it is asked again") from error
        finally:
            self._returning.note()

    async def _sleep(self) -> None:
        await asyncio.sleep(QUIET_S)
        self._returning.note()
        try:
            async with asyncio.timeout(WAKE_S - QUIET_S):
                await self._board.changed()
        except TimeoutError:
            return
