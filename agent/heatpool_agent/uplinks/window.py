"""What is on its way over a line and has not arrived, lane by lane."""

import asyncio

from heatpool.sample import BootId
from heatpool_agent.core.line import lane_share
from heatpool_agent.ports import Lane


class Window:
    """Frames of each lane that wait for their ack; each lane has a share of what is allowed.

    Shares, because a lane that stands still must not hold up another: live rows go on while the
    backlog waits, and the other way round.
    """

    def __init__(self) -> None:
        self._count: int | None = None
        self._waiting: dict[Lane, set[tuple[BootId, int]]] = {lane: set() for lane in Lane}
        self._newest: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self._moved = asyncio.Condition()
        self._resends = 0

    def allow(self, count: int | None) -> None:
        """So many frames of all lanes together may be on their way."""
        self._count = count

    async def room(self, lane: Lane, seq: int) -> bool:
        """Waits until a frame may go; False if a Resend came first.

        What was sent before waits for no room: else a missed frame would wait for an ack that only
        itself can bring.
        """
        resends = self._resends
        async with self._moved:
            await self._moved.wait_for(
                lambda: (
                    seq <= self._newest[lane]
                    or len(self._waiting[lane]) < lane_share(lane, self._count)
                    or self._resends != resends
                )
            )
        return self._resends == resends

    def went(self, lane: Lane, boot_id: BootId, seq: int) -> None:
        """This frame is on its way."""
        self._waiting[lane].add((boot_id, seq))
        self._newest[lane] = max(seq, self._newest[lane])

    async def arrived(self, boot_id: BootId, first_seq: int, last_seq: int) -> None:
        """These numbers, both included, need not be waited for any more."""
        for lane, waiting in self._waiting.items():
            self._waiting[lane] = {
                (boot, seq)
                for boot, seq in waiting
                if boot != boot_id or not first_seq <= seq <= last_seq
            }
        await self._tell()

    async def missed(self) -> None:
        """A Resend has come: whoever waits is to go back."""
        self._resends += 1
        await self._tell()

    async def settled(self, lane: Lane) -> bool:
        """Returns once all of a lane has arrived; False if a Resend came first."""
        resends = self._resends
        async with self._moved:
            await self._moved.wait_for(lambda: not self._waiting[lane] or self._resends != resends)
        return self._resends == resends

    async def _tell(self) -> None:
        async with self._moved:
            self._moved.notify_all()
