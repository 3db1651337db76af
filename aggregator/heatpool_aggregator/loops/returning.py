"""Who has yet to bring the registers of the aggregator's own absence, and how long that counts."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from heatpool.period import Period
from heatpool.process.journal import facts
from heatpool.sample import MeteringPointId, RegisterRow, SiteId
from heatpool.units import NS_PER_S
from heatpool_aggregator.config import Settlement
from heatpool_aggregator.core.absence import Due, due, newest_ns, wait_ns, was_in
from heatpool_aggregator.core.agreement import Membership, is_member
from heatpool_aggregator.ports import Clock

logger = logging.getLogger(__name__)

# A store answers within half of that: in between this process was stopped, or its machine slept.
STOPPED_NS = 60 * NS_PER_S
NAMED_MAX_COUNT = 10  # sites in a log line; the statement names them all

Point = tuple[SiteId, MeteringPointId]
# Registers of a point in [start, end), and the nearest ones around.
Series = Callable[[SiteId, MeteringPointId, int, int], Awaitable[Sequence[RegisterRow]]]


class Returning:
    """Holds periods of our absence until their sites are back, or for so long at most."""

    def __init__(
        self, settings: Settlement, members: Sequence[Membership], clock: Clock, series: Series
    ) -> None:
        self._members, self._clock, self._series = members, clock, series
        self._period_ns = settings.period_s * NS_PER_S
        self._grace_ns = round(settings.grace_s * NS_PER_S)
        self._longest_ns = round(settings.return_s * NS_PER_S)
        self._started_boot_ns = clock.boot_ns()
        self._wait_ns = self._grace_ns
        self._came_ns: dict[Point, int] = {}  # newest register of each point that is awaited
        self._noted_boot_ns: int | None = None
        self.is_back = False  # it was stopped, and is to begin again

    def watch(self) -> None:
        """From now on `note` is called time and again."""
        self._noted_boot_ns = self._clock.boot_ns()

    def note(self) -> None:
        """We are there; after a long time without this call it is as after a start."""
        noted_ns, boot_ns = self._noted_boot_ns, self._clock.boot_ns()
        if noted_ns is None:
            return
        self._noted_boot_ns = boot_ns
        if boot_ns - noted_ns > STOPPED_NS:
            stopped_s = (boot_ns - noted_ns) / NS_PER_S
            logger.warning("planner.was_stopped", extra=facts(stopped_s=stopped_s))
            self.is_back, self._started_boot_ns = True, boot_ns

    async def begin(self, points: Iterable[Point], closed_ns: int) -> None:
        """Notes who was in the accounts when they stopped.

        Raises:
            StoreError: to be asked again.
        """
        at_ns = self._clock.now_ns()
        came_ns = {}
        for point in points:
            found_ns = newest_ns(await self._series(*point, at_ns, at_ns + 1), at_ns)
            if found_ns is not None and was_in(
                found_ns, closed_ns=closed_ns, period_ns=self._period_ns
            ):
                came_ns[point] = found_ns
        self._came_ns, self.is_back = came_ns, False
        self._wait_ns = wait_ns(
            at_ns - closed_ns, grace_ns=self._grace_ns, longest_ns=self._longest_ns
        )

    async def is_due(self, period: Period) -> bool:
        """Whether the period may close; asks for one point that is not there, and no further.

        Raises:
            StoreError: to be asked again.
        """
        at_ns, up_ns = self._clock.now_ns(), self._clock.boot_ns() - self._started_boot_ns
        when = due(period, at_ns=at_ns, up_ns=up_ns, grace_ns=self._grace_ns, wait_ns=self._wait_ns)
        if when is Due.WHEN_ALL_CAME:
            return await self._all_came(period)
        if when is Due.NOW and self._came_ns:
            self._end_wait(period, is_ours=period.start_ns < at_ns - up_ns)
        return when is Due.NOW

    async def _all_came(self, period: Period) -> bool:
        for point in self._came_ns:
            if not self._is_late(point, period):
                continue
            at_ns = self._clock.now_ns()
            found_ns = newest_ns(await self._series(*point, at_ns, at_ns + 1), at_ns)
            # A meter that left brings no more: what it has is whole.
            self._came_ns[point] = at_ns if found_ns is None else found_ns
            if self._is_late(point, period):
                return False
        return True

    def _is_late(self, point: Point, period: Period) -> bool:
        return self._came_ns[point] < period.end_ns and is_member(self._members, point[0], period)

    def _end_wait(self, period: Period, *, is_ours: bool) -> None:
        """The time is over, or what follows is no more of our absence: who is late is named."""
        late = sorted({point[0] for point in self._came_ns if self._is_late(point, period)})
        if is_ours and late:
            named = ",".join(late[:NAMED_MAX_COUNT])
            logger.warning("planner.not_returned", extra=facts(sites_count=len(late), sites=named))
        self._came_ns = {}
