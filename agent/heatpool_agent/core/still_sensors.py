"""Sensors that stand still while heat flows: a stuck one, or a meter that says no more.

A coarse sensor in a calm pipe may honestly show the same for long: what counts is how long it stood
still before, and that the load moved meanwhile. Source: agent.md 6 A; physics.md 9.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from heatpool_agent.core.loop_sample import LoopSample

# No variance for 20 samples while power moves by a tenth.
STILL_COUNT = 20.0
MOVED_FRAC = 0.10
# A loop's hot pipe follows its load within this time.
STILL_S = 600.0
# So much longer than ever before.
LONGER = 4.0
# A sensor that changed so often, and never stood for more than three samples, is never still.
LIVELY_COUNT = 50.0
LIVELY_RUN = 3.0
# Of such a one fewer samples are enough if they are rare.
LIVELY_STILL_COUNT = 8.0
LIVELY_STILL_S = 3600.0
# The cold pipe and a pump at fixed speed do not follow the load: they take a day to be known.
KNOWN_S = 86_400.0
UNKNOWN_STILL_S = 12 * 3600.0
# It goes again when it changed so often.
MENDED_COUNT = 3
# Flow of nothing while the pipes differ and power is drawn: water would boil by then.
DRY_S = 900.0
DRY_DELTA_K = 1.0
NOTHING_M3_H = 1e-9

WORDS = {"hot_c": "hot", "cold_c": "cold", "volume_flow_m3_h": "flow"}
_UNITS = {"hot_c": "degC", "cold_c": "degC", "volume_flow_m3_h": "m3/h"}


@dataclass(slots=True)
class Run:
    """How long one sensor has shown the same; powers of the run's samples beside it."""

    value: float | None = None
    count: int = 0
    lasts_s: float = 0.0
    start_ns: int = 0
    low_w: float | None = None
    high_w: float | None = None
    longest: int = 1
    change_count: int = 0
    seen_s: float = 0.0
    moved_count: int = 0
    is_stuck: bool = False
    # What was told of it while it stood still: the samples by which it mends tell nothing.
    told_ns: int = 0
    told: str = ""

    def add(self, value: float, span_s: float, power_w: float | None, event_ns: int) -> None:
        """Counts one sample."""
        self.seen_s += span_s
        if value != self.value:
            self._turned(value, event_ns)
            self.low_w = self.high_w = power_w
            return
        self.count += 1
        self.lasts_s += span_s
        if power_w is not None:
            self.low_w = power_w if self.low_w is None else min(self.low_w, power_w)
            self.high_w = power_w if self.high_w is None else max(self.high_w, power_w)

    def _turned(self, value: float, event_ns: int) -> None:
        if self.value is not None:
            self.change_count += 1
        if self.is_stuck:
            self.moved_count += 1
            self.is_stuck = self.moved_count < MENDED_COUNT
        # One that always moved was stuck indeed; of another nobody knows, and it is excused.
        if not self.is_lively or not self.moved_count:
            self.longest = max(self.longest, self.count)
        if not self.is_stuck:
            self.moved_count = 0
        self.value, self.count, self.lasts_s, self.start_ns = value, 1, 0.0, event_ns

    @property
    def is_lively(self) -> bool:
        """Whether it has always moved from sample to sample."""
        return self.change_count >= LIVELY_COUNT and self.longest <= LIVELY_RUN

    @property
    def load_moved(self) -> float:
        """By which share power moved while the sensor stood still."""
        if self.low_w is None or self.high_w is None or self.high_w <= 0:
            return 0.0
        return (self.high_w - self.low_w) / self.high_w

    def stands(self, *, follows_load: bool) -> bool:
        """Whether it has stood still for longer than a sound one would."""
        if self.is_lively and self.count >= LIVELY_STILL_COUNT and self.lasts_s >= LIVELY_STILL_S:
            return True
        if self.count < STILL_COUNT or self.lasts_s < STILL_S or self.change_count < 1:
            return False
        if self.is_lively:
            return True
        if self.load_moved <= MOVED_FRAC or self.count <= LONGER * self.longest:
            return False
        return follows_load or self.seen_s >= KNOWN_S or self.lasts_s >= UNKNOWN_STILL_S


