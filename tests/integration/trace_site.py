"""A loop of its own for traces: every constant is drawn anew and hidden, the truth kept aside.

Its water and its step are its own, so that agreeing with the estimator proves something.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import exp, sqrt
from pathlib import Path
from random import Random

START = datetime(2026, 3, 1, tzinfo=UTC)
STEP_S = 10
# J/(m3 K) over seconds of an hour, near 35 degC: rho 994 kg/m3, cp 4178 J/(kg K).
WATER_W_K_M3_H = 994.0 * 4178.0 / 3600.0
HEAD = ("time", "power_w", "volume_flow_m3_h", "hot_c", "cold_c")
Cells = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a log shows, row by row, and the true heat into the coolant, W."""

    rows: Sequence[Cells]
    heat_rate_w: Sequence[float]
    power_w: Sequence[float]

    @property
    def heat_wh(self) -> float:
        """True heat from the first row to the last, Wh."""
        return sum(self.heat_rate_w[1:]) * STEP_S / 3600.0

    def write(
        self,
        path: Path,
        *,
        change: Callable[[int, Cells], Cells | None] = lambda _, cells: cells,
        columns: Sequence[str] = HEAD,
    ) -> Path:
        """The log as CSV, each row as `change` leaves it; None leaves it out."""
        places = [HEAD.index(name) for name in columns]
        found = [change(index, list(cells)) for index, cells in enumerate(self.rows)]
        kept = [",".join(cells[place] for place in places) for cells in found if cells]
        path.write_text("\n".join([",".join(columns), *kept]) + "\n", encoding="utf-8")
        return path


def site(seed: int, *, hours: float = 3.0, capture_frac_u: float = 0.05) -> Site:
    """One loop with direct cooling, its constants drawn within what is assumed of such loops."""
    chance = Random(seed)
    capture_frac = chance.gauss(0.75, capture_frac_u)
    meter, flow_gain = chance.gauss(1.0, 0.03), chance.gauss(1.0, 0.012)
    pair_k = chance.gauss(0.0, 0.05)
    conductance_w_k = 75e3 / 8.0 * chance.uniform(0.8, 1.25)
    mass_j_k = conductance_w_k * 90.0 * chance.uniform(0.8, 1.25)
    loss_w_k = chance.uniform(50.0, 200.0)
    base_c = chance.gauss(30.0, 3.0)
    wander_w = jump_w = wander_k = 0.0
    hot_c: float | None = None
    rows, heat, power = [], [], []
    for index in range(round(hours * 3600 / STEP_S)):
        wander_w = _wander(chance, wander_w, 8e3, 600.0)
        wander_k = _wander(chance, wander_k, 0.5, 1800.0)
        if chance.random() < STEP_S / 3600.0:
            jump_w = chance.choice((-25e3, 0.0, 15e3))
        power_w, cold_c = 100e3 + wander_w + jump_w, base_c + wander_k
        both_w_k = conductance_w_k + loss_w_k
        end_c = (capture_frac * power_w + conductance_w_k * cold_c + loss_w_k * 25.0) / both_w_k
        before_c = end_c if hot_c is None else hot_c
        fade = mass_j_k / both_w_k
        hot_c = end_c + (before_c - end_c) * exp(-STEP_S / fade)
        mean_c = end_c + (before_c - end_c) * fade / STEP_S * (1.0 - exp(-STEP_S / fade))
        heat.append(conductance_w_k * (mean_c - cold_c))
        power.append(power_w)
        rows.append(
            [
                (START + timedelta(seconds=STEP_S * index)).isoformat(),
                f"{power_w * meter * chance.gauss(1.0, 0.01):.1f}",
                f"{conductance_w_k / WATER_W_K_M3_H * flow_gain * chance.gauss(1.0, 0.015):.5f}",
                f"{mean_c + pair_k + chance.gauss(0.0, 0.02):.3f}",
                f"{cold_c + chance.gauss(0.0, 0.02):.3f}",
            ]
        )
    return Site(rows=rows, heat_rate_w=heat, power_w=power)


def _wander(chance: Random, value: float, size: float, time_s: float) -> float:
    kept = exp(-STEP_S / time_s)
    return kept * value + chance.gauss(0.0, size * sqrt(1.0 - kept * kept))
