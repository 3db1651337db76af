"""Gross faults of a loop that need no training: pipes swapped, and a wrong unit."""

from math import log

from heatpool_agent.core.loop_window import Means
from heatpool_agent.core.residual_baseline import Residual
from heatpool_agent.core.watch import Watch, quiet, tell_gross

# Swapped: the difference is negative by more than the pair's doubt.
SWAPPED_U = 3.0
SWAPPED_K = 0.2
SWAPPED_SHARE = 0.3
SWAPPED_BLIND_K = 1.0
SWAPPED_BLIND_COUNT = 6.0
# Factors between two units: kJ and Wh, L/min and m3/h, minutes and hours, kilo and milli.
SLIPS = (3.6, 1000 / 60, 60.0, 1000.0)
SLIP_LOG = 0.15
SLIP_TRAINED_LOG = 0.06
SLIP_COUNT = 2.0
_NS = 1_000_000_000


def is_reversed(watch: Watch, means: Means) -> bool:
    """Whether the cold pipe is the warmer one although heat flows."""
    # A pipe that moved at the end of a window is followed in the next one.
    late_k, watch.late_k = watch.late_k, _late_k(means)
    late_k = max(late_k, watch.late_k)
    delta_k, cold_c, hot_c = means.delta_k, means.cold_c, means.hot_c
    if delta_k is None or cold_c is None or hot_c is None or means.volume_flow_m3_h == 0:
        watch.reversed_count = 0
        return False
    least_k = max(SWAPPED_K, SWAPPED_U * watch.model.delta_k_u) + late_k
    if delta_k >= -least_k:
        watch.reversed_count = 0
        return False
    watch.reversed_count += 1
    if means.electric_w is not None and means.computed_w is not None:
        return means.computed_w < -SWAPPED_SHARE * means.electric_w
    # Without power, or without flow, a loop that cools for once must be excused.
    return delta_k < -SWAPPED_BLIND_K and watch.reversed_count >= SWAPPED_BLIND_COUNT


def _late_k(means: Means) -> float:
    """How much colder than the cold pipe a sound hot one may be for a while, K.

    It follows a cold pipe that moves, late. Where it moved the other way by as much, both sensors
    changed places within this window, and nothing is to be excused.
    """
    return min(abs(means.cold_sway_k), abs(means.cold_sway_k + means.hot_sway_k))


def tell_reversed(watch: Watch, means: Means, fault: str) -> None:
    """Tells swapped sensors, or that they are right again."""
    heat = watch.lasting.get("heat")
    if not fault:
        if heat and heat.fault == "swapped_sensors" and means.delta_k is not None:
            quiet(watch, means, is_quiet=means.delta_k > SWAPPED_K)
        return
    if heat and heat.fault == fault:
        watch.quiet_count = 0
        return
    start_ns = means.end_ns - round(means.span_s * _NS)
    text = (
        f"cold pipe {means.cold_c:.1f} degC is warmer than hot pipe {means.hot_c:.1f} degC while "
        "heat flows: swap both sensors, or see which way the pump turns"
    )
    tell_gross(watch, fault, start_ns=start_ns, text=text)


def slips(watch: Watch, means: Means, found: Residual) -> bool:
    """Whether both heats are a factor between two units apart."""
    is_trained = watch.baseline.is_trained
    usual = max(0.2, 1.0 + watch.baseline.level()[0]) if is_trained else 1.0
    ratio = (1.0 + found.value) / usual
    most_log = SLIP_TRAINED_LOG if is_trained else SLIP_LOG
    above = max(ratio, 1.0 / ratio) if ratio > 0 else 1.0
    slip = next((slip for slip in SLIPS if abs(log(above / slip)) <= most_log), 0.0)
    heat = watch.lasting.get("heat")
    if heat and heat.fault == "unit_error":
        quiet(watch, means, is_quiet=not slip)
        return True
    # What the loop's thermal mass gives off after a fall of the load is no unit.
    if not slip or not found.is_calm or slip != watch.slip:
        watch.slip, watch.slip_count = (slip if found.is_calm else 0.0), int(found.is_calm)
        if not slip and found.is_calm:
            watch.levels = (_log(means.volume_flow_m3_h), _log(means.power_w))
        return bool(slip)
    watch.slip_count += 1
    if watch.slip_count >= SLIP_COUNT:
        start_ns = means.end_ns - watch.slip_count * round(means.span_s * _NS)
        text = _slip_text(watch, means, ratio, slip)
        tell_gross(watch, "unit_error", start_ns=start_ns, text=text)
    return True


def _slip_text(watch: Watch, means: Means, ratio: float, slip: float) -> str:
    flow_log, power_log = watch.levels
    now = (_log(means.volume_flow_m3_h), _log(means.power_w))
    moved = [
        name
        for name, was, is_now in zip(("flow", "power"), (flow_log, power_log), now, strict=True)
        if was is not None and is_now is not None and abs(abs(is_now - was) - log(slip)) < 0.5
    ]
    factor = f"{slip:.1f}".removesuffix(".0")
    units = {3.6: "kWh and MJ", 60.0: "minutes and hours", 1000.0: "kilo and unit"}
    what = units.get(slip, "m3/h and L/min")
    whose = f"; {moved[0]} jumped by it" if moved else ""
    return (
        f"flow and temperatures tell {ratio:.3g}x the heat of power, near {factor}, the factor "
        f"between {what}{whose}: check the unit in the map of each"
    )


def _log(value: float | None) -> float | None:
    return log(value) if value is not None and value > 0 else None
