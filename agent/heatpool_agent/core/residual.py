"""Faults of a loop from the residual of its two heats, each cause told once and with its evidence.

`r = (Q_cal - Q_el) / Q_el` on means of five minutes, against what three clean days taught
(`residual_baseline`); two-sided sums of its excess tell that it has shifted, `diagnosis` tells why.
Gross faults need no training. Beside it stand what single sensors (`still_sensors`) and registers
(`meter_registers`) show. Source: physics.md 9.
"""

from dataclasses import replace
from math import exp, inf, isfinite, sqrt

from heatpool_agent.core import meter_registers, residual_baseline
from heatpool_agent.core.diagnosis import Point, Traces, cause, mean_excess
from heatpool_agent.core.gross import is_reversed, slips, tell_reversed
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.loop_window import WINDOW_S, Means
from heatpool_agent.core.meter_registers import Registers as Registers
from heatpool_agent.core.residual_baseline import Residual
from heatpool_agent.core.watch import SAME_S, SETTLE_S, end, forget, quiet, tell
from heatpool_agent.core.watch import Watch as Watch
from heatpool_agent.core.watch import begin as begin
from heatpool_agent.core.watch import faults as faults
from heatpool_agent.core.watch import restored as restored
from heatpool_agent.core.watch import saved as saved

# Each pair of sums: what it forgives per window, and when it alarms, in standard doubts.
SUMS = ((1.0, 220.0), (2.0, 40.0), (3.0, 16.0))
# One window is no fault, and one that the thermal mass may explain even less.
MOST_Z = 15.0
MOST_Z_MOVED = 3.0
# A longer window tells more, but what wanders does not average out in it.
MOST_WEIGHT = 3.0
# Before three clean days are over everything is in more doubt, at first by this factor.
UNTRAINED = 1.6
# A sum that has come so far stops the learning: a fault must not teach.
SUSPECTED = 0.15
# A span so long is a gap: nobody knows what happened in it.
GAP_S = 1800.0
# The residual is as before while its mean of half an hour is within this of it.
QUIET_Z = 1.2
_KEEP = exp(-1.0 / 6.0)
# Constant from the start, and further off than the priors allow.
LEVEL_U = 3.0
LEVEL_S = 86_400.0
# While a shift lasts its cause is looked at again every hour for two days, if it is one of these
# or for two hours; another name must fit clearly better.
UNSURE = ("residual", "pair_offset", "sensor_drift")
SOON = (2, 5)
SURE_AFTER = 24
MOST_TOLD = 576
CLEARLY = 1.5
ENDED_S = 86_400.0
POINTS = 144
BLOCKS = 96
BLOCK_WINDOWS = 12
_NS = 1_000_000_000


def observe(
    watch: Watch,
    sample: LoopSample,
    *,
    computed_w: float | None,
    electric_lagged_w: float | None,
    event_ns: int,
    registers: Registers | None = None,
    is_leaking: bool | None = None,
) -> Watch:
    """The watch after the sample that ends at `event_ns`; it is moved on, not copied.

    `computed_w` is heat from flow and temperatures, `electric_lagged_w` electric heat at the prior
    share as the loop's sensors should show it by now. `is_leaking` is what the local safety sees.
    What is no number is absent; a span over half an hour, or time that no sample covers, is a gap.
    Raises: ValueError for a span below 0.
    """
    if not 0 <= sample.span_s < inf:
        raise ValueError(f"residual: span_s is {sample.span_s}; spans last 0 s or longer")
    _leak(watch, event_ns, is_leaking=is_leaking)
    unseen_s = (event_ns - watch.event_ns) / _NS - sample.span_s if watch.event_ns else 0.0
    if sample.span_s > GAP_S or unseen_s > GAP_S:
        skip(watch, event_ns=event_ns)
        return watch
    watch.event_ns = event_ns
    sample = _sound(sample)
    computed_w, electric_lagged_w = _number(computed_w), _number(electric_lagged_w)
    watch.still.add(sample, event_ns=event_ns)
    if registers is not None:
        watch.meter.add(sample, registers, computed_w=computed_w, event_ns=event_ns)
    window = watch.window
    if sample.span_s > 0:
        window.add(sample, computed_w=computed_w, electric_w=electric_lagged_w)
        if window.is_full:
            _look(watch, window.taken(event_ns))
    return watch


