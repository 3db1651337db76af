"""What is remembered of one loop to find its faults, and what of it outlives a restart."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from heatpool_agent.core import residual_baseline, still_sensors
from heatpool_agent.core.diagnosis import Point
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.loop_sample import LoopModel
from heatpool_agent.core.loop_window import Means, Window
from heatpool_agent.core.meter_registers import Meter
from heatpool_agent.core.residual_baseline import Baseline
from heatpool_agent.core.still_sensors import Still

VERSION = 1
# How many two-sided sums there are; what each forgives: `residual.SUMS`.
SUM_COUNT = 3
# After a start or a gap nobody knows what the loop holds.
SETTLE_S = 900.0
# A fault ends when the residual has been as before for so many windows.
QUIET_COUNT = 12.0
# So many of the newest windows outlive a restart: as long as most faults take to be told.
SAVED_POINTS = 48
# A fault of the heats that began so shortly before a gross one was found is the gross one.
SAME_S = 7200.0
_NS = 1_000_000_000


@dataclass(slots=True)
class Sum:
    """Two-sided sums of excess residuals, and since when each is above nothing."""

    above: float = 0.0
    below: float = 0.0
    above_ns: int = 0
    below_ns: int = 0

    def add(self, above: float, below: float, start_ns: int) -> None:
        """Counts one window that began at `start_ns`: by how much it speaks for either side."""
        above, below = self.above + above, self.below + below
        self.above_ns = start_ns if self.above == 0 else self.above_ns
        self.below_ns = start_ns if self.below == 0 else self.below_ns
        self.above, self.below = max(0.0, above), max(0.0, below)


@dataclass(slots=True)
class Watch:
    """What is remembered of one loop to find its faults; begun by `begin`."""

    model: LoopModel
    baseline: Baseline
    window: Window = field(default_factory=Window)
    still: Still = field(default_factory=Still)
    meter: Meter = field(default_factory=Meter)
    sums: list[Sum] = field(default_factory=lambda: [Sum() for _ in range(SUM_COUNT)])
    points: list[Point] = field(default_factory=list)
    blocks: list[Point] = field(default_factory=list)
    hour: list[Point] = field(default_factory=list)
    # One fault of each kind of evidence at a time: heat, sensor, register, level, leak.
    lasting: dict[str, Fault] = field(default_factory=dict)
    ended: list[Fault] = field(default_factory=list)
    event_ns: int = 0
    settle_s: float = SETTLE_S
    slip: float = 0.0
    slip_count: int = 0
    reversed_count: int = 0
    late_k: float = 0.0
    quiet_count: int = 0
    smooth_z: float = 0.0
    told_count: int = 0
    levels: tuple[float | None, float | None] = (None, None)
    # What was last saved; None once a window has changed it.
    kept: dict[str, Any] | None = None


def begin(model: LoopModel) -> Watch:
    """A watch over a loop of which nothing was seen."""
    return Watch(model=model, baseline=residual_baseline.begun(model))


def faults(watch: Watch) -> tuple[Fault, ...]:
    """Faults that last, and those that ended within a day, oldest first."""
    found = [*watch.ended, *watch.lasting.values()]
    return tuple(sorted(found, key=lambda fault: fault.start_ns))


def tell(watch: Watch, kind: str, fault: str, *, start_ns: int, text: str) -> None:
    """Tells a fault of one kind of evidence; one told before keeps its start."""
    lasting = watch.lasting.get(kind)
    if lasting and lasting.fault == fault:
        start_ns = lasting.start_ns
    watch.lasting[kind] = Fault(fault=fault, start_ns=start_ns, end_ns=None, evidence=text)


def end(watch: Watch, kind: str, end_ns: int) -> None:
    """Ends the fault of one kind of evidence, if there is one."""
    fault = watch.lasting.pop(kind, None)
    if fault is not None:
        watch.ended.append(replace(fault, end_ns=max(end_ns, fault.start_ns)))


def tell_gross(watch: Watch, fault: str, *, start_ns: int, text: str) -> None:
    """Tells a gross fault of the heats; another name of the same shift gives way to it."""
    heat = watch.lasting.get("heat")
    if heat and heat.start_ns >= start_ns - SAME_S * _NS:
        start_ns = min(start_ns, heat.start_ns)
        del watch.lasting["heat"]
    end(watch, "heat", start_ns)
    forget(watch, start_ns)
    tell(watch, "heat", fault, start_ns=start_ns, text=text)


def forget(watch: Watch, since_ns: int) -> None:
    """Forgets what the heats have said since a gross fault began."""
    watch.sums = [Sum() for _ in range(SUM_COUNT)]
    watch.points = [one for one in watch.points if one.end_ns <= since_ns]
    watch.blocks = [one for one in watch.blocks if one.end_ns <= since_ns]
    watch.hour = [one for one in watch.hour if one.end_ns <= since_ns]
    watch.smooth_z = 0.0
    watch.quiet_count = 0


def quiet(watch: Watch, means: Means, *, is_quiet: bool) -> None:
    """Ends the fault of the heats once its cause was gone for an hour."""
    watch.quiet_count = watch.quiet_count + 1 if is_quiet else 0
    if watch.quiet_count < QUIET_COUNT:
        return
    span_ns = round(means.span_s * _NS)
    end(watch, "heat", means.end_ns - watch.quiet_count * span_ns)
    watch.sums = [Sum() for _ in range(SUM_COUNT)]
    watch.quiet_count = watch.slip_count = 0


def saved(watch: Watch) -> dict[str, Any]:
    """All that a restart needs to go on here, as of the last full window; plain values for JSON.

    Made anew once per window: whoever changes what is returned changes the next one too.
    """
    if watch.kept is None:
        watch.kept = _saved(watch)
    return watch.kept


def _saved(watch: Watch) -> dict[str, Any]:
    return {
        "version": VERSION,
        "place": [watch.model.fluid, watch.model.sensor_side],
        "baseline": watch.baseline.saved(),
        "still": watch.still.saved(),
        "meter": watch.meter.saved(),
        "sums": [asdict(one) for one in watch.sums],
        "points": [_row(point) for point in watch.points[-SAVED_POINTS:]],
        "blocks": [_row(point) for point in watch.blocks],
        "lasting": {kind: asdict(fault) for kind, fault in watch.lasting.items()},
        "ended": [asdict(fault) for fault in watch.ended],
        "event_ns": watch.event_ns,
        "told": [watch.quiet_count, watch.told_count, watch.smooth_z],
    }


def restored(saved: object, model: LoopModel) -> Watch | None:
    """The watch that was saved; None if it is damaged, or of another version, fluid or side.

    What stopped in between is a gap: the next windows settle first.
    """
    if not isinstance(saved, Mapping):
        return None
    try:
        if saved["version"] != VERSION or saved["place"] != [model.fluid, model.sensor_side]:
            return None
        quiet_count, told_count, smooth_z = saved["told"]
        return Watch(
            model=model,
            baseline=residual_baseline.restored(saved["baseline"]),
            still=still_sensors.restored(saved["still"]),
            meter=Meter(**saved["meter"]),
            sums=[Sum(**one) for one in saved["sums"]],
            points=[Point(*row) for row in saved["points"]],
            blocks=[Point(*row) for row in saved["blocks"]],
            lasting={kind: Fault(**fault) for kind, fault in saved["lasting"].items()},
            ended=[Fault(**fault) for fault in saved["ended"]],
            event_ns=int(saved["event_ns"]),
            quiet_count=int(quiet_count),
            told_count=int(told_count),
            smooth_z=float(smooth_z),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _row(point: Point) -> list[float | None]:
    """A point as a list; five digits tell enough, and times stay whole."""
    parts = (point.excess, point.u, point.inverse_k, point.flow_excess_frac, point.noise_ratio)
    small = [None if part is None else round(part, 5) for part in parts]
    return [point.end_ns, *small, round(point.power_step_frac, 5), round(point.heat_step_frac, 5)]
