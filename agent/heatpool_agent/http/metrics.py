"""The board in Prometheus' words and base units; a scrape touches no device.

What is absent is left out: a series that ends is honest, a zero is not.
"""

from collections.abc import Callable, Iterable, Iterator
from math import isfinite

from heatpool.sample import Estimate
from heatpool.units import NS_PER_S
from heatpool_agent.board import LoopView
from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.http.exposition import CONTENT_TYPE as CONTENT_TYPE
from heatpool_agent.http.exposition import Metric, exposed
from heatpool_agent.http.loop_status import active
from heatpool_agent.http.seen import Seen, override_left_s, unacked_count

S_PER_H = 3600
_UP = {"up": 1.0, "gone": 0.0, "busy": 0.0}

Sample = tuple[tuple[str, ...], float | None]


class BoardCollector:
    """Reads what is seen at each scrape."""

    def __init__(
        self, look: Callable[[], Seen], *, version: str, cpu_s: Callable[[], float]
    ) -> None:
        self._look = look
        self._version = version
        self._cpu_s = cpu_s

    def collect(self) -> Iterator[Metric]:
        """All families that have a value."""
        seen = self._look()
        families = (
            *_heat(seen.loops),
            *_shares(seen.loops),
            *_states(seen.loops),
            *_quarrels(seen.loops),
            *_coolant(seen.loops),
            *_sensors(seen),
            *_site(seen),
            *_line(seen),
        )
        yield from (family for family in families if family.samples)
        yield _counter(
            "heatpool_agent_missed_ticks", "Ticks skipped.", [((), float(seen.board.missed_ticks))]
        )
        yield _counter(
            "heatpool_agent_cpu_seconds", "CPU time of the agent.", [((), self._cpu_s())]
        )
        built: list[Sample] = [((self._version,), 1.0)]
        yield _gauge("heatpool_build_info", "What is running.", built, "version")


def render(collector: BoardCollector) -> bytes:
    """The page."""
    return exposed(collector.collect())


def _gauge(name: str, text: str, samples: Iterable[Sample], *labels: str) -> Metric:
    known = tuple(_known(samples))
    return Metric(name=name, text=text, kind="gauge", labels=labels, samples=known)


def _counter(name: str, text: str, samples: Iterable[Sample], *labels: str) -> Metric:
    known = tuple(_known(samples))
    return Metric(name=f"{name}_total", text=text, kind="counter", labels=labels, samples=known)


def _known(samples: Iterable[Sample]) -> Iterator[tuple[tuple[str, ...], float]]:
    for values, value in samples:
        if value is not None and isfinite(value):
            yield values, value


def _estimates(view: LoopView) -> Iterator[tuple[tuple[str, str], Estimate]]:
    for basis, estimate in (
        ("electric", view.electric),
        ("computed", view.computed),
        ("fused", view.fused),
    ):
        if estimate is not None:
            yield (view.loop_id, basis), estimate


def _heat(loops: Iterable[LoopView]) -> Iterator[Metric]:
    known = [pair for view in loops for pair in _estimates(view)]
    reported: list[Sample] = [((view.loop_id, "reported"), view.reported_heat_w) for view in loops]
    yield _gauge(
        "heatpool_heat_watts",
        "Heat rate into the coolant: a device's own figure, ours by flow or by power, and fused.",
        [*reported, *((key, estimate.value) for key, estimate in known)],
        "loop",
        "basis",
    )
    assumed: list[Sample] = [((view.loop_id, "reported"), view.reported_heat_w_u) for view in loops]
    yield _gauge(
        "heatpool_heat_uncertainty_watts",
        "Standard uncertainty (k = 1) of the heat rate; assumed for a device's own figure.",
        [*assumed, *((key, estimate.u) for key, estimate in known)],
        "loop",
        "basis",
    )
    yield _gauge(
        "heatpool_quality_class",
        "How good the figure is: 1 is A, a verified heat meter, to 5, E, a rating model.",
        [(key, float(estimate.quality)) for key, estimate in known],
        "loop",
        "basis",
    )


def _shares(loops: Iterable[LoopView]) -> Iterator[Metric]:
    """Where the electric power of a loop goes."""
    walls = [(view.loop_id, view.power.whole) for view in loops if view.power is not None]
    airs = [(view.loop_id, view.air) for view in loops if view.air is not None]
    for name, text, told in (
        ("wall", "Electric power at the wall that warms the loop.", walls),
        ("air", "Heat that leaves with the air: power at the wall less heat in the coolant.", airs),
    ):
        yield _gauge(f"heatpool_{name}_watts", text, [((i,), e.value) for i, e in told], "loop")
        yield _gauge(
            f"heatpool_{name}_uncertainty_watts",
            "Standard uncertainty (k = 1) of it.",
            [((i,), e.u) for i, e in told],
            "loop",
        )
    captures = [(view.loop_id, view.capture) for view in loops if view.capture is not None]
    yield _gauge(
        "heatpool_capture_ratio",
        "Share of the electric power at the wall that the coolant takes.",
        [((loop_id,), capture.frac) for loop_id, capture in captures],
        "loop",
    )
    yield _gauge(
        "heatpool_capture_uncertainty_ratio",
        "Standard uncertainty (k = 1) of that share.",
        [((loop_id,), capture.frac_u) for loop_id, capture in captures],
        "loop",
    )


def _states(loops: Iterable[LoopView]) -> Iterator[Metric]:
    yield _gauge(
        "heatpool_fault",
        "1 while a fault of a loop lasts; its evidence is in the status.",
        [((view.loop_id, fault.fault), 1.0) for view in loops for fault in active(view)],
        "loop",
        "fault",
    )
    yield _gauge(
        "heatpool_loop_phase",
        "1 for what the fused heat of a loop rests on now.",
        [((view.loop_id, view.phase), 1.0) for view in loops if view.phase],
        "loop",
        "phase",
    )


