"""Ticks lie on a grid counted from the epoch, so that sites agree without talking."""

import asyncio

from heatpool_agent.ports import Clock

_NS = 1_000_000_000


async def until_next_tick(period_s: float, clock: Clock) -> int:
    """Sleeps until the next multiple of the period; its event time, ns.

    A sleep may end a little early by the wall clock: then the rest is slept, not skipped.
    """
    period_ns = max(round(period_s * _NS), 1)
    tick_ns = (clock.event_ns() // period_ns + 1) * period_ns
    while (left_ns := tick_ns - clock.event_ns()) > 0:
        # At most a period at once: a clock that steps back must not stop the ticks for long.
        await asyncio.sleep(min(left_ns / _NS, period_s))
        if clock.event_ns() < tick_ns - period_ns:
            break
    return tick_ns
