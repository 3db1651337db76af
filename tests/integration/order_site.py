"""An aggregator's control and a site's obedience in one process, with the wire's bytes between."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from heatpool.sample import SiteId
from heatpool.setpoint import SetpointReport
from heatpool_agent import wire
from heatpool_agent.board import Board, LoopView
from heatpool_agent.core.safety import Command, Limits, LoopState, SafetyReading
from heatpool_agent.kept_orders import OverrideFile, SeenOrders
from heatpool_agent.loops.desk import Desk
from heatpool_agent.loops.obey import Habits, Obey
from heatpool_aggregator.core.arbitration import Standing
from heatpool_aggregator.core.orders import Ask, Commanded, Order
from heatpool_aggregator.loops.control import Control
from heatpool_aggregator.loops.control_session import ControlSession
from heatpool_aggregator.loops.order_book import OrderBook
from heatpool_aggregator.ports import Frame, Store
from heatpool_aggregator.stores.sqlite import open_store
from heatpool_aggregator.wire.control import request_from_bytes

NS = 1_000_000_000
START_NS = 1_750_000_000 * NS
SITE = SiteId("e1")
LOOP = "rack"


@dataclass
class Clock:
    """Both ends' clocks: one boot clock, and wall clocks that may be put elsewhere.

    The aggregator's may besides leap away from the site's.
    """

    boot: int = 1_000 * NS
    off: int = START_NS
    leap: int = 0

    def boot_ns(self) -> int:
        return self.boot

    def now_ns(self) -> int:
        return self.boot + self.off + self.leap

    def event_ns(self) -> int:
        return self.boot + self.off


@dataclass
class Device:
    """Confirms whatever it is told."""

    told: list[float | None] = field(default_factory=list)

    is_dry = False

    async def apply(self, command: Command) -> float:
        self.told.append(command.heat_rate_w)
        return command.heat_rate_w or 0.0

    async def release(self) -> None:
        self.told.append(None)

    async def close(self) -> None:
        """Nothing to free."""


class Site:
    """One loop with a desk; what its meter shows is set by hand."""

    def __init__(self, clock: Clock, folder: Path, *, hold_s: float = 0.0) -> None:
        self.clock, self.folder = clock, folder
        self.board, self.device = Board(site_id=SITE), Device()
        self.meter_w: float | None = 0.0
        seen = SeenOrders(folder, LOOP)
        habits = Habits(
            hold_s=hold_s, effect_s=200.0, seen_seq=seen.read(), keep=seen.keep, keep_s=60.0
        )
        limits = Limits(rejection_capacity_w=50_000.0)
        self.obey = Obey(LOOP, self.device, limits, self.board, clock, habits=habits)
        self.desk = Desk([LOOP], self.board, clock, OverrideFile(folder))

    async def step(self) -> None:
        """One second's look of every loop of the site."""
        at_ns = self.clock.boot_ns()
        safe = LoopState(
            hot_c=SafetyReading(value=45.0, boot_ns=at_ns),
            leak=SafetyReading(value=0.0, boot_ns=at_ns),
        )
        self.board.loops = (LoopView(loop_id=LOOP, safety=safe, delivered_heat_w=self.meter_w),)
        await self.desk.step()
        await self.obey.step()

    @property
    def now_w(self) -> float | None:
        return self.device.told[-1]


@dataclass
class Line:
    """Both ends and what goes between them; down it keeps what it carried."""

    clock: Clock
    folder: Path
    store: Store
    control: Control
    book: OrderBook
    site: Site
    frames: list[Frame]
    carried: list[bytes] = field(default_factory=list)
    session: ControlSession | None = None

    async def connect(self) -> None:
        self.session = await self.control.open((SITE,))

    def hang_up(self) -> None:
        assert self.session is not None
        self.control.close(self.session)
        self.session = None

    async def pass_s(self, seconds: int = 1) -> None:
        """So many seconds; what is said arrives within each."""
        for _ in range(seconds):
            self.clock.boot += NS
            await self.control.step()
            await self._down()
            await self.site.step()
            await self._up()

    async def _down(self) -> None:
        if self.session is None:
            return
        if not self.session.is_waiting:
            return
        for data in await self.session.outgoing():
            self.carried.append(data)
            self.hear(data)

    def hear(self, data: bytes) -> None:
        """The site hears these bytes, whoever said them."""
        wish = wire.wish(data)
        assert wish is not None
        self.site.board.post_wish(wish)

    async def _up(self) -> None:
        while self.session is not None and not self.site.board.reports.empty():
            data = wire.setpoint_report(self.site.board.reports.get_nowait())
            report = request_from_bytes(data)
            assert isinstance(report, SetpointReport)
            await self.control.report(report, data)

    def restart_site(self, *, hold_s: float = 0.0) -> None:
        self.site = Site(self.clock, self.folder, hold_s=hold_s)

    async def restart_aggregator(self, *, standing: Sequence[Standing] = ()) -> None:
        self.session = None
        self.book = OrderBook(self.store)
        self.control = made(self.clock, self.book, self.frames, standing)
        await self.control.restore()

    async def order(self, heat_rate_w: float = 8_000.0, **change: object) -> Order:
        """Gives an order now."""
        order = self.ordered(heat_rate_w, **change)
        await self.control.order(order)
        return order

    def ordered(self, heat_rate_w: float, **change: object) -> Order:
        """An order with its number, not yet given."""
        ask = Ask(
            site_id=SITE,
            heat_rate_w=heat_rate_w,
            **{"lease_s": 60.0, "reason": "cold", **change},  # type: ignore[arg-type]
        )
        return Order(
            ask=ask,
            number=self.control.next_seq(SITE),
            asked_by="person/anna",
            asked_ns=self.clock.now_ns(),
            upper_w=50_000.0,
        )

    async def row(self, order: Order) -> Commanded:
        rows = await self.book.listed([SITE], 100)
        (found,) = [row for row in rows if row.number == order.number]
        return found

    async def states(self, order: Order) -> list[str]:
        return [step.state.name.lower() for step in (await self.row(order)).steps]


def made(
    clock: Clock, book: OrderBook, frames: list[Frame], standing: Sequence[Standing]
) -> Control:
    async def record(frame: Frame) -> bool:
        frames.append(frame)
        return True

    return Control(standing=standing, clock=clock, record=record, book=book)


@asynccontextmanager
async def line(
    folder: Path, *, standing: Sequence[Standing] = (), hold_s: float = 0.0
) -> AsyncIterator[Line]:
    """A line that is up, its site trusting."""
    clock, frames = Clock(), list[Frame]()
    (folder / "site").mkdir()
    async with open_store("", folder) as store:
        book = OrderBook(store)
        control = made(clock, book, frames, standing)
        found = Line(
            clock=clock,
            folder=folder / "site",
            store=store,
            control=control,
            book=book,
            site=Site(clock, folder / "site", hold_s=hold_s),
            frames=frames,
        )
        await found.connect()
        await found.pass_s(5)
        yield found
