"""Loops with a fault, many at once, as their sensors show them every minute; nominals are hidden.

Apart from the agent: its own water, its own step of 20 s, its own sensors. What reaches the agent
is a minute's means of readings every 10 s, whose noise is that of `loop_plant` over the root of
six.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from loop_plant import conductance_w_k
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP_S = 20.0
SAMPLE_S = 60.0
DAY_S = 86_400.0
POWER_NOISE_FRAC, FLOW_NOISE_FRAC, TEMP_NOISE_K = (x / 6**0.5 for x in (0.01, 0.015, 0.02))
# Heat that the coolant takes of electric power wanders by so much; how slowly is hidden.
CAPTURE_WANDER_FRAC = 0.01
CAPTURE_WANDER_S = (1800.0, 6 * 3600.0)
PROFILES = ("base", "diurnal", "steps", "weekend", "pump", "cold_steps", "collapse", "gaps")
FAULTS = (
    "swapped_sensors", "air_in_loop", "power_meter", "stuck_hot", "stuck_cold", "stuck_flow",
    "fouling", "fouling_slow", "pair_offset", "sensor_drift", "flow_2", "unit_error", "dead_meter",
)  # fmt: skip
# Fault of the plant -> what the agent is to call it.
NAMES = {"flow_2": "fouling", "fouling_slow": "fouling"} | {
    f"stuck_{where}": "stuck_sensor" for where in ("hot", "cold", "flow")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the sensors of each run showed, shape (runs, samples); NaN in a gap.

    `late_w` is power as the hot sensor feels it by a time constant of 90 s and a delay of 20 s,
    which is what any agent assumes; the run's own differ. `start_s` is when its fault began.
    """

    power_w: Array
    late_w: Array
    volume_flow_m3_h: Array
    hot_c: Array
    cold_c: Array
    start_s: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hidden:
    """One draw of every nominal and bias, shape (runs,)."""

    power_w: Array
    delta_k: Array
    cold_c: Array
    tau_s: Array
    loss_frac: Array
    gain: Array
    flow_factor: Array
    pair_k: Array
    wander_s: Array
    sign: Array
    size: Array


def _draw(random: np.random.Generator, runs: int) -> _Hidden:
    normal = [random.standard_normal(runs) for _ in range(7)]
    slow, fast = np.log(CAPTURE_WANDER_S[1]), np.log(CAPTURE_WANDER_S[0])
    return _Hidden(
        power_w=np.exp(random.uniform(np.log(20e3), np.log(500e3), runs)),
        delta_k=8.0 * np.exp(0.2 * normal[0]),
        cold_c=30.0 + 3.0 * normal[1],
        tau_s=90.0 * np.exp(0.2 * normal[2]),
        loss_frac=0.02 * np.maximum(0.0, 1.0 + 0.5 * normal[3]),
        gain=0.75 * (1.0 + 0.025 * normal[4]),
        flow_factor=1.0 + 0.012 * normal[5],
        pair_k=0.05 * normal[6],
        wander_s=np.exp(random.uniform(fast, slow, runs)),
        sign=random.choice([-1.0, 1.0], runs),
        size=random.uniform(0.0, 1.0, runs),
    )


def _walk(random: np.random.Generator, shape: tuple[int, int], time_s: Any) -> Array:
    """Ornstein-Uhlenbeck walks of spread 1, one per run, steps first."""
    keep = np.exp(-STEP_S / np.broadcast_to(time_s, shape[1]))
    walk = random.standard_normal(shape)
    walk[1:] *= np.sqrt(1.0 - keep**2)
    for step in range(1, shape[0]):
        walk[step] += keep * walk[step - 1]
    return walk


def _held(random: np.random.Generator, shape: tuple[int, int], per_h: float, choices: Any) -> Array:
    """Values that hold until the next jump."""
    hits = random.random(shape) < per_h * STEP_S / 3600.0
    hits[0] = True
    drawn = np.asarray(choices)[random.integers(0, len(choices), shape)]
    latest = np.maximum.accumulate(np.where(hits, np.arange(shape[0])[:, None], 0), axis=0)
    return np.take_along_axis(drawn, latest, axis=0)


