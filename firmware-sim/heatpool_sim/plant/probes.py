"""Where the coolant unit's sensors sit: water reaches them late, and they follow it slowly."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import expm1

from heatpool_sim.plant.faults import Lasting
from heatpool_sim.plant.loop import LoopState

_NOTHING: frozenset[str] = frozenset()
_ALL = frozenset({"hot", "cold", "flow"})
_KEPT_NS = 10**9  # the pipe's temperatures are kept each second, straight lines in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How late water comes to the temperature sensors, and their own time constant."""

    delay_s: float = 0.0
    lag_s: float = 0.0


AT_ONCE = Probes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """What the sensors feel: their temperatures, the flow, and the water still on its way.

    `pipe` holds (at_ns, hot_c, cold_c), oldest first; the last is now.
    """

    hot_c: float
    cold_c: float
    volume_flow_m3_h: float
    pipe: tuple[tuple[int, float, float], ...]


def steady(loop: LoopState, *, at_ns: int) -> Felt:
    """Sensors of a loop that has long been as it is."""
    return Felt(
        hot_c=loop.hot_c,
        cold_c=loop.cold_c,
        volume_flow_m3_h=loop.volume_flow_m3_h,
        pipe=((at_ns, loop.hot_c, loop.cold_c),),
    )


def step(
    probes: Probes,
    felt: Felt,
    loop: LoopState,
    *,
    at_ns: int,
    dt_s: float,
    lasting: Mapping[str, Lasting],
) -> Felt:
    """What the sensors feel after the step; one that is stuck or dead stays where it was."""
    pipe = _filled(felt.pipe, (at_ns, loop.hot_c, loop.cold_c))
    seen_ns = at_ns - round(probes.delay_s * 1e9)
    pipe = _emptied(pipe, seen_ns)
    hot_c, cold_c = _at(pipe, seen_ns)
    share = -expm1(-dt_s / probes.lag_s) if probes.lag_s else 1.0
    still = standing(lasting)
    flow_m3_h = loop.volume_flow_m3_h
    return Felt(
        hot_c=felt.hot_c if "hot" in still else felt.hot_c + share * (hot_c - felt.hot_c),
        cold_c=felt.cold_c if "cold" in still else felt.cold_c + share * (cold_c - felt.cold_c),
        volume_flow_m3_h=felt.volume_flow_m3_h if "flow" in still else flow_m3_h,
        pipe=pipe,
    )


def standing(lasting: Mapping[str, Lasting]) -> frozenset[str]:
    """Which of the sensors `hot`, `cold`, `flow` show what they last showed, to the last digit."""
    if not lasting:
        return _NOTHING
    if "meter_dead" in lasting:
        return _ALL
    stuck = lasting.get("temperature_stuck")
    still = {stuck.pipe} if stuck else set()
    return frozenset(still | {"flow"} if "flow_stuck" in lasting else still)


def _filled(
    pipe: tuple[tuple[int, float, float], ...], now: tuple[int, float, float]
) -> tuple[tuple[int, float, float], ...]:
    """The pipe with what enters it now; the entry before goes where it is not a second old."""
    if len(pipe) > 1 and now[0] - pipe[-2][0] < _KEPT_NS:
        pipe = pipe[:-1]
    return (*pipe, now)


def _emptied(
    pipe: tuple[tuple[int, float, float], ...], seen_ns: int
) -> tuple[tuple[int, float, float], ...]:
    """The pipe without what has gone past the sensors; one entry before them is kept."""
    gone = 0
    while gone + 1 < len(pipe) and pipe[gone + 1][0] <= seen_ns:
        gone += 1
    return pipe[gone:]


def _at(pipe: tuple[tuple[int, float, float], ...], seen_ns: int) -> tuple[float, float]:
    first = pipe[0]
    if len(pipe) == 1 or seen_ns <= first[0]:
        return first[1], first[2]
    second = pipe[1]
    share = min((seen_ns - first[0]) / (second[0] - first[0]), 1.0)
    hot_c = first[1] + share * (second[1] - first[1])
    return hot_c, first[2] + share * (second[2] - first[2])