def skip(watch: Watch, *, event_ns: int) -> None:
    """Lets a time pass in which nothing was seen, until `event_ns`."""
    watch.window.clear()
    watch.kept, watch.settle_s, watch.event_ns = None, SETTLE_S, event_ns
    watch.slip_count = watch.reversed_count = 0
    watch.late_k = 0.0
    watch.levels = (None, None)


def assume(watch: Watch, model: LoopModel) -> None:
    """Takes over what is now assumed of the loop; what was learnt of it stays."""
    if model != watch.model:
        watch.kept, watch.model = None, model
        watch.baseline.prior_u = residual_baseline.begun(model).prior_u


def _number(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _sound(sample: LoopSample) -> LoopSample:
    """The sample without values that are no numbers."""
    power_w, flow_m3_h = sample.power_w, sample.volume_flow_m3_h
    total = (power_w or 0.0) + (flow_m3_h or 0.0) + (sample.hot_c or 0.0) + (sample.cold_c or 0.0)
    if isfinite(total):
        return sample
    return replace(
        sample,
        power_w=_number(power_w),
        volume_flow_m3_h=_number(flow_m3_h),
        hot_c=_number(sample.hot_c),
        cold_c=_number(sample.cold_c),
    )


def _leak(watch: Watch, event_ns: int, *, is_leaking: bool | None) -> None:
    if is_leaking is None or is_leaking == ("leak" in watch.lasting):
        return
    watch.kept = None
    if is_leaking:
        text = "the leak detector reports coolant: stop the loop's pump and look under its joints"
        tell(watch, "leak", "leak", start_ns=event_ns, text=text)
    else:
        end(watch, "leak", event_ns)


def _look(watch: Watch, means: Means) -> None:
    """One window: gross faults, then sensors and registers, then the sums."""
    watch.kept = None
    watch.ended = [f for f in watch.ended if means.end_ns - (f.end_ns or 0) <= ENDED_S * _NS]
    _sensors(watch, means)
    is_swapped = "sensor" not in watch.lasting and is_reversed(watch, means)
    tell_reversed(watch, means, "swapped_sensors" if is_swapped else "")
    watch.settle_s = max(0.0, watch.settle_s - means.span_s)
    if _set_aside(watch) or watch.settle_s > 0:
        return
    found = watch.baseline.judged(means, watch.model)
    if found is None:
        return
    if slips(watch, means, found):
        return
    _keep(watch, means, found)
    _count(watch, means, found)
    _level(watch, means)


def _set_aside(watch: Watch) -> bool:
    """Whether the heats are not to be heard beside what is broken; the loop settles after it."""
    beside = [watch.lasting[kind] for kind in ("sensor", "leak") if kind in watch.lasting]
    if beside:
        forget(watch, min(fault.start_ns for fault in beside))
        watch.settle_s = SETTLE_S
    heat = watch.lasting.get("heat")
    return bool(beside) or (heat is not None and heat.fault == "swapped_sensors")


def _sensors(watch: Watch, means: Means) -> None:
    """Faults that one sensor, or the registers, show by themselves."""
    found = {"sensor": watch.still.found(), "register": watch.meter.found(watch.model)}
    for kind, told in found.items():
        if not told:
            end(watch, kind, means.end_ns)
            continue
        fault, start_ns, text = told[0]
        heat = watch.lasting.get("heat")
        if heat and kind == "register" and heat.fault == "swapped_sensors":
            continue
        if heat and kind == "sensor" and heat.start_ns >= start_ns - SAME_S * _NS:
            del watch.lasting["heat"]
        tell(watch, kind, fault, start_ns=start_ns or means.end_ns, text=text)


def _keep(watch: Watch, means: Means, found: Residual) -> None:
    """The window among the newest; an hour of them becomes one."""
    point = Point(
        means.end_ns, found.excess, found.u, found.x[1], found.flow_excess_frac, found.noise_ratio,
        means.power_step_frac, means.heat_step_frac,
    )  # fmt: skip
    watch.points = [*watch.points[-POINTS + 1 :], point]
    watch.hour.append(point)
    if len(watch.hour) < BLOCK_WINDOWS:
        return
    hour, watch.hour = watch.hour, []
    flows = [p.flow_excess_frac for p in hour if p.flow_excess_frac is not None]
    block = Point(
        means.end_ns,
        mean_excess(hour),
        sum(p.u for p in hour) / len(hour) * sqrt(residual_baseline.CORRELATED_COUNT / len(hour)),
        sum(p.inverse_k for p in hour) / len(hour),
        sum(flows) / len(flows) if flows else None,
    )
    watch.blocks = [*watch.blocks[-BLOCKS + 1 :], block]


def _count(watch: Watch, means: Means, found: Residual) -> None:
    """The sums after one window, and what they tell."""
    z = found.excess / found.u
    most_z = MOST_Z if found.is_calm else MOST_Z_MOVED
    z = min(max(z, -most_z), most_z)
    z /= UNTRAINED - (UNTRAINED - 1.0) * watch.baseline.share
    watch.smooth_z = z + _KEEP * (watch.smooth_z - z)
    if "heat" in watch.lasting:
        _reconsider(watch, means, z)
        return
    start_ns = means.end_ns - round(means.span_s * _NS)
    weight = sqrt(min(means.span_s / WINDOW_S, MOST_WEIGHT))
    worst, onset_ns = 0.0, start_ns
    for one, (forgiven, limit) in zip(watch.sums, SUMS, strict=True):
        one.add(weight * (z - forgiven), weight * (-z - forgiven), start_ns)
        share, since_ns = max((one.above, one.above_ns), (one.below, one.below_ns))
        if share / limit > worst:
            worst, onset_ns = share / limit, since_ns
    if worst >= 1.0:
        _alarm(watch, onset_ns)
    elif worst < SUSPECTED:
        watch.baseline.learn(means, found)


def _alarm(watch: Watch, onset_ns: int) -> None:
    found = cause(_traces(watch, onset_ns))
    watch.told_count = watch.quiet_count = 0
    tell(watch, "heat", found.fault, start_ns=onset_ns, text=found.evidence)


def _traces(watch: Watch, onset_ns: int) -> Traces:
    baseline = watch.baseline
    return Traces(
        points=watch.points,
        blocks=watch.blocks,
        onset_ns=onset_ns,
        flow_spread_frac=baseline.flow_spread_frac,
        noise_spread=sqrt(baseline.flow_noise.variance),
    )


def _reconsider(watch: Watch, means: Means, z: float) -> None:
    """While a shift lasts: whether it is over, and once an hour what it is after all."""
    quiet(watch, means, is_quiet=abs(watch.smooth_z) < QUIET_Z)
    heat = watch.lasting.get("heat")
    watch.told_count += 1
    is_due = watch.told_count in SOON or watch.told_count % BLOCK_WINDOWS == 0
    # The windows since it was mended tell nothing of what it was.
    is_back = abs(z) < QUIET_Z and abs(watch.smooth_z) > 2.0 * QUIET_Z
    is_due = is_due and not is_back and not watch.quiet_count
    if heat is None or not is_due or watch.told_count > MOST_TOLD:
        return
    # A step of power is seen in the newest windows alone: who lost sight of it knows no better.
    if heat.fault not in UNSURE and watch.told_count > SURE_AFTER:
        return
    found = cause(_traces(watch, heat.start_ns))
    is_clear = found.scores[found.fault] > found.scores.get(heat.fault, 0.0) + CLEARLY
    if found.fault == heat.fault or heat.fault == "residual" or is_clear:
        watch.lasting["heat"] = replace(heat, fault=found.fault, evidence=found.evidence)


def _level(watch: Watch, means: Means) -> None:
    """Whether the heats were further apart from the start than the priors allow."""
    baseline = watch.baseline
    if baseline.clean_s < LEVEL_S:
        return
    value, u = baseline.level()
    if abs(value) <= LEVEL_U * u:
        if "level" in watch.lasting and abs(value) < (LEVEL_U - 0.5) * u:
            end(watch, "level", means.end_ns)
        return
    if "level" not in watch.lasting and "heat" not in watch.lasting:
        assert means.hot_c is not None and means.cold_c is not None
        pipes_c = (means.hot_c, means.cold_c)
        fault, text = meter_registers.level_cause(value, u, pipes_c, watch.model)
        start_ns = means.end_ns - round(baseline.clean_s * _NS)
        tell(watch, "level", fault, start_ns=start_ns, text=text)