def _load(profile: str, random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Power over the nominal one."""
    load = 1.0 + 0.08 * _walk(random, shape, 600.0)
    load += _held(random, shape, 1.0, (-0.25, 0.0, 0.15))
    time_s = np.arange(shape[0])[:, None] * STEP_S
    if profile == "diurnal":
        load *= 0.8 + 0.25 * np.sin(2 * np.pi * (time_s / DAY_S + random.uniform(0, 1, shape[1])))
    elif profile == "steps":
        load *= _held(random, shape, 0.5, (0.4, 0.7, 1.0, 1.3))
    elif profile == "weekend":
        day = (time_s / DAY_S + random.integers(0, 7, shape[1])) % 7.0
        load *= np.where(day >= 5.0, 0.3, 1.0)
    elif profile == "collapse":
        load *= _held(random, shape, 0.15, (0.05, 1.0, 1.0, 1.0))
    return np.maximum(load, 0.03)


def draw(
    profile: str, fault: str, *, seed: int, runs: int, days: float, clean_days: float = 3.0
) -> Shown:
    """What the sensors of `runs` loops showed over `days`; the fault begins after the clean ones.

    `fault` "" is none. One seed gives one set of runs.
    """
    random = np.random.default_rng([seed, PROFILES.index(profile)])
    hidden = _draw(random, runs)
    steps = round(days * DAY_S / STEP_S)
    shape = (steps, runs)
    start_s = (clean_days + random.uniform(0.0, 1.0, runs)) * DAY_S
    time_s = np.arange(steps)[:, None] * STEP_S
    is_on = time_s >= start_s if fault else np.zeros(shape, dtype=bool)
    load = _load(profile, random, shape)
    power_w = hidden.power_w * load
    capture = 1.0 + CAPTURE_WANDER_FRAC * _walk(random, shape, hidden.wander_s)
    if fault == "air_in_loop":
        capture = np.where(is_on, 0.85 * capture, capture)
    cold_c = hidden.cold_c + 0.5 * _walk(random, shape, 1800.0)
    if profile == "cold_steps":
        cold_c += _held(random, shape, 0.25, (-3.0, 0.0, 3.0))
    speed = 1.0 + 0.02 * _walk(random, shape, 900.0)
    if profile == "pump":
        slow = np.clip(load, 0.4, 1.3)
        for step in range(1, steps):
            slow[step] = slow[step - 1] + (slow[step] - slow[step - 1]) * STEP_S / 120.0
        speed *= slow
    water = _water(hidden, power_w, capture, cold_c, speed)
    shown = _shown(hidden, power_w, water, cold_c, random)
    shown = _faulty(fault, shown, hidden, start_s, random)
    if profile == "gaps":
        _gap(shown, random)
    return Shown(**shown, start_s=start_s)


def _water(
    hidden: _Hidden, power_w: Array, capture: Array, cold_c: Array, speed: Array
) -> tuple[Array, Array]:
    """Mean temperature of the hot pipe and volume flow, step by step."""
    guess = 0.75 * hidden.power_w / hidden.delta_k
    flow_m3_h = guess / conductance_w_k(1.0, hidden.cold_c + hidden.delta_k, hidden.cold_c)
    mass_j_k = hidden.tau_s * guess
    loss_w_k = hidden.loss_frac * 0.75 * hidden.power_w / (hidden.cold_c + 8.0 - 25.0).clip(4.0)
    temp_c = cold_c[0] + hidden.delta_k
    hot_c = np.empty_like(power_w)
    flows = flow_m3_h * speed
    for step in range(len(power_w)):
        conductance = conductance_w_k(flows[step], temp_c, cold_c[step])
        total = conductance + loss_w_k
        drive = 0.75 * capture[step] * power_w[step] + conductance * cold_c[step] + loss_w_k * 25.0
        settled_c, rate = drive / total, total / mass_j_k
        keep = np.exp(-rate * STEP_S)
        hot_c[step] = settled_c + (temp_c - settled_c) * (1.0 - keep) / (rate * STEP_S)
        temp_c = settled_c + (temp_c - settled_c) * keep
    return hot_c, flows


def _late(values: Array, tau_s: float, delay_steps: int = 1) -> Array:
    """Values after a first order lag and a delay."""
    late = np.concatenate([np.repeat(values[:1], delay_steps, axis=0), values])[: len(values)]
    late, keep = late.copy(), np.exp(-STEP_S / tau_s)
    for step in range(1, len(late)):
        late[step] = late[step] + (late[step - 1] - late[step]) * keep
    return late


def _minutes(values: Array) -> Array:
    """Means over a minute, runs first."""
    per = round(SAMPLE_S / STEP_S)
    kept = values[: len(values) // per * per]
    means: Array = kept.reshape(-1, per, values.shape[1]).mean(axis=1).T
    return np.ascontiguousarray(means)


def _shown(
    hidden: _Hidden,
    power_w: Array,
    water: tuple[Array, Array],
    cold_c: Array,
    random: np.random.Generator,
) -> dict[str, Array]:
    hot_c, flow_m3_h = water
    shown = {
        "power_w": _minutes(power_w) / hidden.gain[:, None] * 0.75,
        "volume_flow_m3_h": _minutes(flow_m3_h) * hidden.flow_factor[:, None],
        "hot_c": _minutes(_late(hot_c, 8.0)) + hidden.pair_k[:, None] / 2,
        "cold_c": _minutes(_late(cold_c, 8.0)) - hidden.pair_k[:, None] / 2,
    }
    shape = shown["hot_c"].shape
    shown["power_w"] *= 1.0 + POWER_NOISE_FRAC * random.standard_normal(shape)
    shown["volume_flow_m3_h"] *= 1.0 + FLOW_NOISE_FRAC * random.standard_normal(shape)
    shown["hot_c"] += TEMP_NOISE_K * random.standard_normal(shape)
    shown["cold_c"] += TEMP_NOISE_K * random.standard_normal(shape)
    return shown


def _faulty(
    fault: str,
    shown: dict[str, Array],
    hidden: _Hidden,
    start_s: Array,
    random: np.random.Generator,
) -> dict[str, Array]:
    """What the sensors show with the fault, and power as an agent expects it late."""
    shape = shown["hot_c"].shape
    time_s = np.arange(shape[1]) * SAMPLE_S
    since_s = time_s[None, :] - start_s[:, None]
    is_on = since_s >= 0 if fault else np.zeros(shape, dtype=bool)
    sign, days = hidden.sign[:, None], np.maximum(since_s, 0.0) / DAY_S
    size = hidden.size[:, None]
    match fault:
        case "swapped_sensors":
            hot_c, cold_c = shown["hot_c"], shown["cold_c"]
            shown["hot_c"] = np.where(is_on, cold_c, hot_c)
            shown["cold_c"] = np.where(is_on, hot_c, cold_c)
        case "air_in_loop":
            # Variance 3 to 10 times the usual one.
            noise = FLOW_NOISE_FRAC * np.sqrt(2.0 + 7.0 * size)
            shown["volume_flow_m3_h"] *= 1.0 + is_on * noise * random.standard_normal(shape)
        case "power_meter":
            shown["power_w"] *= np.where(is_on, 0.9, 1.0)
        case "fouling":
            shown["volume_flow_m3_h"] *= np.where(is_on, 0.95, 1.0)
        case "fouling_slow":
            shown["volume_flow_m3_h"] *= 1.0 - np.minimum(0.08, 0.04 * days)
        case "flow_2":
            shown["volume_flow_m3_h"] *= np.where(is_on, 0.98, 1.0)
        case "pair_offset":
            shown["hot_c"] += is_on * 0.3 * sign
        case "sensor_drift":
            shown["cold_c"] += is_on * 0.1 * days * sign
        case "unit_error":
            factors = np.array([3.6, 1 / 3.6, 1000 / 60, 60.0, 1000.0, 0.06, 0.001])
            drawn = factors[(hidden.size * len(factors)).astype(int)][:, None]
            which = np.where(hidden.sign[:, None] > 0, drawn, 1.0)
            shown["volume_flow_m3_h"] *= np.where(is_on, which, 1.0)
            shown["power_w"] *= np.where(is_on, drawn / which, 1.0)
        case "stuck_hot" | "stuck_cold" | "stuck_flow" | "dead_meter":
            names = {"stuck_hot": ["hot_c"], "stuck_cold": ["cold_c"]}
            names |= {"stuck_flow": ["volume_flow_m3_h"]}
            for name in names.get(fault, ["hot_c", "cold_c", "volume_flow_m3_h"]):
                first = np.argmax(is_on, axis=1)[:, None]
                held = np.take_along_axis(shown[name], first, axis=1)
                shown[name] = np.where(is_on, held, shown[name])
    return shown | {"late_w": _seen_late(shown["power_w"])}


def _seen_late(power_w: Array) -> Array:
    """Power as it is shown, held over a minute, after the lag and delay that an agent assumes."""
    per = round(SAMPLE_S / STEP_S)
    return _minutes(_late(_late(np.repeat(power_w.T, per, axis=0), 90.0), 8.0, 0))


def _gap(shown: dict[str, Array], random: np.random.Generator) -> None:
    """Gaps of ten minutes to six hours, three a day; and minutes without one sensor."""
    runs, samples = shown["hot_c"].shape
    count = round(3 * samples * SAMPLE_S / DAY_S)
    for run in range(runs):
        for _ in range(count):
            first = random.integers(0, samples)
            last = first + round(np.exp(random.uniform(np.log(10), np.log(360))))
            for values in shown.values():
                values[run, first:last] = np.nan
        for name in ("hot_c", "cold_c", "volume_flow_m3_h"):
            shown[name][run, random.random(samples) < 0.02] = np.nan
