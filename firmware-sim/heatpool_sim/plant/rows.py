"""What a site's sensors would have written into a log, row by row, and the truth beside it.

Time is simulated: no device, no socket. A row holds means over the span that ends at its time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from heatpool_sim.plant import faults, site
from heatpool_sim.plant.faults import Fault, Lasting
from heatpool_sim.plant.loop_gauges import GaugeErrors, LoopGauges, loop_gauges
from heatpool_sim.plant.noise import normal
from heatpool_sim.plant.site import Plant, SiteHeat, SiteState

_STEP_S = 2.0  # a quarter of the quickest time constant, the sensors'
_ROOM_NOISE_C = 0.1
_ENERGIES = ("electric_j", "liquid_j", "carried_j", "lost_j", "stored_j", "held_j")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the sensors showed, errors and faults of theirs included."""

    power_w: float
    volume_flow_m3_h: float
    hot_c: float
    cold_c: float
    ambient_c: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What happened, which no sensor shows.

    `heat_rate_w` is what the coolant carried out of the loop. electric = liquid + air + held;
    liquid = heat_rate + lost + stored.
    """

    electric_w: float
    liquid_w: float
    heat_rate_w: float
    lost_w: float
    stored_w: float
    held_w: float
    energy_wh: float
    volume_flow_m3_h: float
    hot_c: float
    cold_c: float
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One span: when it ended, what was shown, what was true."""

    at_ns: int
    shown: Shown
    truth: Truth


@dataclass(slots=True)
class _Course:
    """A site on its way through time."""

    plant: Plant
    state: SiteState
    errors: GaugeErrors
    planned: Sequence[Fault]
    since_start_s: float = 0.0
    energy_wh: float = 0.0


def rows(
    plant: Plant,
    state: SiteState,
    errors: GaugeErrors,
    *,
    planned: Sequence[Fault],
    period_s: float,
    count: int,
) -> Iterator[Row]:
    """So many rows of a site from this state on; faults are planned from its beginning."""
    start_ns = state.at_ns
    course = _Course(plant, state, errors, planned)
    for index in range(1, count + 1):
        yield _row(course, period_s=period_s, at_ns=start_ns + round(index * period_s * 1e9))


def _row(course: _Course, *, period_s: float, at_ns: int) -> Row:
    steps = max(ceil(period_s / _STEP_S), 1)
    felt, heats, states = [], [], []
    lasting: dict[str, Lasting] = {}
    seen: dict[str, None] = {}
    for _ in range(steps):
        lasting = faults.lasting(course.planned, since_start_s=course.since_start_s)
        seen.update(dict.fromkeys(lasting))
        course.state, heat = site.step(
            course.plant, course.state, dt_s=period_s / steps, lasting=lasting
        )
        course.since_start_s += period_s / steps
        felt.append(_looked(course, lasting, noise_scale=0.0))
        heats.append(heat)
        states.append(course.state)
    truth = _truth(course, heats, states, period_s=period_s, seen=tuple(seen))
    return Row(at_ns=at_ns, shown=_shown(course, felt, lasting), truth=truth)


def _looked(
    course: _Course, lasting: Mapping[str, Lasting], *, noise_scale: float = 1.0
) -> LoopGauges:
    return loop_gauges(
        course.plant, course.state, course.errors, lasting=lasting, noise_scale=noise_scale
    )


def _shown(course: _Course, felt: Sequence[LoopGauges], lasting: Mapping[str, Lasting]) -> Shown:
    """Means of what was felt; noise comes once a row, as to a logger that takes one figure."""
    noisy, last = _looked(course, lasting), felt[-1]
    room_c = course.plant.loop.room_c
    shaken = normal(f"{course.plant.seed}/room", course.state.at_ns)
    return Shown(
        power_w=_mean([one.electric_w for one in felt]) + noisy.electric_w - last.electric_w,
        volume_flow_m3_h=_mean([one.volume_flow_m3_h for one in felt])
        + noisy.volume_flow_m3_h
        - last.volume_flow_m3_h,
        hot_c=_mean([one.hot_c for one in felt]) + noisy.hot_c - last.hot_c,
        cold_c=_mean([one.cold_c for one in felt]) + noisy.cold_c - last.cold_c,
        ambient_c=room_c + _ROOM_NOISE_C * shaken,
    )


def _truth(
    course: _Course,
    heats: Sequence[SiteHeat],
    states: Sequence[SiteState],
    *,
    period_s: float,
    seen: tuple[str, ...],
) -> Truth:
    rates_w = {name: sum(getattr(heat, name) for heat in heats) / period_s for name in _ENERGIES}
    course.energy_wh += rates_w["carried_j"] * period_s / 3600.0
    return Truth(
        electric_w=rates_w["electric_j"],
        liquid_w=rates_w["liquid_j"],
        heat_rate_w=rates_w["carried_j"],
        lost_w=rates_w["lost_j"],
        stored_w=rates_w["stored_j"],
        held_w=rates_w["held_j"],
        energy_wh=course.energy_wh,
        volume_flow_m3_h=_mean([one.loop.volume_flow_m3_h for one in states]),
        hot_c=_mean([one.loop.hot_c for one in states]),
        cold_c=_mean([one.loop.cold_c for one in states]),
        faults=seen,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
