"""The board at one instant, and whether its figures still hold; health is judged from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from heatpool.sample import Estimate
from heatpool.units import NS_PER_S
from heatpool_agent.board import Board, LoopView
from heatpool_agent.ports import Clock, SpoolMark

# One late tick is jitter, two are a busy machine; after three nobody vouches for the figures.
STALE_PERIODS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What may be shown now: figures of a sampling loop that stands still are absent."""

    board: Board
    event_ns: int
    boot_ns: int
    tick_age_s: float | None
    is_stale: bool
    electric: Estimate | None
    loops: tuple[LoopView, ...]


def look(board: Board, clock: Clock, *, period_s: float) -> Seen:
    """The board now; nothing is read from a device."""
    boot_ns = clock.boot_ns()
    tick_age_s = (boot_ns - board.last_tick_boot_ns) / NS_PER_S if board.ticks else None
    is_stale = tick_age_s is None or tick_age_s > STALE_PERIODS * period_s
    return Seen(
        board=board,
        event_ns=clock.event_ns(),
        boot_ns=boot_ns,
        tick_age_s=tick_age_s,
        is_stale=is_stale,
        electric=None if is_stale else board.electric,
        loops=tuple(_emptied(view) if is_stale else view for view in board.loops),
    )


def _emptied(view: LoopView) -> LoopView:
    return LoopView(loop_id=view.loop_id, rejection_capacity_w=view.rejection_capacity_w)


def override_left_s(seen: Seen) -> float | None:
    """How long the local override lasts, s; None: there is none."""
    override = seen.board.override
    if override is None or override.ends_boot_ns <= seen.boot_ns:
        return None
    return (override.ends_boot_ns - seen.boot_ns) / NS_PER_S


def next_try_s(seen: Seen) -> float | None:
    """Time to the next try at a line that is down, s; 0: it is being tried, None: it is up."""
    next_ns = seen.board.uplink.next_try_boot_ns
    return None if next_ns is None else max(0.0, (next_ns - seen.boot_ns) / NS_PER_S)


def next_try_ns(seen: Seen) -> int | None:
    """The same as an instant of the wall clock, ns."""
    left_s = next_try_s(seen)
    return None if left_s is None else seen.event_ns + round(left_s * NS_PER_S)


def unhealthy(seen: Seen) -> Iterator[str]:
    """Why the sampling loop is not alive; nothing if it is."""
    if seen.tick_age_s is None:
        yield "the sampling loop has not ticked yet"
    elif seen.is_stale:
        yield f"the sampling loop last ticked {seen.tick_age_s:.1f} s ago"


def unready(seen: Seen) -> Iterator[str]:
    """Why this site has nothing to tell, or nowhere to keep it; nothing if it is ready."""
    yield from unhealthy(seen)
    if not any(_figures(seen)):
        yield "no power and no heat figure yet; the page at / says what each sensor lacks"
    if seen.board.spool_error:
        yield f"the spool takes no rows: {seen.board.spool_error}"
    elif not seen.board.marks:
        yield "the spool is not open yet"


def _figures(seen: Seen) -> Iterator[bool]:
    yield seen.electric is not None
    for view in seen.loops:
        yield view.fused is not None
        yield any(number(value) for value in (view.reported_heat_w, view.delivered_heat_w))


def number(value: float | None) -> bool:
    """Whether there is a value: absent and NaN are none, zero is one."""
    return value is not None and isfinite(value)


def unacked_count(mark: SpoolMark) -> int:
    """Frames on disk here that are not known to be durable elsewhere."""
    return max(0, mark.next_seq - 1 - mark.durable_seq)
