"""When one loop follows orders: a fresh one, over a line that lives, not too soon after it ran out.

Pure: messages and times in, what is held out. At each start and after each lease that ran out the
loop is on its own; a line that comes and goes must not make its valves flap.
"""

from dataclasses import dataclass, replace

from heatpool.setpoint import Heartbeat, Setpoint, SetpointState
from heatpool.units import NS_PER_S
from heatpool_agent.core.safety import Held, admit, begun, renew

# One heartbeat may be the last of a line that is dying.
BEATS_COUNT = 2
HOLD_DEFAULT_S = 120.0
HOLD_MOST_S = 7200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Obedience:
    """What a loop holds, what it has seen and what it waits for.

    `quiet_boot_ns` is since when the site was on its own; `seen_seq` outlives the process.
    """

    hold_ns: int
    quiet_boot_ns: int
    seen_seq: int = 0
    held: Held | None = None
    # The lease of what is held ran out, and was counted as that.
    is_over: bool = False
    beats_count: int = 0
    beat_floor_ns: int = 0
    server_ns: int | None = None
    server_boot_ns: int = 0

    def waits(self, boot_ns: int) -> str:
        """What an order has to wait for, for people; empty: it is followed."""
        left_ns = self.quiet_boot_ns + self.hold_ns - boot_ns
        if left_ns > 0:
            return f"the site keeps to itself for {-(-left_ns // NS_PER_S):.0f} s more"
        if self.beats_count < BEATS_COUNT:
            return "waits for heartbeats"
        return ""


def settled(state: Obedience, *, boot_ns: int) -> Obedience:
    """The same at this time: a lease that ran out leaves the loop on its own."""
    held = state.held
    if held is None or state.is_over or boot_ns < held.lease_ends_boot_ns:
        return state
    if state.waits(held.lease_ends_boot_ns):
        return replace(state, is_over=True)  # it was never followed
    # A wish of nothing was local rejection already: the hold runs from its start.
    is_idle = held.setpoint.heat_rate_w <= 0
    quiet_ns = held.starts_boot_ns if is_idle else held.lease_ends_boot_ns
    return replace(state, is_over=True, quiet_boot_ns=quiet_ns, beats_count=0)


def take(
    state: Obedience, wish: Setpoint, *, boot_ns: int, event_ns: int
) -> tuple[Obedience, SetpointState, str]:
    """The loop after an order, what became of the order, and why."""
    state = settled(state, boot_ns=boot_ns)
    held, outcome, detail = admit(
        state.held,
        wish,
        boot_ns=boot_ns,
        event_ns=_server_now_ns(state, wish, boot_ns=boot_ns, event_ns=event_ns),
        seen_seq=state.seen_seq,
    )
    if outcome is SetpointState.REFUSED:
        return state, outcome, detail
    state = replace(state, seen_seq=wish.setpoint_seq)
    if held is not state.held:
        # An aggregator whose clock was set back begins anew with a fresh order.
        floor_ns = min(state.beat_floor_ns, wish.valid_from_ns)
        state = replace(state, held=held, is_over=False, beat_floor_ns=floor_ns)
    waits = "" if wish.dry_run else state.waits(boot_ns)
    return state, outcome, "; ".join(part for part in (detail, waits) if part)


def beat(state: Obedience, heartbeat: Heartbeat, *, boot_ns: int) -> Obedience:
    """The loop after a heartbeat; one that is not newer than the last is a recording."""
    state = settled(state, boot_ns=boot_ns)
    if heartbeat.server_ns <= state.beat_floor_ns:
        return state
    return replace(
        state,
        held=begun(renew(state.held, heartbeat, boot_ns=boot_ns), heartbeat, boot_ns=boot_ns),
        beats_count=min(state.beats_count + 1, BEATS_COUNT),
        beat_floor_ns=heartbeat.server_ns,
        server_ns=heartbeat.server_ns,
        server_boot_ns=boot_ns,
    )


def _server_now_ns(state: Obedience, wish: Setpoint, *, boot_ns: int, event_ns: int) -> int:
    """The aggregator's clock, by which an order begins: our own may be off by hours.

    Without a heartbeat ours must do, unless it would let the order begin after its own lease.
    """
    if state.server_ns is not None:
        return state.server_ns + boot_ns - state.server_boot_ns
    is_late = wish.valid_from_ns - event_ns >= wish.lease_s * NS_PER_S
    return wish.valid_from_ns if is_late else event_ns
