"""What a trace's columns mean for its heat: which power is used, with which doubt, and how often.

One power is used and none is added to another that may hold it: what warms the loop, else the IT's
input, else its components with priors, else the whole site with the share of the IT as doubt.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, isnan, nan

from heatpool.sample import QualityClass
from heatpool.units import NS_PER_S
from heatpool_agent.core import attribution
from heatpool_agent.core.attribution import INPUT_U_FRAC
from heatpool_agent.core.crosscheck import SLIPS
from heatpool_agent.core.estimate import LoopInputs, LoopPriors, computed_heat
from heatpool_agent.core.loop_sample import LoopModel
from heatpool_agent.core.median import median
from heatpool_agent.core.trace import Trace
from heatpool_agent.core.trace_columns import REFERENCE

WATER = ("volume_flow_m3_h", "hot_c", "cold_c")
# Share of the IT in a whole site's power: PUE from 1.1 to 2, all alike; our choice.
IT_SHARE_FRAC = 0.70
IT_SHARE_FRAC_U = 0.12
# Accelerators in the power of their servers at the wall, 0.45 to 0.8; our choice.
GPU_SHARE_FRAC = 0.62
# A processor at work; how many make up one column is not told.
PACKAGE_W = 200.0

FACILITY_AS_IT = "facility_as_it"
CPU_ABSENT, GPU_ABSENT = "cpu_absent", "gpu_absent"
COMPONENTS = "components"
IT_ABOVE_FACILITY = "it_above_facility"
COOLANT_PART, COOLANT_ONLY = "coolant_part", "coolant_only"
HEAT_ABOVE_ELECTRICITY = "heat_above_electricity"
ELECTRIC_PARTIAL = "electric_partial"
UNIT_ERROR = "unit_error"

_LOOKED_COUNT = 2000
GAP_PERIODS = 3.0
# Beyond twice the doubt of both the two do not tell one heat.
_APART_U = 2.0
_SLIP_FRAC = 0.10
_ABOVE_FRAC = 1.05
# Of so many rows each ratio lies within this factor of the median where one unit holds throughout.
_THROUGHOUT_FRAC, _SPREAD = 0.9, 1.8
# The coolant's share may hide a factor between units; so little of its power no site shows.
_LEAST_SHARE_FRAC, _LEAST_HIDDEN_SLIP = 0.5, 10.0
# Nothing is known better, and a filter needs some doubt of all.
_LEAST_U_FRAC = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user said of the loop; `cooling` None: all heat that leaves the IT is asked for."""

    priors: LoopPriors
    model: LoopModel
    cooling: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The electric power that is used: its columns, W by row, and how far it may be off."""

    columns: tuple[str, ...]
    values_w: "array[float]"
    u_frac: float
    quality: QualityClass
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What heat is made of: power, water, or both, and what is assumed of the loop.

    `ratio` is computed over electric heat where both are seen. `reason` says why nothing can be
    made of the trace, where that is so. `slip_from` is the first row with a flow or power in
    another unit.
    """

    power: Power | None
    water: "Mapping[str, array[float]]"
    ambient_c: "array[float] | None"
    is_fused: bool
    period_s: float
    priors: LoopPriors
    model: LoopModel
    ratio: float | None = None
    slip_from: int = 0
    flags: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that heat is made of."""
        power = self.power.columns if self.power else ()
        room = ("ambient_c",) if self.ambient_c is not None and self.water else ()
        return (*power, *self.water, *room)


def inputs(trace: Trace, asked: Asked) -> Inputs:
    """What this trace's heat is made of."""
    power, water = _power(trace), _water(trace)
    found = Inputs(
        power=power,
        water=water,
        ambient_c=trace.values.get("ambient_c"),
        is_fused=power is not None and bool(water),
        period_s=period_s(trace.event_ns),
        priors=asked.priors,
        model=_model(asked, power),
        reason=_lacking(trace, power, water),
        flags=_facility_flags(trace, power) if power or not water else (COOLANT_ONLY,),
    )
    return _settled(found, asked) if found.is_fused else found


