"""Writes fluids.csv beside this file: what the oracles say of every fluid of heatpool.water.

Run by `make oracles` in an environment of its own that holds CoolProp and iapws; `make test` reads
the table alone. `water16` is IAPWS-IF97 at 16 bar, the convention of heat meter calculators.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from CoolProp.CoolProp import PropsSI  # type: ignore[import-not-found,import-untyped,unused-ignore]
from iapws import IAPWS95, IAPWS97  # type: ignore[import-not-found,import-untyped,unused-ignore]

KELVIN = 273.15
# Volume percent are ASHRAE's tables (APG, AEG), mass percent Melinder's (MPG, MEG).
MODELS = {("pg", "vol"): "APG", ("eg", "vol"): "AEG", ("pg", "mass"): "MPG", ("eg", "mass"): "MEG"}
HEADER = ("fluid", "temp_c", "pressure_bar", "density_kg_m3", "heat_capacity_j_kg_k", "h_j_kg")

Row = tuple[str, float, float, float, float, float]


def glycol_rows() -> Iterator[Row]:
    """-5..100 degC at 3 bar; enthalpy from CoolProp's own reference point."""
    for (kind, basis), model in MODELS.items():
        for share_frac in (0.25, 0.30):
            fluid = f"{kind}{share_frac * 100:.0f}_{basis}"
            oracle = f"INCOMP::{model}[{share_frac}]"
            for temp_c in (-5, *range(10, 101, 15)):
                state = ("T", temp_c + KELVIN, "P", 3e5, oracle)
                density, capacity, h = (PropsSI(key, *state) for key in "DCH")
                yield fluid, temp_c, 3, density, capacity, h


def water_rows() -> Iterator[Row]:
    """IAPWS-95 at 3 bar, 0..130 degC, and IF97 at 16 bar, 0..150 degC."""
    for name, model, bar, last_c in (("water", IAPWS95, 3, 130), ("water16", IAPWS97, 16, 150)):
        # 0.01 is the triple point: below it lies ice at low pressure. Up to 15 degC the fits bend.
        for temp_c in (0.01, *range(1, 15), *range(15, last_c + 1, 5)):
            state = model(T=temp_c + KELVIN, P=bar / 10)
            yield name, temp_c, bar, state.rho, state.cp * 1000, state.h * 1000


def main() -> None:
    """Writes the table with nine significant digits."""
    with (Path(__file__).parent / "fluids.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for name, *numbers in (*water_rows(), *glycol_rows()):
            writer.writerow([name, *(f"{number:.9g}" for number in numbers)])


if __name__ == "__main__":
    main()