@dataclass(slots=True)
class Still:
    """The runs of the three sensors of a loop, and since when its flow is nothing."""

    runs: dict[str, Run] = field(default_factory=lambda: {name: Run() for name in WORDS})
    dry_s: float = 0.0
    dry_ns: int = 0
    dead: str = ""

    def add(self, sample: LoopSample, *, event_ns: int) -> None:
        """Counts one sample."""
        span_s, power_w, runs = sample.span_s, sample.power_w, self.runs
        hot_c, cold_c, flow_m3_h = sample.hot_c, sample.cold_c, sample.volume_flow_m3_h
        if hot_c is not None:
            runs["hot_c"].add(hot_c, span_s, power_w, event_ns)
        if cold_c is not None:
            runs["cold_c"].add(cold_c, span_s, power_w, event_ns)
        if flow_m3_h is not None:
            runs["volume_flow_m3_h"].add(flow_m3_h, span_s, power_w, event_ns)
        is_dry = flow_m3_h is not None and abs(flow_m3_h) <= NOTHING_M3_H
        if is_dry and hot_c is not None and cold_c is not None and power_w:
            is_dry = hot_c - cold_c > DRY_DELTA_K
            self.dry_ns = event_ns if self.dry_s == 0 else self.dry_ns
            self.dry_s = self.dry_s + max(span_s, 1e-3) if is_dry else 0.0
        elif flow_m3_h is not None:
            self.dry_s = 0.0

    def found(self) -> list[tuple[str, int, str]]:
        """Each sensor that stands still: fault, since when, and the evidence."""
        if self.dry_s >= DRY_S:
            return [("dead_meter", self.dry_ns, self._dry_text())]
        for name, run in self.runs.items():
            run.is_stuck = run.is_stuck or run.stands(follows_load=name == "hot_c")
            if run.is_stuck and not run.moved_count:
                run.told, run.told_ns = _text(name, run), run.start_ns
        stuck = {name: run for name, run in self.runs.items() if run.is_stuck}
        if len(stuck) == len(self.runs):
            if not any(run.moved_count for run in stuck.values()):
                self.dead = _all_text(stuck["hot_c"])
            return [("dead_meter", min(run.told_ns for run in stuck.values()), self.dead)]
        starts = [run.told_ns for run in stuck.values()]
        text = "; ".join(run.told for run in stuck.values())
        return [("stuck_sensor", min(starts), text)] if stuck else []

    def _dry_text(self) -> str:
        hot_c, cold_c = self.runs["hot_c"].value, self.runs["cold_c"].value
        assert hot_c is not None and cold_c is not None
        return (
            f"flow shows 0 for {self.dry_s / 60:.0f} min while power is drawn and the pipes differ "
            f"by {hot_c - cold_c:.1f} K: see that the pump runs, then check the flow meter"
        )

    def saved(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def restored(saved: dict[str, Any]) -> Still:
    """What was saved. Raises: KeyError, TypeError if it is damaged."""
    runs = {name: Run(**saved["runs"][name]) for name in WORDS}
    dry_s, dry_ns = float(saved["dry_s"]), int(saved["dry_ns"])
    return Still(runs=runs, dry_s=dry_s, dry_ns=dry_ns, dead=str(saved.get("dead", "")))


def _text(name: str, run: Run) -> str:
    moved = f" while power moved by {run.load_moved:.0%}" if run.load_moved > 0 else ""
    where = "flow sensor" if name == "volume_flow_m3_h" else f"{WORDS[name]} sensor"
    value = "nothing" if run.value is None else f"{run.value:.6g} {_UNITS[name]}"
    return (
        f"{where} shows {value} for {_samples(run.count)} ({run.lasts_s / 60:.0f} min){moved}, "
        f"never more than {run.longest} before: check its wiring, or exchange it"
    )


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"


def _all_text(run: Run) -> str:
    return (
        f"flow and both temperatures show the same for {_samples(run.count)} "
        f"({run.lasts_s / 60:.0f} min): the meter or its line no longer answers anew; restart it"
    )
