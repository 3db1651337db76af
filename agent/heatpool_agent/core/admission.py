"""Every reading of a tick with its marks: by itself, against its past, and against its fellows.

One object remembers what the checks need: passes go in as they come, a tick asks for verdicts.
"""

from collections.abc import Mapping, Sequence

from heatpool.units import J_PER_WH
from heatpool_agent.core import consistency, counter_check, plausible
from heatpool_agent.core.plausible import COUNTER_DISAGREES
from heatpool_agent.core.reading import Reading, ReadingKind
from heatpool_agent.core.totals import Step, is_energy

Key = tuple[str, str]

_COUNT_J = {"energy_j": 1.0, "energy_wh": float(J_PER_WH)}


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
        powers_w = {
            r.channel: r.value
            for r in readings
            if r.quantity == "power_w" and r.kind is ReadingKind.GAUGE
        }
        if not powers_w:
            return
        for reading in readings:
            key = (sensor, reading.channel)
            if reading.channel in powers_w and is_energy(reading) and key in steps:
                sample = counter_check.Sample(
                    boot_ns=reading.boot_ns,
                    power_w=powers_w[reading.channel],
                    delta_j=steps[key].delta_j,
                    resolution_j=resolution_j(reading),
                )
                self._counters[key] = counter_check.advance(self._counters.get(key), sample)

    def judged(
        self,
        readings: Sequence[Reading],
        periods_s: Mapping[str, float],
        *,
        boot_ns: int,
        power_w: float | None,
    ) -> list[Reading]:
        """The same readings with their marks; `power_w` is what the site drew at the last tick."""
        rated_w = {(r.sensor, r.channel): r.value for r in readings if r.quantity == "rated_w"}
        return [
            self._judged(
                reading,
                boot_ns=boot_ns,
                period_s=periods_s.get(reading.sensor, 1.0),
                rated_w=rated_w.get((reading.sensor, reading.channel)),
                power_w=power_w,
            )
            for reading in readings
        ]

    def counter_checks(self) -> Mapping[Key, counter_check.CounterCheck]:
        """The state of every counter that has a power beside it."""
        return self._counters

    def _judged(
        self,
        reading: Reading,
        *,
        boot_ns: int,
        period_s: float,
        rated_w: float | None,
        power_w: float | None,
    ) -> Reading:
        key = (reading.sensor, reading.channel, reading.quantity)
        past = self._pasts.get(key)
        judged = plausible.judge(
            reading, past, boot_ns=boot_ns, period_s=max(period_s, 1.0), rated_w=rated_w
        )
        if past is None or past.boot_ns != reading.boot_ns:
            self._pasts[key] = plausible.remember(past, reading, power_w=power_w)
        found = self._flags.get(reading.sensor, {}).get((reading.channel, reading.quantity), ())
        check = self._counters.get((reading.sensor, reading.channel))
        if check is not None and check.is_refused and is_energy(reading):
            found = (*found, COUNTER_DISAGREES)
        return plausible.marked(judged, found) if found else judged


def resolution_j(reading: Reading) -> float:
    """One count of an energy counter, J."""
    return _COUNT_J[reading.quantity] * 10.0**reading.exponent
