"""Every reading of a tick with its marks: by itself, against its past, and against its fellows.

One object remembers what the checks need: passes go in as they come, a tick asks for verdicts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from heatpool.units import J_PER_WH
from heatpool_agent.core import consistency, counter_check, plausible
from heatpool_agent.core.attribution import INPUTS
from heatpool_agent.core.plausible import COUNTER_DISAGREES
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step, is_energy

Key = tuple[str, str]
# Meters of whole servers: what is drawn behind them moves them. An idle card may stand still.
_OUTER = frozenset({*INPUTS, Node.PSU_OUT})

_COUNT_J = {"energy_j": 1.0, "energy_wh": float(J_PER_WH)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Power, W, at the last tick, and what it was seen by; what a stuck gauge is known by."""

    power_w: float
    basis: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a verdict needs beside the readings.

    `loops` is what each loop draws, the empty name for readings of none; `hosts` what the
    components of each host draw; `places` the host of each sensor; `capacities_w` what each loop
    can reject, where it is known.
    """

    boot_ns: int
    periods_s: Mapping[str, float] = field(default_factory=dict)
    loops: Mapping[str, Drawn] = field(default_factory=dict)
    hosts: Mapping[str, Drawn] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    capacities_w: Mapping[str, float] = field(default_factory=dict)


class Admission:
    """Verdicts over all sensors; deletes nothing, changes no value."""

    def __init__(self) -> None:
        self._pasts: dict[tuple[str, str, str], plausible.Past] = {}
        self._doubts: dict[str, consistency.Doubts] = {}
        self._counters: dict[Key, counter_check.CounterCheck] = {}
        self._flags: dict[str, dict[Key, tuple[str, ...]]] = {}

    def take(self, sensor: str, readings: Sequence[Reading], steps: Mapping[Key, Step]) -> None:
        """Remembers one pass of one sensor; `steps` are the counters' last ones."""
        before = self._doubts.get(sensor, consistency.Doubts())
        after = consistency.observe(before, readings)
        if after is not before:
            self._doubts[sensor] = after
            self._flags[sensor] = consistency.flags(after)
        self._take_counters(sensor, readings, steps)

    def _take_counters(
        self, sensor: str, readings: Sequence[Reading], steps: Mapping[Key, Step]
    ) -> None:
        powers = {
            r.channel: r
            for r in readings
            if r.quantity == "power_w" and r.kind is ReadingKind.GAUGE
        }
        if not powers:
            return
        for reading in readings:
            key = (sensor, reading.channel)
            if not is_energy(reading) or key not in steps:
                continue
            power = powers.get(reading.channel) or _only_of(reading.node, powers.values())
            if power is not None:
                sample = counter_check.Sample(
                    boot_ns=reading.boot_ns,
                    power_w=power.value,
                    delta_j=steps[key].delta_j,
                    resolution_j=resolution_j(reading),
                )
                self._counters[key] = counter_check.advance(self._counters.get(key), sample)

    def judged(self, readings: Sequence[Reading], scene: Scene) -> list[Reading]:
        """The same readings with their marks."""
        rated_w = {(r.sensor, r.channel): r.value for r in readings if r.quantity == "rated_w"}
        return [
            self._judged(reading, rated_w.get((reading.sensor, reading.channel)), scene)
            for reading in readings
        ]

    def _judged(self, reading: Reading, rated_w: float | None, scene: Scene) -> Reading:
        key = (reading.sensor, reading.channel, reading.quantity)
        # Most readings have no past that could say anything: half of a tick's time.
        is_remembered = reading.quantity in plausible.REMEMBERED
        past = self._pasts.get(key) if is_remembered else None
        judged = plausible.judge(
            reading,
            past,
            boot_ns=scene.boot_ns,
            period_s=max(scene.periods_s.get(reading.sensor, 1.0), 1.0),
            rated_w=rated_w,
            capacity_w=scene.capacities_w.get(reading.loop),
        )
        if is_remembered and (past is None or past.boot_ns != reading.boot_ns):
            drawn = _drawn(reading, scene)
            self._pasts[key] = plausible.remember(
                past,
                reading,
                power_w=drawn.power_w if drawn else None,
                basis=drawn.basis if drawn else (),
            )
        found = self._flags.get(reading.sensor, {}).get((reading.channel, reading.quantity), ())
        check = self._counters.get((reading.sensor, reading.channel))
        if check is not None and check.is_refused and is_energy(reading):
            found = (*found, COUNTER_DISAGREES)
        return plausible.marked(judged, found) if found else judged


def _only_of(node: Node, powers: Iterable[Reading]) -> Reading | None:
    """The one power of a node, where a device shows it under another channel than its energy."""
    found = [r for r in powers if r.node is node]
    return found[0] if len(found) == 1 else None


def _drawn(reading: Reading, scene: Scene) -> Drawn | None:
    """What should move this reading."""
    if reading.quantity != "power_w":
        return scene.loops.get(reading.loop)
    is_outer = reading.node in _OUTER
    return scene.hosts.get(scene.places.get(reading.sensor, "")) if is_outer else None


def resolution_j(reading: Reading) -> float:
    """One count of an energy counter, J."""
    return _COUNT_J[reading.quantity] * 10.0**reading.exponent
