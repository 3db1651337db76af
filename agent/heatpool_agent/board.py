"""What the agent's loops tell each other, and what http reads: frozen values on one board."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from heatpool.sample import Estimate, SiteId, SpoolKind
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport, SetpointState
from heatpool_agent.core.contradictions import Contradiction
from heatpool_agent.core.crosscheck import Disagreement
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.identity_view import IdentityView
from heatpool_agent.core.ledger import Hidden
from heatpool_agent.core.line import LineLimits
from heatpool_agent.core.loop_told import Capture
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.safety import LoopState, Override
from heatpool_agent.core.tree import LoopPower
from heatpool_agent.ports import SpoolMark

# More wishes or reports than this between two ticks are a flood; the newest ones count.
WISHES_LIMIT = 32
REPORTS_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorView:
    """How one sensor fares."""

    id: str
    kind: str
    state: str  # up | busy | gone | starting
    detail: str = ""
    fix: str = ""
    readings_count: int = 0
    read_s: float | None = None
    failures_count: int = 0
    boot_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopView:
    """Heat of one loop at the last tick; None is absent."""

    loop_id: str
    electric: Estimate | None = None
    computed: Estimate | None = None
    fused: Estimate | None = None
    reported_heat_w: float | None = None
    # Assumed: a device states none of its own figure.
    reported_heat_w_u: float | None = None
    delivered_heat_w: float | None = None
    hot_c: float | None = None
    cold_c: float | None = None
    volume_flow_m3_h: float | None = None
    rejection_capacity_w: float | None = None
    leak: bool | None = None
    pump_runs: bool | None = None
    safety: LoopState = field(default_factory=LoopState)
    # Heats that disagree now, each with its size, and power with its parts.
    disagreements: tuple[Disagreement, ...] = ()
    power: LoopPower | None = None
    contradictions: tuple[Contradiction, ...] = ()
    # Span, s, of which the fused heat is the mean where it is new at this tick; None: it is older.
    fused_s: float | None = 0.0
    # Without coolant all heat leaves with the air.
    has_coolant: bool = True
    # What is left of the wall power for the air, and the coolant's share of it.
    air: Estimate | None = None
    capture: Capture | None = None
    # One word of `core.loop_told.PHASES`; faults that last, and those that ended within a day.
    phase: str = ""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetpointView:
    """What is wished, what is done."""

    setpoint_seq: int
    heat_rate_w: float
    applied_heat_rate_w: float | None
    state: SetpointState
    reason: str
    lease_left_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogView:
    """What waited when the line was opened, and how far it has gone; None is not known yet.

    Rows and bytes are told from those sent so far. `left_s` is how long the rest takes at this
    rate, s.
    """

    frames_count: int
    rows_count: int | None
    size_bytes: int | None
    start_frames_count: int
    done_frac: float
    frames_s: float | None = None
    left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkView:
    """State of the line; `fix` is what a person must do where it was refused.

    `detail` says why it is down, or what of it is refused; the next try comes at
    `next_try_boot_ns`, None: it is no wait.
    """

    state: str = "none"  # none | waiting | refused | connected
    detail: str = ""
    fix: str = ""
    next_try_boot_ns: int | None = None
    batches_sent: int = 0
    batches_acked: int = 0
    backlog: BacklogView | None = None
    link_bytes_s: float | None = None


@dataclass(slots=True)
class Board:
    """Last values; each field is posted by one loop."""

    site_id: SiteId
    electric: Estimate | None = None
    loops: tuple[LoopView, ...] = ()
    sensors: Mapping[str, SensorView] = field(default_factory=dict)
    latest: dict[str, tuple[Reading, ...]] = field(default_factory=dict)
    # The same at the last tick, with the marks of admission.
    judged: tuple[Reading, ...] = ()
    # Measured energy, J, of each counter by (sensor, channel), since the agent began to count it.
    energies_j: Mapping[tuple[str, str], float] = field(default_factory=dict)
    # Beside it, never in it: what the gaps of a counter are estimated to hide.
    hidden: Mapping[tuple[str, str], Hidden] = field(default_factory=dict)
    marks: Mapping[SpoolKind, SpoolMark] = field(default_factory=dict)
    spool_bytes: int = 0
    spool_error: str = ""
    actuator_errors: Mapping[str, str] = field(default_factory=dict)  # by loop
    uplink: UplinkView = field(default_factory=UplinkView)
    identity: IdentityView = field(default_factory=IdentityView)
    # What the aggregator asks of the site's rows; nothing while the line was never open.
    asked: LineLimits = field(default_factory=LineLimits)
    setpoint: SetpointView | None = None
    # The local operator's word, above every order until its end on the boot clock.
    override: Override | None = None
    # Python 3.11 can lose a cancellation: where a task group fails in the same moment, and in
    # asyncio.wait_for, which pymodbus awaits. A loop asks here whether it was told to end.
    is_stopping: bool = False
    is_line_closing: bool = False
    ticks: int = 0
    missed_ticks: int = 0
    last_tick_boot_ns: int = 0
    listeners: "list[asyncio.Queue[Setpoint | Heartbeat]]" = field(default_factory=list)
    reports: "asyncio.Queue[SetpointReport]" = field(
        default_factory=lambda: asyncio.Queue(REPORTS_LIMIT)
    )
    spooled: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> "asyncio.Queue[Setpoint | Heartbeat]":
        """What is wished of this site from now on, for one loop of obedience."""
        self.listeners.append(asyncio.Queue(WISHES_LIMIT))
        return self.listeners[-1]

    def post_wish(self, wish: Setpoint | Heartbeat) -> None:
        """Tells every loop; each takes what is meant for it."""
        for listener in self.listeners:
            put_newest(listener, wish)

    def post_sensor(self, view: SensorView) -> None:
        """Replaces the view of one sensor."""
        self.sensors = {**self.sensors, view.id: view}

    def post_spool(self, marks: Sequence[SpoolMark], size_bytes: int) -> None:
        """Replaces the marks, and wakes who sends."""
        self.marks = {mark.kind: mark for mark in marks}
        self.spool_bytes = size_bytes
        self.spooled.set()


V = TypeVar("V")


def put_newest(queue: "asyncio.Queue[V]", value: V) -> None:
    """Puts a value; a full queue loses its oldest one, since only the newest counts."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(value)
