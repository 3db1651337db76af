"""When setpoints go down: at once to a site that listens, and a heartbeat while they are wanted.

Nothing is queued for a site that is away beyond its lease. Each opening of a stream brings a fresh
setpoint of what is wished then; so does a lease that ran out at the site. Numbers rise per site,
over restarts and where the clock was set back.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, replace

from heatpool.errors import StoreError, WireError
from heatpool.process.journal import facts
from heatpool.sample import BootId, SiteId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport, SetpointState
from heatpool_aggregator.core.arbitration import Standing, Wish, decides, upper_w
from heatpool_aggregator.core.orders import Order
from heatpool_aggregator.loops.control_session import ControlSession
from heatpool_aggregator.loops.order_book import OrderBook, planned
from heatpool_aggregator.loops.order_trail import US
from heatpool_aggregator.ports import Clock, Frame, FrameKind
from heatpool_aggregator.wire.control import report_to_bytes

logger = logging.getLogger(__name__)

HEARTBEAT_MAX_S = 30.0
LEASE_SHARE = 3  # two heartbeats may be lost before a lease runs out
TICK_S = 0.25  # a lease of one second must be renewed three times within it
# A site obeys after two heartbeats: its first ones come soon, and apart.
WARM_UP_S = 1.0
WARM_UP_COUNT = 2
# A site says itself that a lease ran out, unless it cannot.
SILENCE_S = 10.0
_NS = 1_000_000_000
_OURS = (SetpointState.PLANNED, SetpointState.SENT)
_ENDINGS = (SetpointState.EXPIRED, SetpointState.SUPERSEDED)

Record = Callable[[Frame], Coroutine[None, None, bool]]


@dataclass(slots=True)
class _Line:
    """One site: the setpoint that it was sent last, how long it may hold, what is due to it."""

    last_seq: int = 0
    setpoint: Setpoint | None = None
    # Whether it may still hold, and whether it ever went down; False once it is over.
    is_held: bool = False
    is_sent: bool = False
    is_lapsed: bool = False
    lease_ends_boot_ns: int = 0
    due_boot_ns: int = 0
    beats_count: int = 0


class Control:
    """Fans out what is decided for each site, and records what became of it in the log.

    `last_seq` is the highest number that a site was known to have had, before this process.
    """

    def __init__(
        self,
        *,
        standing: Iterable[Standing],
        clock: Clock,
        record: Record,
        book: OrderBook,
        last_seq: Callable[[SiteId], int] = lambda _: 0,
    ) -> None:
        self._standing = {wish.site_id: wish.wish for wish in standing}
        self._clock, self._record, self._book = clock, record, book
        self._last_seq = last_seq
        self._orders: dict[SiteId, tuple[Order, Wish]] = {}
        self._sessions: dict[SiteId, list[ControlSession]] = {}
        self._lines: dict[SiteId, _Line] = {}
        # Sites by when their heartbeat is due; an entry whose line says another time is void.
        self._due: list[tuple[int, SiteId]] = []
        self._stale: set[SiteId] = set()
        self._server_ns = 0

    async def restore(self) -> None:
        """Takes up orders of an earlier process whose named end lies ahead; before streams open.

        One without such an end had its lease once: it is a record, and is not given again.
        """
        now_ns, boot_ns = self._clock.now_ns(), self._clock.boot_ns()
        orders, highest, left = await self._book.restore(now_ns=now_ns)
        for site_id, seq in highest.items():
            self._line(site_id).last_seq = seq
        for order, seq in left:
            line, wish = self._line(order.ask.site_id), order.wish(boot_ns=boot_ns, now_ns=now_ns)
            line.setpoint = self._setpoint(wish, seq, wish.lease_s)
            line.is_held = line.is_sent = True
            line.lease_ends_boot_ns = min(
                wish.ends_boot_ns or 0, boot_ns + round(wish.lease_s * _NS)
            )
        for order in orders:
            wish = order.wish(boot_ns=boot_ns, now_ns=now_ns)
            self._orders[order.ask.site_id] = order, wish
            logger.info("order.taken_up", extra=facts(plan=order.plan_id, site=wish.site_id))

    async def open(self, site_ids: tuple[SiteId, ...]) -> ControlSession:
        """A stream that listens for these sites; their setpoints go down at once."""
        session = ControlSession(site_ids)
        for site_id in site_ids:
            self._sessions.setdefault(site_id, []).append(session)
            self._warm_up(site_id)
        try:
            for site_id in site_ids:
                await self._send(site_id)
        except BaseException:
            # The stream went before it was open: nobody else knows the session to close it.
            self.close(session)
            raise
        return session

    def close(self, session: ControlSession) -> None:
        """The stream has gone; its leases run out by themselves."""
        for site_id in session.site_ids:
            left = [one for one in self._sessions.get(site_id, ()) if one is not session]
            if left:
                self._sessions[site_id] = left
            else:
                self._sessions.pop(site_id, None)

    def next_seq(self, site_id: SiteId) -> int:
        """A number above all that this site ever had; of the clock's, where it goes forward."""
        line = self._line(site_id)
        before = max(line.last_seq, self._last_seq(site_id))
        line.last_seq = max(before + 1, self._clock.now_ns())
        return line.last_seq

    async def order(self, order: Order) -> None:
        """Gives an order; one that the site had goes, whatever loop it was for.

        Raises:
            StoreError: it cannot be written, and is not given.
        """
        site_id = order.ask.site_id
        await self._book.sending(order, order.number)
        await self._book.flush()
        wish = order.wish(boot_ns=self._clock.boot_ns(), now_ns=self._clock.now_ns())
        if order.ask.dry_run:
            await self._put(self._setpoint(wish, order.number, wish.lease_s), is_dry=True)
            return
        self._orders[site_id] = order, wish
        # From here on it is given, whether or not the caller stays to hear of it.
        self._stale.add(site_id)
        await self._leave(site_id, f"by order {order.number} of {order.asked_by}")
        await self._send(site_id, seq=order.number)

    def order_of(self, site_id: SiteId) -> Order | None:
        """The order that holds for a site."""
        held = self._orders.get(site_id)
        return held[0] if held and held[1].is_live(self._clock.boot_ns()) else None

    def orders(self) -> list[Order]:
        """Those that hold, at most one of each site."""
        return [order for order, _ in self._orders.values()]

    async def end(self, site_id: SiteId, *, why: str) -> Order | None:
        """Takes the order back; what it was, None: there was none.

        What the settings wish holds again; else the site is asked for nothing until its lease ends.

        Raises:
            StoreError: it cannot be written; the order stands.
        """
        order = self.order_of(site_id)
        if order is None:
            return None
        await self._book.ended(order, at_ns=self._clock.now_ns())
        del self._orders[site_id]
        was = await self._leave(site_id, why)
        if self._wish(site_id) is not None:
            await self._send(site_id)
        elif was is not None and self._listening(site_id):
            seq = self.next_seq(site_id)
            nothing = replace(
                was, setpoint_id=f"{site_id}-{seq}", setpoint_seq=seq, plan_id="", heat_rate_w=0.0
            )
            now_ns = self._clock.now_ns()
            await self._put(replace(nothing, valid_from_ns=now_ns, reason=why, hot_c=None))
        return order

    async def report(self, report: SetpointReport, data: bytes) -> bool:
        """Records a state that a site reports; False if there was no room for it in time.

        Raises:
            WireError: it is none that a site can know.
        """
        site_id, seq = report.site_id, report.setpoint_seq
        if report.state in _OURS:
            raise WireError(f"a site does not say {report.state.name}: that is said to it")
        line, order = self._line(site_id), self._book.order_of(site_id, seq)
        if line.setpoint is not None and seq == line.setpoint.setpoint_seq:
            if report.state in _ENDINGS:
                line.is_held = False
            if report.state is SetpointState.EXPIRED:
                line.is_lapsed = True
                self._stale.add(site_id)
                self._warm_up(site_id)
        now_ns = self._clock.now_ns()
        await self._book.step(report, who=f"site/{site_id}", received_ns=now_ns)
        # What is renewed is applied as before, and what was tried did not happen.
        if report.state is SetpointState.RENEWED or (order is not None and order.ask.dry_run):
            return True
        return await self._record(self._frame(site_id, data))

    async def run(self) -> None:
        """Renews leases until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(TICK_S)

    async def step(self) -> None:
        """Sends heartbeats that are due, fresh setpoints, and says which leases ran out unheard."""
        boot_ns = self._clock.boot_ns()
        while self._due and self._due[0][0] <= boot_ns:
            due_boot_ns, site_id = heapq.heappop(self._due)
            if due_boot_ns == self._line(site_id).due_boot_ns and site_id in self._sessions:
                self._beat(site_id, boot_ns)
        for site_id in [s for s, (_, wish) in self._orders.items() if not wish.is_live(boot_ns)]:
            del self._orders[site_id]
            self._stale.add(site_id)
        # A log without room holds up what is recorded: the leases of all others come first.
        stale, self._stale = self._stale, set()
        for site_id in stale & self._sessions.keys():
            if self._needs_fresh(site_id, boot_ns):
                await self._send(site_id)
        for site_id, line in tuple(self._unheard(boot_ns)):
            await self._expire(site_id, line)

    def _beat(self, site_id: SiteId, boot_ns: int) -> None:
        line, wish = self._line(site_id), self._wish(site_id)
        held = line.setpoint
        is_wanted = wish is not None and held is not None and wish.plan_id == held.plan_id
        plan_id = ""
        if wish is not None and is_wanted and line.is_held and wish.may_renew(boot_ns):
            plan_id = wish.plan_id
            line.lease_ends_boot_ns = boot_ns + round(wish.lease_s * _NS)
        self._server_ns = max(self._server_ns + 1, self._clock.now_ns())
        heartbeat = Heartbeat(plan_id=plan_id, server_ns=self._server_ns)
        for session in self._listening(site_id):
            session.heartbeat(heartbeat)
        line.beats_count += 1
        most_s = HEARTBEAT_MAX_S if line.beats_count >= WARM_UP_COUNT else WARM_UP_S
        self._be_due(site_id, boot_ns + _interval_ns(wish, most_s))

    def _warm_up(self, site_id: SiteId) -> None:
        """The next heartbeats come soon, since the site waits for them."""
        self._line(site_id).beats_count = 0
        interval_ns = _interval_ns(self._wish(site_id), WARM_UP_S)
        self._be_due(site_id, self._clock.boot_ns() + interval_ns)

    def _be_due(self, site_id: SiteId, due_boot_ns: int) -> None:
        self._line(site_id).due_boot_ns = due_boot_ns
        heapq.heappush(self._due, (due_boot_ns, site_id))

    def _needs_fresh(self, site_id: SiteId, boot_ns: int) -> bool:
        """Whether its lease ran out, or another wish decides since."""
        line, wish = self._line(site_id), self._wish(site_id)
        if wish is None or wish.fresh_lease_s(boot_ns) is None:
            return False
        if line.is_lapsed:
            return wish.is_renewed
        return line.setpoint is None or line.setpoint.plan_id != wish.plan_id

    def _unheard(self, boot_ns: int) -> Iterator[tuple[SiteId, _Line]]:
        silence_ns = round(SILENCE_S * _NS)
        for site_id, line in self._lines.items():
            patience_ns = silence_ns if line.is_sent else 0
            if line.is_held and boot_ns >= line.lease_ends_boot_ns + patience_ns:
                yield site_id, line

    async def _expire(self, site_id: SiteId, line: _Line) -> None:
        line.is_held = False
        if line.setpoint is not None:
            detail = "the lease ran out and the site is silent: it rejects its heat locally"
            if not line.is_sent:
                detail = "the site did not come within the lease"
            await self._say(line.setpoint, SetpointState.EXPIRED, detail)

    async def _leave(self, site_id: SiteId, why: str) -> Setpoint | None:
        """Says that what the site holds is wanted no more; what that was."""
        line = self._line(site_id)
        held = line.setpoint if line.is_held else None
        line.is_held, line.is_lapsed = False, False
        if held is not None:
            await self._say(held, SetpointState.SUPERSEDED, why)
        return held

    async def _send(self, site_id: SiteId, *, seq: int | None = None) -> None:
        """The site's wish as a fresh setpoint, to those who listen; nobody does: it is planned."""
        wish = self._wish(site_id)
        lease_s = wish.fresh_lease_s(self._clock.boot_ns()) if wish else None
        if wish is None or lease_s is None:
            return
        line = self._line(site_id)
        line.is_lapsed = False
        if line.is_held and line.setpoint is not None and line.setpoint.plan_id != wish.plan_id:
            if self._clock.boot_ns() >= line.lease_ends_boot_ns:
                await self._expire(site_id, line)
            await self._leave(site_id, f"by {wish.plan_id}")
        order = self._orders.get(site_id)
        # Another may have been given since this number was: the site would refuse the lower one.
        is_newest = seq is not None and seq == line.last_seq
        seq_now = seq if seq is not None and is_newest else self.next_seq(site_id)
        if order is not None and order[1] is wish and seq_now != order[0].number:
            try:
                await self._book.sending(order[0], seq_now)
            except StoreError as error:
                logger.error("order.not_written", extra=facts(reason=str(error)))
        await self._put(self._setpoint(wish, seq_now, lease_s))

    async def _put(self, setpoint: Setpoint, *, is_dry: bool = False) -> None:
        site_id, listening = setpoint.site_id, self._listening(setpoint.site_id)
        line, boot_ns = self._line(site_id), self._clock.boot_ns()
        if not is_dry:
            line.setpoint = setpoint
            line.is_held, line.is_sent = True, bool(listening)
            line.lease_ends_boot_ns = boot_ns + round(setpoint.lease_s * _NS)
            due_boot_ns = boot_ns + _interval_ns(self._wish(site_id), HEARTBEAT_MAX_S)
            if listening and due_boot_ns < line.due_boot_ns:
                self._be_due(site_id, due_boot_ns)
        sent = setpoint if not is_dry else replace(setpoint, dry_run=True)
        for session in listening:
            session.setpoint(sent)
        if listening:
            await self._say(sent, SetpointState.SENT, setpoint.reason)
        else:
            await self._say(sent, SetpointState.PLANNED, "the site is not connected")

    async def _say(self, setpoint: Setpoint, state: SetpointState, detail: str) -> None:
        """Records what we know of a setpoint ourselves."""
        report = planned(setpoint, state=state, at_ns=self._clock.now_ns(), detail=detail)
        if state not in _OURS:
            report = replace(report, applied_heat_rate_w=None)
        await self._book.step(report, who=US, received_ns=self._clock.now_ns())
        if not setpoint.dry_run:
            await self._record(self._frame(setpoint.site_id, report_to_bytes(report)))

    def _setpoint(self, wish: Wish, seq: int, lease_s: float) -> Setpoint:
        standing = self._standing.get(wish.site_id)
        return Setpoint(
            setpoint_id=f"{wish.site_id}-{seq}",
            setpoint_seq=seq,
            plan_id=wish.plan_id,
            site_id=wish.site_id,
            loop_id=wish.loop_id,
            heat_rate_w=wish.heat_rate_w,
            heat_rate_upper_w=upper_w((wish, standing)),
            hot_c=wish.hot_c,
            valid_from_ns=self._clock.now_ns(),
            lease_s=lease_s,
            priority=wish.rank,
            reason=wish.reason,
        )

    def _wish(self, site_id: SiteId) -> Wish | None:
        order = self._orders.get(site_id)
        wishes = (order[1] if order else None, self._standing.get(site_id))
        return decides(wishes, boot_ns=self._clock.boot_ns())

    def _line(self, site_id: SiteId) -> _Line:
        return self._lines.setdefault(site_id, _Line())

    def _listening(self, site_id: SiteId) -> list[ControlSession]:
        return self._sessions.get(site_id, [])

    def _frame(self, site_id: SiteId, data: bytes) -> Frame:
        return Frame(
            site_id=site_id,
            boot_id=BootId(""),
            kind=FrameKind.SETPOINT_REPORT,
            seq=0,
            received_ns=self._clock.now_ns(),
            payload=data,
        )


def _interval_ns(wish: Wish | None, most_s: float) -> int:
    """Time between two heartbeats, ns."""
    share_s = HEARTBEAT_MAX_S if wish is None else wish.lease_s / LEASE_SHARE
    return round(min(share_s, most_s) * _NS)