def _quarrels(loops: Iterable[LoopView]) -> Iterator[Metric]:
    yield _gauge(
        "heatpool_disagreement_ratio",
        "Excess of the first heat of a pair over the second, beyond both doubts; none: they agree.",
        [((view.loop_id, one.pair), one.size_frac) for view in loops for one in view.disagreements],
        "loop",
        "pair",
    )
    yield _gauge(
        "heatpool_contradiction_ratio",
        "Excess of an inner level of a host's power over the outer one, beyond both doubts.",
        [
            ((view.loop_id, one.host, one.outer, one.inner), one.size_frac)
            for view in loops
            for one in view.contradictions
        ],
        "loop",
        "host",
        "outer",
        "inner",
    )


def _coolant(loops: Iterable[LoopView]) -> Iterator[Metric]:
    yield _gauge(
        "heatpool_coolant_celsius",
        "Temperature of the hot and the cold pipe.",
        [
            ((view.loop_id, side), value)
            for view in loops
            for side, value in (("hot", view.hot_c), ("cold", view.cold_c))
        ],
        "loop",
        "side",
    )
    yield _gauge(
        "heatpool_coolant_flow_cubic_meters_per_second",
        "Volume flow of the coolant.",
        [
            ((view.loop_id,), view.volume_flow_m3_h / S_PER_H)
            for view in loops
            if view.volume_flow_m3_h is not None
        ],
        "loop",
    )
    yield _gauge(
        "heatpool_leak",
        "1 if a leak is seen, 0 if a detector sees none.",
        [((view.loop_id,), float(view.leak)) for view in loops if view.leak is not None],
        "loop",
    )


def _sensors(seen: Seen) -> Iterator[Metric]:
    views = seen.board.sensors.values()
    yield _gauge(
        "heatpool_sensor_up",
        "1 if the last read gave readings, 0 if it failed.",
        [((view.id,), _UP.get(view.state)) for view in views],
        "sensor",
    )
    yield _gauge(
        "heatpool_sensor_read_seconds",
        "Duration of the last good read.",
        [((view.id,), view.read_s) for view in views],
        "sensor",
    )
    refused: dict[tuple[str, ...], float] = {}
    for reading in () if seen.is_stale else seen.board.judged:
        key = (reading.sensor,)
        refused[key] = refused.get(key, 0.0) + (not is_admitted(reading))
    yield _gauge(
        "heatpool_refused_readings",
        "Readings of the last pass that enter no estimate; their marks are in the status.",
        refused.items(),
        "sensor",
    )
    yield _counter(
        "heatpool_energy_joules",
        "Energy of a counter since the agent began to count it; gaps are not in it.",
        seen.board.energies_j.items(),
        "sensor",
        "channel",
    )
    hidden = seen.board.hidden.items()
    yield _gauge(
        "heatpool_gap_energy_joules",
        "What the gaps of a counter are estimated to hide; in no total.",
        ((key, gaps.energy_j) for key, gaps in hidden if gaps.energy_j is not None),
        "sensor",
        "channel",
    )
    yield _gauge(
        "heatpool_gap_energy_uncertainty_joules",
        "Standard uncertainty of what the gaps of a counter hide.",
        ((key, gaps.energy_j_u) for key, gaps in hidden if gaps.energy_j_u is not None),
        "sensor",
        "channel",
    )


def _site(seen: Seen) -> Iterator[Metric]:
    board = seen.board
    size_bytes: list[Sample] = [((), float(board.spool_bytes))] if board.marks else []
    lease_s: list[Sample] = [((), board.setpoint.lease_left_s)] if board.setpoint else []
    yield _gauge("heatpool_spool_bytes", "Telemetry on disk.", size_bytes)
    yield _gauge(
        "heatpool_spool_unacked_batches",
        "Batches on disk that are not known to be durable at the aggregator.",
        [((kind.name.lower(),), float(unacked_count(mark))) for kind, mark in board.marks.items()],
        "kind",
    )
    end_ns = board.identity.end_ns
    yield _gauge(
        "heatpool_certificate_expiry_seconds",
        "When this site's certificate ends, s since 1970; none: it has not joined.",
        [] if end_ns is None else [((), end_ns / NS_PER_S)],
    )
    left_s: list[Sample] = [((), override_left_s(seen))]
    yield _gauge(
        "heatpool_override_seconds", "What is left of the local operator's override.", left_s
    )
    yield _gauge(
        "heatpool_setpoint_lease_seconds", "What is left of the setpoint's lease.", lease_s
    )


def _line(seen: Seen) -> Iterator[Metric]:
    uplink = seen.board.uplink
    # A site that sends nowhere has no line that could be down.
    state: list[Sample] = [((uplink.state,), 1.0)] if uplink.state != "none" else []
    yield _gauge("heatpool_line_state", "1 for the state of the line now.", state, "state")
    link: list[Sample] = [((), uplink.link_bytes_s)]
    yield _gauge("heatpool_link_bytes_per_second", "What the line carries, as measured.", link)
    backlog = uplink.backlog
    if backlog is None:
        return
    for name, text, value in (
        ("backlog_frames", "Older batches that are still to be sent.", backlog.frames_count),
        ("backlog_done_ratio", "Share of the older batches that has arrived.", backlog.done_frac),
        ("backlog_left_seconds", "How long the rest takes at this rate.", backlog.left_s),
    ):
        told: list[Sample] = [((), None if value is None else float(value))]
        yield _gauge(f"heatpool_{name}", text, told)