def period_s(times_ns: Sequence[int]) -> float:
    """How often rows come, s: the median; 0 for fewer than two."""
    step = max(1, len(times_ns) // (10 * _LOOKED_COUNT))
    spans_ns = [times_ns[i] - times_ns[i - 1] for i in range(1, len(times_ns), step)]
    return median(spans_ns) / NS_PER_S if spans_ns else 0.0


def _has_any(values: "array[float] | None") -> bool:
    return values is not None and any(value == value for value in values)


def _power(trace: Trace) -> Power | None:
    for name in ("power_w", "it_w"):
        if _has_any(values := trace.values.get(name)):
            assert values is not None
            return Power(
                columns=(name,), values_w=values, u_frac=INPUT_U_FRAC, quality=QualityClass.B
            )
    if (parts := _components(trace)) is not None:
        return parts
    facility_w = trace.values.get("facility_w")
    if facility_w is None or not _has_any(facility_w):
        return None
    return Power(
        columns=("facility_w",),
        values_w=array("d", (IT_SHARE_FRAC * value for value in facility_w)),
        u_frac=hypot(INPUT_U_FRAC, IT_SHARE_FRAC_U / IT_SHARE_FRAC),
        quality=QualityClass.D,
        flags=(FACILITY_AS_IT,),
    )


def _components(trace: Trace) -> Power | None:
    """Power at the wall out of processors and accelerators, with the priors of their servers."""
    cpu_w, gpu_w = trace.values.get("cpu_w"), trace.values.get("gpu_w")
    if cpu_w is None or not _has_any(cpu_w):
        if gpu_w is None or not _has_any(gpu_w):
            return None
        return Power(
            columns=("gpu_w",),
            values_w=array("d", (value / GPU_SHARE_FRAC for value in gpu_w)),
            u_frac=attribution.HOST_U_FRAC,
            quality=QualityClass.E,
            flags=(COMPONENTS, CPU_ABSENT),
        )
    known = sorted(value for value in cpu_w if value == value)
    count = max(1, round(known[len(known) * 95 // 100] / PACKAGE_W))
    more_w = count * (attribution.DRAM_PER_PACKAGE_W + attribution.BOARD_PER_PACKAGE_W)
    served = 1.0 + attribution.FANS_FRAC
    is_pair = gpu_w is not None and _has_any(gpu_w)
    both_w = [a + b for a, b in zip(cpu_w, gpu_w, strict=True)] if is_pair and gpu_w else cpu_w
    return Power(
        columns=("cpu_w", "gpu_w") if is_pair else ("cpu_w",),
        values_w=array("d", ((served * w + more_w) / attribution.PSU_EFFICIENCY for w in both_w)),
        u_frac=attribution.COMPONENTS_U_FRAC,
        quality=QualityClass.D,
        flags=(COMPONENTS,) if is_pair else (COMPONENTS, GPU_ABSENT),
    )


def _water(trace: Trace) -> "dict[str, array[float]]":
    found = {name: trace.values[name] for name in WATER if _has_any(trace.values.get(name))}
    return found if len(found) == len(WATER) else {}


def _lacking(trace: Trace, power: Power | None, water: Mapping[str, object]) -> str | None:
    if power or water:
        return None
    given = [name for name in trace.values if name != REFERENCE]
    empty = [name for name in given if not _has_any(trace.values[name])]
    if empty:
        return f"no cell of {', '.join(empty)} holds a usable figure{_why(trace, empty[0])}"
    lacking = [name for name in WATER if name not in trace.values]
    if len(lacking) < len(WATER):
        return f"no power, and for heat from water {', '.join(lacking)} is missing"
    return "no column of power, and none of flow and two temperatures"


def _why(trace: Trace, name: str) -> str:
    told = [f"{reason} {count}" for reason, count in trace.absent[name].most_common(3)]
    shown = [repr(text) for (column, _), text in trace.examples.items() if column == name]
    return f": {', '.join(told)}" + (f", such as {shown[0]}" if shown else "")


def _facility_flags(trace: Trace, power: Power | None) -> tuple[str, ...]:
    facility_w = trace.values.get("facility_w")
    if facility_w is None or power is None or "facility_w" in power.columns:
        return ()
    if power.columns[0] not in ("power_w", "it_w"):
        return ()
    pairs = zip(power.values_w, facility_w, strict=True)
    above = sum(it_w > _ABOVE_FRAC * site_w for it_w, site_w in pairs)
    return (f"{IT_ABOVE_FACILITY}:{above}",) if above else ()


def _model(asked: Asked, power: Power | None) -> LoopModel:
    priors = asked.priors
    u_frac = hypot(priors.capture_frac_u / priors.capture_frac, power.u_frac if power else 0.0)
    model = replace(asked.model, gain_u_frac=max(u_frac, _LEAST_U_FRAC))
    # What is lost to the room has left the IT, too.
    return model if asked.cooling else replace(model, loss_frac=0.0, loss_frac_u=_LEAST_U_FRAC)


def _settled(found: Inputs, asked: Asked) -> Inputs:
    """Whether both heats are one: fused if so, or else the one that answers what was asked."""
    rows, u_frac = _compared(found)
    if not rows:
        return found
    ratio = median(rows.values())
    found = replace(found, ratio=ratio)
    told = ratio / found.priors.capture_frac
    slip = _slip(told, u_frac)
    if slip is None and not asked.cooling:
        slip = _hidden_slip(told)
    near = [index for index, one in rows.items() if ratio / _SPREAD <= one <= ratio * _SPREAD]
    if slip and asked.cooling and len(near) < _THROUGHOUT_FRAC * len(rows):
        # A unit that changed on the way has a begin: the watch of the rows tells it.
        return found
    if slip:
        # Without the coolant's share the watch cannot: power alone is all heat that leaves the IT.
        flags = (*found.flags, f"{UNIT_ERROR}:{slip:g}")
        return replace(found, is_fused=False, slip_from=near[0], flags=flags)
    if asked.cooling or abs(told - 1.0) <= _APART_U * u_frac:
        return found
    if told < 1.0:
        flags = (*found.flags, f"{COOLANT_PART}:{told:.2f}")
        return replace(found, is_fused=False, flags=flags)
    flags = (*found.flags, f"{HEAT_ABOVE_ELECTRICITY}:{told - 1.0:+.0%}", ELECTRIC_PARTIAL)
    return replace(found, power=None, is_fused=False, flags=flags)


def _slip(told: float, u_frac: float) -> float | None:
    """The factor between two units that the two heats are apart by, either way; None: none."""
    far = max(told, 1.0 / told) if told > 0 else 0.0
    least = 1.0 + max(_SLIP_FRAC, u_frac)
    near = [slip for slip in SLIPS if max(far / slip, slip / max(far, 1e-9)) < least]
    return (near[0] if told > 1.0 else 1.0 / near[0]) if near else None


def _hidden_slip(told: float) -> float | None:
    """The factor between two units behind the coolant's share, where that is not known."""
    slips = (slip for slip in SLIPS if slip >= _LEAST_HIDDEN_SLIP)
    return next((slip for slip in slips if _LEAST_SHARE_FRAC <= told / slip < 1.0), None)


def _compared(found: Inputs) -> tuple[dict[int, float], float]:
    """Computed over electric power where the water runs the right way, by row, and its u.

    Their median tells: a few cells of another world must not speak for all others.
    """
    assert found.power is not None
    count = len(found.power.values_w)
    ratios: dict[int, float] = {}
    us_frac = []
    for index in range(0, count, max(1, count // _LOOKED_COUNT)):
        power_w = found.power.values_w[index]
        heat = computed_heat(water_at(found, index), found.priors)
        if isnan(power_w) or power_w <= 0.0 or heat is None or heat.value <= 0.0:
            continue
        ratios[index] = heat.value / power_w
        us_frac.append(heat.u / heat.value)
    return ratios, hypot(found.model.gain_u_frac, median(us_frac)) if us_frac else nan


def water_at(found: Inputs, index: int) -> LoopInputs:
    """Flow and temperatures of one row."""
    flow_m3_h, hot_c, cold_c = (present(found.water[name][index]) for name in WATER)
    return LoopInputs(
        electric=None,
        volume_flow_m3_h=flow_m3_h,
        hot_c=hot_c,
        cold_c=cold_c,
        fluid=found.model.fluid,
        sensor_side=found.model.sensor_side,
    )


def present(value: float) -> float | None:
    """The value; None where it is NaN."""
    return value if value == value else None
