"""Combining standard uncertainties, k=1, and what a legal heat meter may err."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan, sqrt, ulp
from typing import Any, Generic, TypeVar, overload

from heatpool.units import ColumnT, array_namespace, within

ValueT = TypeVar("ValueT")

# Fractions of the standard's percent; data/meter_classes.toml holds sources and validity.
FLOW_SENSOR_BASE_FRAC = {1: 0.01, 2: 0.02, 3: 0.03}
FLOW_SENSOR_SLOPE_FRAC = {1: 0.0001, 2: 0.0002, 3: 0.0005}
FLOW_SENSOR_CAP_FRAC = 0.05
PAIR_BASE_FRAC = 0.005
PAIR_SLOPE_FRAC = 0.03
CALCULATOR_BASE_FRAC = 0.005
CALCULATOR_SLOPE_FRAC = 0.01
# The short-time maximum flow is twice the permanent one at most: below 0.5 it was q/q_p.
FLOW_RATIO_MIN = 0.5


@dataclass(frozen=True, slots=True)
class Fused(Generic[ValueT]):
    """A weighted mean and its standard uncertainty, in the unit of the values."""

    value: ValueT
    u: ValueT


@overload
def fuse(values: Sequence[float], uncertainties: Sequence[float]) -> Fused[float]: ...
@overload
def fuse(values: Sequence[ColumnT], uncertainties: Sequence[ColumnT | float]) -> Fused[ColumnT]: ...
@overload
def fuse(values: ColumnT, uncertainties: ColumnT | Sequence[float]) -> Fused[ColumnT]: ...
def fuse(values: Any, uncertainties: Any) -> Any:
    """The mean weighted by 1/u² of independent values, in their unit; first axis = channel.

    A channel whose value or u is NaN is left out; none left gives (NaN, inf).
    Raises: ValueError if a u is not positive or the channels differ in number.
    Source: physics.md 7.1.
    """
    if len(values) != len(uncertainties):
        counts = f"{len(values)} values and {len(uncertainties)} uncertainties"
        raise ValueError(f"uncertainty: {counts}; give one u per channel")
    xp = array_namespace(values, uncertainties, *values, *uncertainties)
    if xp is not None and len(values):
        return _fuse_columns(xp, values, uncertainties)
    if any(u <= 0 for u in uncertainties):
        raise ValueError(f"uncertainty: a u is not positive in {uncertainties}; leave it out")
    known = [(v, u) for v, u in zip(values, uncertainties, strict=True) if not isnan(v) and u < inf]
    if not known:
        return Fused(nan, inf)
    # Weights relative to the best channel neither overflow nor let u exceed the smallest.
    lowest, highest = min(v for v, _ in known), max(v for v, _ in known)
    best_u = min(u for _, u in known)
    weights = [(best_u / u) * (best_u / u) for _, u in known]
    total = sum(weights)
    above = sum(w * (v - lowest) for w, (v, _) in zip(weights, known, strict=True))
    return Fused(min(lowest + above / total, highest), best_u / sqrt(total))


def _fuse_columns(xp: Any, values: Any, uncertainties: Any) -> Fused[Any]:
    stacked = xp.stack(xp.broadcast_arrays(*values, *uncertainties))
    value, u = stacked[: len(values)], stacked[len(values) :]
    if (u <= 0).any():
        raise ValueError("uncertainty: a u is not positive; give NaN where a value is absent")
    is_known = ~xp.isnan(value) & (u < inf)
    lowest = xp.min(xp.where(is_known, value, inf), axis=0)
    highest = xp.max(xp.where(is_known, value, -inf), axis=0)
    best_u = xp.min(xp.where(is_known, u, inf), axis=0)
    share = xp.where(is_known, best_u, 0.0) / xp.where(is_known, u, 1.0)
    weight = share * share
    total = xp.sum(weight, axis=0)
    is_any = total > 0
    total = xp.where(is_any, total, 1.0)
    above = xp.sum(weight * xp.where(is_known, value - lowest, 0.0), axis=0) / total
    fused = xp.where(is_any, xp.minimum(lowest + above, highest), nan)
    # [()] makes a scalar of an array without axes and leaves others alone.
    return Fused(fused[()], (best_u / xp.sqrt(total))[()])


@overload
def product_u_frac(  # type: ignore[overload-overlap]
    u_k_frac: float, u_volume_frac: float, u_delta_frac: float
) -> float: ...
@overload
def product_u_frac(
    u_k_frac: ColumnT | float, u_volume_frac: ColumnT | float, u_delta_frac: ColumnT | float
) -> ColumnT: ...
def product_u_frac(u_k_frac: Any, u_volume_frac: Any, u_delta_frac: Any) -> Any:
    """Relative standard uncertainty of k·V·(hot-cold), a fraction, from those of its factors.

    Source: JCGM 100 (GUM) 5.1.6; physics.md 7.2.
    """
    squares = u_k_frac * u_k_frac + u_volume_frac * u_volume_frac + u_delta_frac * u_delta_frac
    return squares**0.5


@overload
def delta_k_u(  # type: ignore[overload-overlap]
    hot_c_u: float, cold_c_u: float, correlation: float = ...
) -> float: ...
@overload
def delta_k_u(
    hot_c_u: ColumnT | float, cold_c_u: ColumnT | float, correlation: ColumnT | float = ...
) -> ColumnT: ...
def delta_k_u(hot_c_u: Any, cold_c_u: Any, correlation: Any = 0.0) -> Any:
    """Standard uncertainty of hot - cold, K; a matched pair shares its error (correlation -> 1).

    Source: physics.md 7.2, with cov = correlation·u_hot·u_cold.
    """
    # u_hot² + u_cold² - 2·cov, written so that rounding cannot make it negative.
    unlike = hot_c_u - cold_c_u
    apart = 1 - within(correlation, -1.0, 1.0)
    return (unlike * unlike + 2 * apart * hot_c_u * cold_c_u) ** 0.5


@overload
def meter_mpe_frac(  # type: ignore[overload-overlap]
    accuracy_class: int, flow_ratio: float, delta_k: float, delta_min_k: float
) -> float: ...
@overload
def meter_mpe_frac(
    accuracy_class: int,
    flow_ratio: ColumnT | float,
    delta_k: ColumnT | float,
    delta_min_k: ColumnT | float,
) -> ColumnT: ...
def meter_mpe_frac(accuracy_class: int, flow_ratio: Any, delta_k: Any, delta_min_k: Any) -> Any:
    """Maximum permissible error of a heat meter, a fraction: flow + pair + calculator.

    flow_ratio is q_p/q, permanent flow over the flow now, as the standard prints it. NaN where
    delta_k <= 0 or delta_min_k < 0; a delta_k below delta_min_k is outside the meter's rating, and
    the formula goes on. A limit is not a sigma: u = limit/sqrt(3).
    Raises: ValueError for a class other than 1, 2, 3 or a flow_ratio below 0.5.
    Source: EN 1434-1, 2014/32/EU annex VI; physics.md 3.5.
    """
    if accuracy_class not in FLOW_SENSOR_BASE_FRAC:
        raise ValueError(f"uncertainty: accuracy_class is {accuracy_class!r}; use 1, 2 or 3")
    xp = array_namespace(flow_ratio, delta_k, delta_min_k)
    is_low = flow_ratio < FLOW_RATIO_MIN
    if is_low if isinstance(is_low, bool) else is_low.any():
        raise ValueError(
            f"uncertainty: flow_ratio below {FLOW_RATIO_MIN} in {flow_ratio}; pass q_p/q, not q/q_p"
        )
    base_frac = FLOW_SENSOR_BASE_FRAC[accuracy_class]
    flow_frac = base_frac + FLOW_SENSOR_SLOPE_FRAC[accuracy_class] * flow_ratio
    cap = min if xp is None else xp.minimum
    flow_frac = cap(flow_frac, FLOW_SENSOR_CAP_FRAC)
    # No difference, or a rating of less than none, has no limit.
    steepness = within(delta_min_k, 0.0, inf) / within(delta_k, ulp(0.0), inf)
    pair_frac = PAIR_BASE_FRAC + PAIR_SLOPE_FRAC * steepness
    calculator_frac = CALCULATOR_BASE_FRAC + CALCULATOR_SLOPE_FRAC * steepness
    return flow_frac + pair_frac + calculator_frac
