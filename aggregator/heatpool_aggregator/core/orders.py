"""An operator's order: what may be ordered, and the steps of its life.

Pure. An order has a lease and an end; nothing waits for a site that is away for longer.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heatpool.sample import SiteId
from heatpool.setpoint import LEASE_MAX_S, SetpointState
from heatpool_aggregator.core.arbitration import Rank, Wish

# Shorter is lost with the first two heartbeats.
LEASE_LEAST_S = 30.0
# Longer than this is an agreement, not an order.
UNTIL_MOST_S = 7 * 86_400.0
REASON_SIGNS = 200
# Coolant below is no heat for anybody; above, an open loop boils.
HOT_LEAST_C, HOT_MOST_C = 20.0, 95.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What somebody wants to order, as it came; W and s."""

    site_id: SiteId
    heat_rate_w: float
    lease_s: float
    reason: str
    loop_id: str = ""
    hot_c: float | None = None
    until_ns: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order that was accepted; `number` is its first setpoint's, and names it."""

    ask: Ask
    number: int
    asked_by: str
    asked_ns: int
    upper_w: float | None = None

    @property
    def plan_id(self) -> str:
        """A heartbeat renews this order and no other."""
        return f"order-{self.number}"

    @property
    def end_ns(self) -> int:
        """When it is over, by the aggregator's clock."""
        return self.ask.until_ns or self.asked_ns + round(self.ask.lease_s * _NS)

    def wish(self, *, boot_ns: int, now_ns: int) -> Wish:
        """The order in arbitration; its end runs on the boot clock, and never longer than asked."""
        left_ns = min(self.end_ns - now_ns, self.end_ns - self.asked_ns)
        return Wish(
            site_id=self.ask.site_id,
            plan_id=self.plan_id,
            rank=Rank.ORDER,
            heat_rate_w=self.ask.heat_rate_w,
            lease_s=self.ask.lease_s,
            reason=self.ask.reason,
            is_renewed=self.ask.until_ns is not None,
            ends_boot_ns=boot_ns + left_ns,
            loop_id=self.ask.loop_id,
            hot_c=self.ask.hot_c,
            upper_w=self.upper_w,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A state that a setpoint came to: by the clock of who says so, and when we heard of it."""

    state: SetpointState
    event_ns: int
    received_ns: int
    detail: str = ""
    applied_heat_rate_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commanded:
    """An order, a setpoint of the settings, or what ends an order; with its steps, oldest first.

    `number` is the order's; 0: it is none.
    """

    site_id: SiteId
    setpoint_seq: int
    heat_rate_w: float
    lease_s: float
    asked_by: str
    reason: str
    steps: Sequence[Step]
    loop_id: str = ""
    dry_run: bool = False
    number: int = 0

    @property
    def newest(self) -> Step | None:
        """Where it stands."""
        return self.steps[-1] if self.steps else None

    @property
    def applied_heat_rate_w(self) -> float | None:
        """What the site said last that it applied, W."""
        told = [s.applied_heat_rate_w for s in self.steps if s.applied_heat_rate_w is not None]
        return told[-1] if told else None


def in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Steps as they came; of two that came together, the later in a setpoint's life is behind."""
    return tuple(sorted(steps, key=lambda s: (s.received_ns, s.event_ns, s.state)))


def ask_mistake(ask: Ask, *, now_ns: int) -> str:
    """What is wrong with an order in itself; empty: nothing."""
    numbers = (("heat_rate_w", ask.heat_rate_w), ("lease_s", ask.lease_s), ("hot_c", ask.hot_c))
    for name, number in numbers:
        if number is not None and not math.isfinite(number):
            return f"{name} is no number"
    if ask.heat_rate_w < 0:
        return f"heat_rate_w is {ask.heat_rate_w:g}: a site only gives heat"
    if not LEASE_LEAST_S <= ask.lease_s <= LEASE_MAX_S:
        return f"lease_s is {ask.lease_s:g}: must be {LEASE_LEAST_S:g} to {LEASE_MAX_S:g}"
    if ask.hot_c is not None and not HOT_LEAST_C <= ask.hot_c <= HOT_MOST_C:
        return f"hot_c is {ask.hot_c:g}: must be {HOT_LEAST_C:g} to {HOT_MOST_C:g}"
    return reason_mistake(ask.reason) or _until_mistake(ask, now_ns)


def reason_mistake(reason: str) -> str:
    """What is wrong with a reason; empty: nothing."""
    if not reason.strip():
        return "reason is missing: the audit log says why"
    if len(reason) > REASON_SIGNS or not reason.isprintable():
        return f"reason: must be one line of at most {REASON_SIGNS} signs"
    return ""


def _until_mistake(ask: Ask, now_ns: int) -> str:
    if ask.until_ns is None:
        return ""
    left_s = (ask.until_ns - now_ns) / _NS
    if left_s < ask.lease_s:
        return f"until_ns is {left_s:.0f} s ahead, less than one lease of {ask.lease_s:g} s"
    if left_s <= UNTIL_MOST_S:
        return ""
    return (
        f"until_ns is {left_s / 86_400:.1f} days ahead: must be at most {UNTIL_MOST_S / 86_400:g}"
    )


def site_mistake(ask: Ask, *, rejection_capacity_w: float | None, loop_ids: Sequence[str]) -> str:
    """Why this site cannot be ordered so, by what it said last; empty: nothing stands against it.

    The site checks again, by what it measures then, and has the last word.
    """
    if ask.loop_id and loop_ids and ask.loop_id not in loop_ids:
        return f"loop_id is {ask.loop_id!r}: the site has {', '.join(loop_ids)}"
    if not ask.loop_id and len(loop_ids) > 1:
        return f"loop_id is missing: the site has {', '.join(loop_ids)}"
    if ask.heat_rate_w == 0:
        return ""
    if rejection_capacity_w is None:
        return "the site has not said what it can reject locally: rejection_capacity_w in its loops"
    if ask.heat_rate_w > rejection_capacity_w:
        return (
            f"heat_rate_w is {ask.heat_rate_w:g}: the site can take back "
            f"{rejection_capacity_w:g} W if the network goes"
        )
    return ""
