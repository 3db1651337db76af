"""What the actuator of a loop is told: interlocks, local override, lease, wish within limits.

Nothing here can take away local rejection: the answer is a heat rate into the network that the
site could also reject by itself, or `release`, reject all heat here. Nothing is kept over a
restart: without a message since start there is no lease.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from heatpool.setpoint import LEASE_MAX_S, LEASE_MIN_S, Heartbeat, Setpoint, SetpointState
from heatpool.units import NS_PER_S

# A default for sites that name none; the true limit stands in the manual of their servers.
HOT_LIMIT_C = 75.0
# Two missed readings happen on any bus; three in a row are a sensor that is gone.
STALE_PERIODS = 3
NO_LEASE = "no lease"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What an actuator is told: a heat rate into the network, W, or release (None)."""

    heat_rate_w: float | None
    reason: str
    # Wishes beside the heat rate, for an actuator that names them among what it `uses`.
    hot_c: float | None = None
    ramp_w_s: float | None = None

    @classmethod
    def deliver(cls, heat_rate_w: float, reason: str) -> "Command":
        """Bring this heat rate, W, into the network."""
        return cls(heat_rate_w=heat_rate_w, reason=reason)

    @classmethod
    def release(cls, reason: str) -> "Command":
        """Reject all heat locally."""
        return cls(heat_rate_w=None, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a site allows, whoever wishes; None: not known, so not a bound."""

    max_heat_rate_w: float | None = None
    rejection_capacity_w: float | None = None
    hot_limit_c: float = HOT_LIMIT_C
    safety_period_s: float = 1.0
    has_leak_sensor: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyReading:
    """A value that safety rests on, and when it was read."""

    value: float
    boot_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Last safety readings of a loop; None: never read.

    `leak` and `pump_runs` are 0 or 1; a loop whose pump does not tell leaves it None.
    """

    hot_c: SafetyReading | None = None
    leak: SafetyReading | None = None
    pump_runs: SafetyReading | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """The local operator's decision, W or release (None), until an end on the boot clock."""

    heat_rate_w: float | None
    ends_boot_ns: int
    reason: str = "local override"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The setpoint that a site follows, with its lease on the boot clock.

    `before` is what it replaces, followed until `starts_boot_ns`.
    """

    setpoint: Setpoint
    starts_boot_ns: int
    lease_ends_boot_ns: int
    before: "Held | None" = None

    def is_live(self, boot_ns: int) -> bool:
        """Its time has come and its lease runs."""
        return self.starts_boot_ns <= boot_ns < self.lease_ends_boot_ns


def admit(
    held: Held | None, setpoint: Setpoint, *, boot_ns: int, event_ns: int, seen_seq: int = 0
) -> tuple[Held | None, SetpointState, str]:
    """What the site holds after a message, what became of the message, and why.

    Only a number above all that were ever seen is an order, so nothing that was recorded can be
    played back; `seen_seq` is the highest of earlier lives. The wall clock only delays a beginning;
    it never lengthens a lease.
    """
    if refusal := _refusal(setpoint):
        return held, SetpointState.REFUSED, refusal
    newest_seq = max(seen_seq, held.setpoint.setpoint_seq if held is not None else 0)
    if setpoint.setpoint_seq <= newest_seq:
        detail = f"seq {setpoint.setpoint_seq} is not newer than {newest_seq}: seen before"
        return held, SetpointState.REFUSED, detail
    if setpoint.dry_run:
        return held, SetpointState.RECEIVED, "dry run: not applied"
    wait_ns = max(0, setpoint.valid_from_ns - event_ns)
    admitted = Held(
        setpoint=setpoint,
        starts_boot_ns=boot_ns + wait_ns,
        lease_ends_boot_ns=boot_ns + _lease_ns(setpoint),
        before=followed(held, boot_ns),
    )
    wait_s = round(wait_ns / NS_PER_S)  # the way of a message is no wait to speak of
    return admitted, SetpointState.RECEIVED, f"starts in {wait_s} s" if wait_s else ""


def renew(held: Held | None, heartbeat: Heartbeat, *, boot_ns: int) -> Held | None:
    """The same setpoint with its lease from now on, if its plan is wanted and the lease runs.

    A lease that ran out stays out: only the setpoint itself, sent again, starts one.
    """
    if held is None or not heartbeat.plan_id or heartbeat.plan_id != held.setpoint.plan_id:
        return held
    if boot_ns >= held.lease_ends_boot_ns:
        return held
    return replace(held, lease_ends_boot_ns=boot_ns + _lease_ns(held.setpoint))


def begun(held: Held | None, heartbeat: Heartbeat, *, boot_ns: int) -> Held | None:
    """The same setpoint, beginning by the aggregator's clock as this heartbeat has it.

    Never later than was said: a clock that was set forward must not put an order off by hours.
    """
    if held is None or boot_ns >= held.starts_boot_ns:
        return held
    wait_ns = max(0, held.setpoint.valid_from_ns - heartbeat.server_ns)
    return replace(held, starts_boot_ns=min(held.starts_boot_ns, boot_ns + wait_ns))


def decide(
    held: Held | None,
    seen: LoopState,
    limits: Limits,
    *,
    override: Override | None,
    boot_ns: int,
    waits: str = "",
) -> Command:
    """What the actuator is told now, W into the network; `release` means reject all heat here.

    First match wins: interlock, local override, lease, what the site still `waits` for, wish within
    limits. An absent safety reading trips the interlock: absent is not fine.

    Source: agent.md, section 9.
    """
    if trip := interlock(seen, limits, boot_ns=boot_ns):
        return Command.release(trip)
    if override is not None and boot_ns < override.ends_boot_ns:
        return _overridden(override, limits)
    now = followed(held, boot_ns)
    if now is None:
        return Command.release(NO_LEASE)
    if waits:
        return Command.release(waits)
    wish = now.setpoint
    return Command(
        heat_rate_w=clamp_w(_within_bounds_w(wish), limits),
        reason=wish.reason,
        hot_c=None if wish.hot_c is None else min(wish.hot_c, limits.hot_limit_c),
        ramp_w_s=wish.ramp_w_s,
    )


def interlock(seen: LoopState, limits: Limits, *, boot_ns: int) -> str:
    """Why all heat must be rejected here whatever is wished; empty if nothing stands against."""
    if limits.has_leak_sensor:
        if gap := _gap("leak", seen.leak, limits, boot_ns=boot_ns):
            return gap
        if seen.leak is not None and seen.leak.value != 0:
            return "leak"
    if gap := _gap("hot_c", seen.hot_c, limits, boot_ns=boot_ns):
        return gap
    if seen.hot_c is not None and not seen.hot_c.value <= limits.hot_limit_c:
        return f"hot_c {seen.hot_c.value:.1f} above {limits.hot_limit_c:.1f}"
    if seen.pump_runs is None:
        return ""
    if gap := _gap("pump_runs", seen.pump_runs, limits, boot_ns=boot_ns):
        return gap
    return "" if seen.pump_runs.value == 1 else "pump stands"


def safety_reading(values: Sequence[SafetyReading], *, worst: float) -> SafetyReading | None:
    """Several devices on one loop as one reading: the value nearest to `worst`, the oldest time.

    One that fell silent or was refused (NaN) makes the whole absent: absent is not fine.
    """
    if not values:
        return None
    oldest_ns = min(reading.boot_ns for reading in values)
    if any(math.isnan(reading.value) for reading in values):
        return SafetyReading(value=math.nan, boot_ns=oldest_ns)
    value = (max if worst > 0 else min)(reading.value for reading in values)
    return SafetyReading(value=value, boot_ns=oldest_ns)


def clamp_w(heat_rate_w: float, limits: Limits) -> float:
    """The heat rate, W, inside what the site allows and could take back: never below 0.

    More than the proven local rejection is never promised away: if the network goes, all of it
    comes back at once.
    """
    bounds = (limits.max_heat_rate_w, limits.rejection_capacity_w)
    upper_w = min((bound for bound in bounds if bound is not None), default=math.inf)
    return max(0.0, min(heat_rate_w, upper_w))


def _gap(name: str, reading: SafetyReading | None, limits: Limits, *, boot_ns: int) -> str:
    if reading is None or math.isnan(reading.value):
        return f"no reading of {name}"
    age_s = (boot_ns - reading.boot_ns) / NS_PER_S
    is_stale = age_s > STALE_PERIODS * limits.safety_period_s
    return f"{name} is {age_s:.1f} s old" if is_stale else ""


def _overridden(override: Override, limits: Limits) -> Command:
    if override.heat_rate_w is None or not math.isfinite(override.heat_rate_w):
        return Command.release(override.reason)
    return Command.deliver(clamp_w(override.heat_rate_w, limits), reason=override.reason)


def followed(held: Held | None, boot_ns: int) -> Held | None:
    """The setpoint whose time it is, without history; None if its lease ran out."""
    if held is not None and boot_ns < held.starts_boot_ns:
        held = held.before
    return replace(held, before=None) if held is not None and held.is_live(boot_ns) else None


def _within_bounds_w(wish: Setpoint) -> float:
    """The wish inside its own bounds, W; the upper one wins."""
    lower_w = -math.inf if wish.heat_rate_lower_w is None else wish.heat_rate_lower_w
    upper_w = math.inf if wish.heat_rate_upper_w is None else wish.heat_rate_upper_w
    return min(max(wish.heat_rate_w, lower_w), upper_w)


def _lease_ns(setpoint: Setpoint) -> int:
    return int(setpoint.lease_s * NS_PER_S)


def _refusal(setpoint: Setpoint) -> str:
    numbers = (setpoint.heat_rate_w, setpoint.heat_rate_lower_w, setpoint.heat_rate_upper_w)
    if any(number is not None and not math.isfinite(number) for number in numbers):
        return "heat rate or bound is no number"
    if setpoint.heat_rate_w < 0:
        return f"heat_rate_w {setpoint.heat_rate_w:g} is negative; a site only gives heat"
    if not LEASE_MIN_S <= setpoint.lease_s <= LEASE_MAX_S:
        return f"lease_s {setpoint.lease_s:g} is not {LEASE_MIN_S:g} to {LEASE_MAX_S:g}"
    if setpoint.hot_c is not None and not math.isfinite(setpoint.hot_c):
        return "hot_c is no number"
    ramp_w_s = setpoint.ramp_w_s
    if ramp_w_s is not None and not (math.isfinite(ramp_w_s) and ramp_w_s > 0):
        return "ramp_w_s is no positive number"
    return ""
