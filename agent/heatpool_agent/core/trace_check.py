"""A trace's own reference meter: compared with the estimate, and learnt from where that is asked.

The meter is never part of the estimate. With `until`, its rows before that time correct the gain
of power and of flow once, and only rows after it are compared.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import hypot, sqrt

from heatpool.sample import Estimate
from heatpool_agent.core.estimate import computed_heat
from heatpool_agent.core.trace import Trace
from heatpool_agent.core.trace_columns import REFERENCE
from heatpool_agent.core.trace_inputs import Inputs, present, water_at

# What is believed of a heat meter on loan, as a share: class A, physics.md 5.4.
REFERENCE_U_FRAC = 0.02
# Hours whose ratios tell how well a gain holds.
_BLOCKS_COUNT = 24
LEAST_COUNT = 30
# 95 of 100 truths of a normal doubt.
BAND_U = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Reference over what the trace says by itself, with its u, from `rows_count` rows."""

    value: float
    value_u: float
    rows_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What was learnt of the reference before `until_ns`; None where there was too little."""

    until_ns: int
    electric: Gain | None
    computed: Gain | None


class Check:
    """Estimate against reference, row by row, from `from_ns` on."""

    def __init__(self, trace: Trace, *, from_ns: int | None = None) -> None:
        self._reference_w = trace.values[REFERENCE]
        self._from_ns = from_ns
        self.rows_count = 0
        self._in_band_count = 0
        self._reference_sum_w = self._error_sum_w = self._square_sum_w2 = 0.0

    def add(self, index: int, at_ns: int, heat: Estimate | None) -> None:
        """One row; one without an estimate or a reference tells nothing."""
        reference_w = self._reference_w[index]
        is_before = self._from_ns is not None and at_ns < self._from_ns
        if heat is None or reference_w != reference_w or is_before:
            return
        error_w = heat.value - reference_w
        self.rows_count += 1
        self._in_band_count += abs(error_w) <= BAND_U * heat.u
        self._reference_sum_w += reference_w
        self._error_sum_w += error_w
        self._square_sum_w2 += error_w * error_w

    def told(self) -> dict[str, float | int | None]:
        """Bias, error and coverage, in W and as shares of the reference's mean."""
        if not self.rows_count:
            return {"rows_count": 0}
        count, mean_w = self.rows_count, self._reference_sum_w / self.rows_count
        bias_w, rmse_w = self._error_sum_w / count, sqrt(self._square_sum_w2 / count)
        return {
            "rows_count": count,
            "reference_mean_w": mean_w,
            "bias_w": bias_w,
            "bias_frac": bias_w / mean_w if mean_w else None,
            "rmse_w": rmse_w,
            "rmse_frac": rmse_w / abs(mean_w) if mean_w else None,
            "band_coverage_frac": self._in_band_count / count,
        }


def fitted(trace: Trace, found: Inputs, *, until_ns: int) -> tuple[Inputs, Fit]:
    """The inputs with the gains that the reference taught before `until_ns`."""
    electric = _gain(list(_pairs(trace, found, until_ns, _electric_w)))
    computed = _gain(list(_pairs(trace, found, until_ns, _computed_w)))
    fit = Fit(until_ns=until_ns, electric=electric, computed=computed)
    # Both know no more than the reference told them: its doubt must not be halved by two.
    more = sqrt(2.0) if found.is_fused else 1.0
    if electric is not None:
        found = _with_capture(found, electric, more)
    if computed is not None:
        found = _with_flow(found, computed, more)
    return found, fit


def _pairs(trace: Trace, found: Inputs, until_ns: int, of: object) -> Iterator[tuple[float, float]]:
    assert callable(of)
    reference_w = trace.values[REFERENCE]
    for index, at_ns in enumerate(trace.event_ns):
        if at_ns >= until_ns:
            return
        value_w = of(found, index) if reference_w[index] == reference_w[index] else None
        if value_w is not None and value_w > 0.0:
            yield reference_w[index], value_w


def _electric_w(found: Inputs, index: int) -> float | None:
    power = found.power
    power_w = None if power is None else present(power.values_w[index])
    return None if power_w is None else found.priors.capture_frac * power_w


def _computed_w(found: Inputs, index: int) -> float | None:
    heat = computed_heat(water_at(found, index), found.priors) if found.water else None
    return None if heat is None else heat.value


def _gain(pairs: list[tuple[float, float]]) -> Gain | None:
    """The ratio of sums; how much blocks differ tells how well it holds."""
    if len(pairs) < LEAST_COUNT or sum(value_w for _, value_w in pairs) <= 0.0:
        return None
    size = -(-len(pairs) // _BLOCKS_COUNT)
    blocks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    ratios = [_ratio(block) for block in blocks]
    value = _ratio(pairs)
    if value <= 0.0:
        return None
    spread = sqrt(sum((one - value) ** 2 for one in ratios) / max(1, len(ratios) - 1)) / value
    # The blocks' spread itself, not that of their mean: what moved before may move on.
    return Gain(value=value, value_u=value * hypot(REFERENCE_U_FRAC, spread), rows_count=len(pairs))


def _ratio(pairs: list[tuple[float, float]]) -> float:
    return sum(one for one, _ in pairs) / sum(other for _, other in pairs)


def _with_capture(found: Inputs, gain: Gain, more: float) -> Inputs:
    capture_frac = found.priors.capture_frac * gain.value
    u_frac = more * gain.value_u / gain.value
    assert found.power is not None
    return replace(
        found,
        # The doubt of the power is inside that of the gain now.
        power=replace(found.power, u_frac=1e-3),
        priors=replace(
            found.priors, capture_frac=capture_frac, capture_frac_u=u_frac * capture_frac
        ),
        model=replace(
            found.model,
            capture_frac=capture_frac,
            gain_u_frac=u_frac,
            # What is lost to the room is inside the share that was learnt.
            loss_frac=0.0,
            loss_frac_u=5e-3,
        ),
    )


def _with_flow(found: Inputs, gain: Gain, more: float) -> Inputs:
    flow_m3_h = array("d", (gain.value * value for value in found.water["volume_flow_m3_h"]))
    u_frac = more * gain.value_u / gain.value
    return replace(
        found,
        water={**found.water, "volume_flow_m3_h": flow_m3_h},
        priors=replace(found.priors, flow_u_frac=u_frac),
        model=replace(found.model, flow_u_frac=u_frac),
    )
