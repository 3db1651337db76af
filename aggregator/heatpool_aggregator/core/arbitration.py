"""Who decides what a site is asked for: an operator's order, else the settings, else nobody.

Pure. What is above all of these, safety and the local operator, has its place at the site.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from heatpool.sample import SiteId
from heatpool.setpoint import LEASE_MIN_S

_NS = 1_000_000_000


class Rank(IntEnum):
    """The lower one decides; the number is the setpoint's priority on the wire."""

    ORDER = 1
    STANDING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one of them wants from a site, W and s.

    It ends at `ends_boot_ns`, None: not while this process lives. One that is not `is_renewed` has
    its lease once and no heartbeat. `upper_w` bounds whoever decides.
    """

    site_id: SiteId
    plan_id: str
    rank: Rank
    heat_rate_w: float
    lease_s: float
    reason: str
    is_renewed: bool = True
    ends_boot_ns: int | None = None
    loop_id: str = ""
    hot_c: float | None = None
    upper_w: float | None = None

    def is_live(self, boot_ns: int) -> bool:
        """Whether its end lies ahead."""
        return self.ends_boot_ns is None or boot_ns < self.ends_boot_ns

    def fresh_lease_s(self, boot_ns: int) -> float | None:
        """The lease of a setpoint that is sent now, s; None: too little is left of the wish."""
        if self.ends_boot_ns is None:
            return self.lease_s
        left_s = (self.ends_boot_ns - boot_ns) / _NS
        return min(self.lease_s, left_s) if left_s >= LEASE_MIN_S else None

    def may_renew(self, boot_ns: int) -> bool:
        """Whether a lease that starts now ends in time."""
        if not self.is_renewed:
            return False
        return self.ends_boot_ns is None or boot_ns + self.lease_s * _NS <= self.ends_boot_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one site is asked for as long as this process lives, W and s."""

    site_id: SiteId
    heat_rate_w: float
    lease_s: float
    reason: str

    @property
    def wish(self) -> Wish:
        """The same in arbitration; one plan per site: a heartbeat renews no other site."""
        return Wish(
            site_id=self.site_id,
            plan_id=f"standing-{self.site_id}",
            rank=Rank.STANDING,
            heat_rate_w=self.heat_rate_w,
            lease_s=self.lease_s,
            reason=self.reason,
        )


def decides(wishes: Iterable[Wish | None], *, boot_ns: int) -> Wish | None:
    """The wish that a site is told; None: it is asked for nothing."""
    live = [wish for wish in wishes if wish is not None and wish.is_live(boot_ns)]
    return min(live, key=lambda wish: wish.rank, default=None)


def upper_w(wishes: Iterable[Wish | None]) -> float | None:
    """The bound of all of them together, W: bounds only narrow; None: nobody gives one.

    Zero heat into the network is inside every bound.
    """
    bounds = [wish.upper_w for wish in wishes if wish is not None and wish.upper_w is not None]
    return max(0.0, min(bounds)) if bounds else None
