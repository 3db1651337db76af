"""After the aggregator's own absence: when a period may close, and whose registers it waits for.

What sites kept meanwhile arrives after the start. Time since then is of the boot clock, so that
no step of the wall clock shortens or prolongs it.
"""

from collections.abc import Sequence
from enum import Enum

from heatpool.period import Period
from heatpool.sample import RegisterReason, RegisterRow
from heatpool.units import NS_PER_S
from heatpool_aggregator.core.registers import place

# Who found nobody asks again within five minutes: sooner, not even a punctual site has returned.
RETRY_NS = 300 * NS_PER_S


class Due(Enum):
    """Whether a period may close."""

    NOT_YET = "not_yet"
    WHEN_ALL_CAME = "when_all_came"  # of those who were in the accounts before
    NOW = "now"


def wait_ns(away_ns: int, *, grace_ns: int, longest_ns: int) -> int:
    """How long after the start accounts wait for sites, ns: as long as we were away, within bounds.

    At least the grace and a site's retry, at most `longest_ns`; the grace in any case.
    """
    return max(grace_ns, min(longest_ns, max(away_ns, grace_ns + RETRY_NS)))


def due(period: Period, *, at_ns: int, up_ns: int, grace_ns: int, wait_ns: int) -> Due:
    """Whether the period may close now, `up_ns` after the start.

    One that began before the start has its grace from the start, and until `wait_ns` closes only
    when all came; another one has it from its end.
    """
    if at_ns < period.end_ns + grace_ns:
        return Due.NOT_YET
    if period.start_ns >= at_ns - up_ns:
        return Due.NOW
    if up_ns < grace_ns:
        return Due.NOT_YET
    return Due.NOW if up_ns >= wait_ns else Due.WHEN_ALL_CAME


def newest_ns(rows: Sequence[RegisterRow], at_ns: int) -> int | None:
    """Event time of the newest register up to `at_ns`; None without one, or if the meter left."""
    newest = max((row for row in rows if row.event_ns <= at_ns), key=place, default=None)
    if newest is None or newest.reason is RegisterReason.METER_CLOSING:
        return None
    return newest.event_ns


def was_in(newest_ns: int | None, *, closed_ns: int, period_ns: int) -> bool:
    """Whether a point was in the accounts when they stopped at `closed_ns`, or one period before.

    Who was silent for longer holds nothing up: its registers are late whether we were here or not.
    """
    return newest_ns is not None and newest_ns >= closed_ns - period_ns
