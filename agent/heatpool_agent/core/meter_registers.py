"""What a meter's registers say against flow and temperatures: dead, another fluid, another side.

Energy over volume and ΔT is the heat coefficient that the meter's calculator uses.
Source: physics.md 3.2 and 3.4.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from heatpool.heat import heat_coefficient_kwh_m3_k
from heatpool.water import FLUIDS
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

# A register moves at least once an hour at full power; a coarse one shows its step first.
FROZEN_S = 2 * 3600.0
FROZEN_STEPS = 5.0
# Of one that was never seen to move nothing is known but that it counts MWh at the coarsest.
FROZEN_UNKNOWN_WH = 5_000_000.0
# The coefficient is told over so long and so many of the register's steps.
TOLD_S = 86_400.0
TOLD_STEPS = 200.0
# Further off than rounding of temperatures; and as near as another fluid or side must come.
OTHER_FLUID_FRAC = 0.02
OTHER_SIDE_FRAC = 0.008
NEAR_FRAC = 0.005
_S_PER_H = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Registers:
    """What the heat meter has counted; None: it has no such register."""

    heat_wh: float | None = None
    volume_m3: float | None = None


@dataclass(slots=True)
class Meter:
    """One meter's registers with what flow and temperatures let expect meanwhile."""

    heat_wh: float | None = None
    volume_m3: float | None = None
    still_s: float = 0.0
    still_wh: float = 0.0
    still_ns: int = 0
    step_wh: float = 0.0
    step_m3: float = 0.0
    seen_s: float = 0.0
    counted_wh: float = 0.0
    counted_m3: float = 0.0
    carried_m3: float = 0.0
    carried: float = 0.0
    # Volume times temperature of the hot and the cold pipe.
    pipes: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(
        self, sample: LoopSample, registers: Registers, *, computed_w: float | None, event_ns: int
    ) -> None:
        """Counts one sample; a register that falls was exchanged, and is begun anew."""
        flow_m3_h, hot_c, cold_c = sample.volume_flow_m3_h, sample.hot_c, sample.cold_c
        hours = sample.span_s / _S_PER_H
        if computed_w is not None:
            self.still_s += sample.span_s
            self.still_wh += computed_w * hours
        if flow_m3_h is not None and hot_c is not None and cold_c is not None:
            moved_m3 = flow_m3_h * hours
            self.seen_s += sample.span_s
            self.carried_m3 += moved_m3
            self.carried += moved_m3 * (hot_c - cold_c)
            self.pipes[0] += moved_m3 * hot_c
            self.pipes[1] += moved_m3 * cold_c
        self._count(registers, event_ns)

    def _count(self, registers: Registers, event_ns: int) -> None:
        heat_wh, volume_m3 = registers.heat_wh, registers.volume_m3
        if heat_wh is not None and heat_wh != self.heat_wh:
            if self.heat_wh is not None and heat_wh > self.heat_wh:
                step_wh = heat_wh - self.heat_wh
                self.counted_wh += step_wh
                self.step_wh = min(self.step_wh or step_wh, step_wh)
            elif self.heat_wh is not None:
                self._anew()
            self.heat_wh = heat_wh
            self.still_s = self.still_wh = 0.0
            self.still_ns = event_ns
        if volume_m3 is not None and volume_m3 != self.volume_m3:
            if self.volume_m3 is not None and volume_m3 > self.volume_m3:
                step_m3 = volume_m3 - self.volume_m3
                self.counted_m3 += step_m3
                self.step_m3 = min(self.step_m3 or step_m3, step_m3)
            elif self.volume_m3 is not None:
                self._anew()
            self.volume_m3 = volume_m3

    def _anew(self) -> None:
        self.seen_s = self.counted_wh = self.counted_m3 = 0.0
        self.carried_m3 = self.carried = 0.0
        self.pipes = [0.0, 0.0]

    def found(self, model: LoopModel) -> list[tuple[str, int, str]]:
        """Each contradiction: fault, since when (0: since always), and the evidence."""
        return [one for one in (self._dead(), self._told(model)) if one]

    def _dead(self) -> tuple[str, int, str] | None:
        least_wh = FROZEN_STEPS * self.step_wh or FROZEN_UNKNOWN_WH
        if self.heat_wh is None or self.still_s < FROZEN_S or self.still_wh < least_wh:
            return None
        text = (
            f"the heat register stands at {self.heat_wh / 1000:.0f} kWh for "
            f"{self.still_s / 3600:.1f} h while flow and temperatures carried "
            f"{self.still_wh / 1000:.0f} kWh: see that the meter counts and its sensors are not "
            "swapped, and that the map reads the right register"
        )
        return "dead_meter", self.still_ns, text

    def _told(self, model: LoopModel) -> tuple[str, int, str] | None:
        """Whether the coefficient of the registers is that of another fluid or side."""
        is_fine = self.counted_wh > TOLD_STEPS * self.step_wh > 0
        is_fine = is_fine and self.counted_m3 > TOLD_STEPS * self.step_m3 > 0
        if not is_fine or self.seen_s < TOLD_S or self.carried <= 0:
            return None
        side = model.sensor_side
        if side not in ("hot", "cold"):
            return None
        pipes_c = (self.pipes[0] / self.carried_m3, self.pipes[1] / self.carried_m3)
        delta_k = self.carried / self.carried_m3
        seen = self.counted_wh / (1000.0 * self.counted_m3 * delta_k)
        told = heat_coefficient_kwh_m3_k(*pipes_c, side, model.fluid)
        off_frac = seen / told - 1.0
        text = f"registers show {seen:.4f} kWh/(m3 K) at {pipes_c[0]:.0f}/{pipes_c[1]:.0f} degC"
        if abs(off_frac) > OTHER_FLUID_FRAC and (fluid := _fluid(seen, pipes_c, model)):
            why = f"{text}, which is {fluid}, not {model.fluid} ({told:.4f}): check both settings"
            return "wrong_fluid", 0, why
        other = "hot" if side == "cold" else "cold"
        if abs(off_frac) > OTHER_SIDE_FRAC and _is_near(seen, pipes_c, other, model.fluid):
            why = f"{text}, which is the flow sensor in the {other} pipe, not in the {side} one"
            return "wrong_sensor_side", 0, f"{why} ({told:.4f}): check where it sits"
        return None

    def saved(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def _is_near(seen: float, pipes_c: tuple[float, float], side: str, fluid: str) -> bool:
    return abs(seen / heat_coefficient_kwh_m3_k(*pipes_c, side, fluid) - 1.0) < NEAR_FRAC


def _fluid(seen: float, pipes_c: tuple[float, float], model: LoopModel) -> str:
    """The fluids whose coefficient the registers show, in words."""
    side = model.sensor_side
    near = [f for f in FLUIDS if f != model.fluid and _is_near(seen, pipes_c, side, f)]
    return " or ".join(near)


def level_cause(
    value: float, u: float, pipes_c: tuple[float, float], model: LoopModel
) -> tuple[str, str]:
    """What a residual that was there from the start fits: a fault and its evidence.

    `value` is relative to electric heat, `u` the doubt that the priors allow.
    """
    side = "cold" if model.sensor_side == "unknown" else model.sensor_side
    told = heat_coefficient_kwh_m3_k(*pipes_c, side, model.fluid)
    shares = {
        fluid: told / heat_coefficient_kwh_m3_k(*pipes_c, side, fluid) - 1.0
        for fluid in FLUIDS
        if fluid != model.fluid
    }
    near = [
        f"{fluid} ({share:+.1%})"
        for fluid, share in shares.items()
        if share * value > 0 and abs(value - share) <= 2.0 * u
    ]
    text = f"from the start flow and temperatures tell {value:+.1%} against power, doubt {u:.1%}"
    if not near:
        return "residual", f"{text}: check capture share, flow meter, sensors and power meter"
    return "wrong_fluid", f"{text}, as {', '.join(near[:4])} in the loop would: take a sample"
