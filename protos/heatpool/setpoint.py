"""A wished heat rate with its lease and bounds, and what became of it.

There is no fallback field: without a valid lease a site rejects all heat locally.
"""

from dataclasses import dataclass
from enum import IntEnum

from heatpool.sample import SiteId

LEASE_MIN_S = 1.0
LEASE_MAX_S = 900.0  # 15 min: longer silence than this is an outage, not a pause
LEASE_DEFAULT_S = 120.0


class SetpointState(IntEnum):
    """Steps in the life of a setpoint; the numbers are those of the wire."""

    PLANNED = 1
    SENT = 2
    RECEIVED = 3
    APPLIED = 4
    EFFECT_SEEN = 5
    RENEWED = 6
    SUPERSEDED = 7
    EXPIRED = 8
    REFUSED = 9
    OVERRIDDEN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Setpoint:
    """A wished heat rate into the network, W, for as long as its lease lives.

    The lease runs on the site's boot clock from receipt, so that no clock step can lengthen it.
    """

    setpoint_id: str
    setpoint_seq: int
    plan_id: str
    site_id: SiteId
    heat_rate_w: float
    valid_from_ns: int
    lease_s: float
    reason: str
    loop_id: str = ""
    heat_rate_lower_w: float | None = None
    heat_rate_upper_w: float | None = None
    hot_c: float | None = None
    ramp_w_s: float | None = None
    priority: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The plan behind this id is still wanted: renew the lease of what the site holds."""

    plan_id: str
    server_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetpointReport:
    """What became of a setpoint at its site, and when."""

    site_id: SiteId
    setpoint_seq: int
    state: SetpointState
    event_ns: int
    applied_heat_rate_w: float | None = None
    detail: str = ""
