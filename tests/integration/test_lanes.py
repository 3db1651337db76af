"""What the lanes send and tell, where the other end answers at the worst moment."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

from integration.uplink_site import Site, becomes, site
from turns import working

from heatpool.sample import SpoolKind
from heatpool_agent.core.line import LineLimits
from heatpool_agent.core.pace import Pace
from heatpool_agent.core.ranges import SeqRanges
from heatpool_agent.loops.lanes import Lanes, Line
from heatpool_agent.ports import Durable, Lane, Resend, Sent, Seq, SpoolFrame, SpoolLoss, Uplink

T = SpoolKind.TELEMETRY


class Wire:
    """A line that takes all; `sending` is done before a frame counts as sent."""

    def __init__(self) -> None:
        self.limits = LineLimits()
        self.sent: list[int] = []
        self.told: list[SpoolLoss] = []
        self.sending: Callable[[SpoolFrame], Coroutine[Any, Any, None]] | None = None

    async def send(self, frame: SpoolFrame) -> Sent | None:
        if frame.kind is T:
            self.sent.append(frame.seq)
            if self.sending is not None:
                await self.sending(frame)
        return None

    async def settled(self, _: Lane) -> bool:
        return True

    async def tell(self, loss: SpoolLoss) -> None:
        self.told.append(loss)

    @property
    def numbers_told(self) -> set[int]:
        return {seq for loss in self.told for seq in range(loss.first_seq, loss.last_seq + 1)}


def lanes_of(own: Site, wire: Wire, *, durable: tuple[tuple[int, int], ...] = ()) -> Lanes:
    speaker = own.speaker()
    known = {mark.boot_id: SeqRanges() for mark in speaker.marks}
    for first, last in durable:
        known[own.spool.mark(T).boot_id].add(first, last)
    line = Line(uplink=cast(Uplink, wire), speaker=speaker, durable=known)
    return Lanes(line, own.spool, own.spooling, pace=Pace(), sent=lambda _, __: None)


async def test_a_resend_that_comes_while_a_frame_goes_out_is_gone_back_to(tmp_path: Path) -> None:
    async with site(tmp_path) as own:
        await own.rows(1)
        wire = Wire()
        lanes = lanes_of(own, wire)
        await own.rows(7, first=2)
        boot_id = own.spool.mark(T).boot_id

        async def miss(frame: SpoolFrame) -> None:
            if frame.seq == 4 and wire.sent.count(4) == 1:
                await lanes.again(Resend(boot_id=boot_id, first_seq=Seq(2), last_seq=Seq(3)))

        wire.sending = miss
        async with working(lanes.live(), name="lane"):
            await becomes(lambda: 8 in wire.sent)
    assert wire.sent == [1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8]


async def test_what_the_other_end_misses_of_long_ago_is_told_once_more(tmp_path: Path) -> None:
    async with site(tmp_path) as own:
        await own.rows(250)
        await own.spooling.call(own.spool._room._drop_oldest)
        mark = own.spool.mark(T)
        await own.spooling.call(own.spool.told, mark.boot_id, Seq(1), Seq(mark.first_seq - 1))
        assert not await own.spooling.call(own.spool.losses)
        wire = Wire()
        async with working(lanes_of(own, wire, durable=((1, 2),)).billing(), name="lane"):
            await becomes(lambda: {3, mark.first_seq - 1} <= wire.numbers_told)
    assert mark.first_seq not in wire.numbers_told


async def test_an_ack_of_live_rows_says_nothing_of_losses_told_before(tmp_path: Path) -> None:
    async with site(tmp_path) as own:
        await own.rows(250)
        await own.spooling.call(own.spool._room._drop_oldest)
        mark, wire = own.spool.mark(T), Wire()
        lanes = lanes_of(own, wire)
        async with working(lanes.billing(), name="lane"):
            await becomes(lambda: len(wire.told) > 0)
            await lanes.tell_losses()
        live, old = (
            Durable(boot_id=mark.boot_id, first_seq=Seq(first), last_seq=Seq(first))
            for first in (mark.next_seq - 1, mark.first_seq)
        )
        assert not lanes.early_losses(live)
        assert [(one.first_seq, one.last_seq) for one in lanes.early_losses(old)] == [
            (1, mark.first_seq - 1)
        ]
        assert not lanes.early_losses(old), "each is told once"
