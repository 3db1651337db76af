"""All that the estimator of record knows of one loop, and how that outlives a restart."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from heatpool_agent.core.loop_forecast import Rate, Surroundings
from heatpool_agent.core.loop_matrix import Belief, Total
from heatpool_agent.core.loop_past import Past
from heatpool_agent.core.loop_physics import BIASES, STATES

# A form that an older or newer filter wrote is not read: it learns anew within hours.
_VERSION = 1
NEVER_S = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of one loop; made by `kalman.begin`, and never changed in place.

    A loop whose water was never seen is a gauge: flow, cold and mass are chosen for convenience.
    """

    belief: Belief | None = None
    prior_u2: tuple[float, ...] = ()
    around: Surroundings = field(default_factory=Surroundings)
    past: tuple[Past, ...] = ()
    # Heat rate over the last span, and over the time that the water needs to the sensors.
    present: tuple[Rate, Rate] | None = None
    # How much more flow, cold and heat wander than assumed: factors on their variance, learnt.
    restless: tuple[float, float, float] = (1.0, 1.0, 1.0)
    # Factor on every doubt where power and water contradict each other beyond their priors.
    stretch: float = 1.0
    coefficient_wh_m3_k: float = 1150.0
    period_s: float = 0.0
    age_s: float = 0.0
    # For so long power and water were seen together.
    learnt_s: float = 0.0
    without_power_s: float = NEVER_S
    without_water_s: float = NEVER_S
    still_s: float = 0.0
    is_gauge: bool = True
    # The flow meter shows nothing while power says that heat must go somewhere.
    is_meter_dead: bool = False
    waiting: tuple[str, ...] = ()


def saved(state: State) -> dict[str, Any]:
    """The state as a document of JSON types."""
    belief, present = state.belief, state.present
    return {
        "version": _VERSION,
        "mean": None if belief is None else belief.mean,
        "cov": None if belief is None else belief.cov,
        "totals": {}
        if belief is None
        else {
            name: [
                total.value,
                total.variance,
                total.lag_s,
                total.wait_s,
                total.age_s,
                *total.row,
            ]
            for name, total in belief.totals.items()
        },
        "prior_u2": list(state.prior_u2),
        "around": [state.around.room_c, state.around.loss_w_k],
        "past": [list(span) for span in state.past],
        "present": None if present is None else [_rate_row(rate) for rate in present],
        "restless": list(state.restless),
        "clocks": [
            state.coefficient_wh_m3_k,
            state.period_s,
            state.age_s,
            state.without_power_s,
            state.without_water_s,
            state.still_s,
            state.stretch,
            state.learnt_s,
        ],
        "is_gauge": state.is_gauge,
        "is_meter_dead": state.is_meter_dead,
        "waiting": list(state.waiting),
    }


def _rate_row(rate: Rate) -> list[float]:
    partials = [rate.partials.get(index, 0.0) for index in range(STATES)]
    return [rate.value_w, rate.noise_w2, *partials]


def restored(document: object) -> State | None:
    """The state out of such a document; None if it is damaged or of another version."""
    try:
        if not isinstance(document, dict) or document["version"] != _VERSION:
            return None
        return _read(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _floats(values: Any, count: int) -> list[float]:
    found = [float(value) for value in values]
    if len(found) != count or not all(isfinite(value) for value in found):
        raise ValueError("damaged")
    return found


def _read(document: dict[str, Any]) -> State:
    coefficient, period_s, age_s, no_power_s, no_water_s, still_s, stretch, learnt_s = _floats(
        document["clocks"], 8
    )
    stream, cold, warmth = _floats(document["restless"], 3)
    room_c, loss_w_k = _floats(document["around"], 2)
    present = document["present"]
    belief = _read_belief(document)
    return State(
        belief=belief,
        prior_u2=tuple(_floats(document["prior_u2"], 0 if belief is None else len(BIASES))),
        around=Surroundings(room_c=room_c, loss_w_k=loss_w_k),
        past=tuple(_read_span(span) for span in document["past"]),
        present=None if present is None else (_read_rate(present[0]), _read_rate(present[1])),
        restless=(stream, cold, warmth),
        coefficient_wh_m3_k=coefficient,
        period_s=period_s,
        age_s=age_s,
        without_power_s=no_power_s,
        without_water_s=no_water_s,
        still_s=still_s,
        stretch=stretch,
        learnt_s=learnt_s,
        is_gauge=bool(document["is_gauge"]),
        is_meter_dead=bool(document["is_meter_dead"]),
        waiting=tuple(str(name) for name in document["waiting"]),
    )


def _read_belief(document: dict[str, Any]) -> Belief | None:
    if document["mean"] is None:
        return None
    cov = [_floats(row, STATES) for row in document["cov"]]
    if len(cov) != STATES or any(cov[index][index] < 0.0 for index in range(STATES)):
        raise ValueError("damaged")
    totals = {}
    for name, values in document["totals"].items():
        value, variance, lag_s, wait_s, age_s, *row = _floats(values, 5 + STATES)
        totals[str(name)] = Total(
            value=value, variance=variance, lag_s=lag_s, wait_s=wait_s, age_s=age_s, row=row
        )
    return Belief(mean=_floats(document["mean"], STATES), cov=cov, totals=totals)


def _read_span(span: Any) -> Past:
    length_s, power_w, stream_ln = span
    known = [length_s, *(value for value in (power_w, stream_ln) if value is not None)]
    _floats(known, len(known))
    return float(length_s), power_w, stream_ln


def _read_rate(row: Any) -> Rate:
    value_w, noise_w2, *partials = _floats(row, 2 + STATES)
    return Rate(
        value_w=value_w,
        noise_w2=noise_w2,
        partials={index: value for index, value in enumerate(partials) if value != 0.0},
    )
