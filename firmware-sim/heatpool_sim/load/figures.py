"""Plausible figures of a small site: heat out of one flow and two temperatures, with their doubts.

Bodies of batches are made once and shared by all agents: which of them a frame has follows from
its site and number, so a frame that is sent again is the same to the last byte.
"""

import random
from collections.abc import Iterator
from functools import lru_cache

from heatpool.codec import pack
from heatpool.sample import Channel, Provenance, QualityClass, Row
from heatpool_sim.wire import up

CHANNELS = tuple(
    Channel(loop_id, quantity, exponent)
    for loop_id, quantity, exponent in (
        ("", "electric_w", -1),
        ("", "electric_w_u", -1),
        ("rack", "electric_heat_w", -1),
        ("rack", "computed_heat_w", -1),
        ("rack", "computed_heat_w_u", -1),
        ("rack", "heat_rate_w", -1),
        ("rack", "heat_rate_w_u", -1),
        ("rack", "hot_c", -2),
        ("rack", "cold_c", -2),
        ("rack", "volume_flow_m3_h", -3),
        ("rack", "quality", 0),
        ("rack", "provenance", 0),
    )
)
_WATT_PER_M3_H_K = 1_147.0  # water at 50 degC: 988 kg/m3 and 4,181 J/(kg K), over 3,600 s
_CELLS_MOST = 250_000  # of all variants of one length
_VARIANTS_MOST = 64


@lru_cache(maxsize=64)
def bodies(n_rows: int, step_ns: int, *, is_packed: bool) -> tuple[bytes, ...]:
    """Bodies of batches of this length, in some variants."""
    count = max(4, min(_VARIANTS_MOST, _CELLS_MOST // (n_rows * len(CHANNELS))))
    found = []
    for number in range(count):
        rows = list(_rows(random.Random(number), n_rows, step_ns))
        columns = pack(rows, CHANNELS, schema_id=up.SCHEMA_ID)
        if n_rows == 1:
            found.append(up.body(columns, is_packed=False))
            continue
        found.append(up.body(columns, is_packed=is_packed))
    return tuple(found)


def _rows(random_: random.Random, n_rows: int, step_ns: int) -> Iterator[Row]:
    """A site whose load walks a little around its mean."""
    electric_w = random_.uniform(4_000.0, 6_000.0)
    flow_m3_h, hot_c = random_.uniform(0.35, 0.45), random_.uniform(50.0, 58.0)
    for place in range(n_rows):
        electric_w += random_.gauss(0.0, 6.0)
        flow_m3_h += random_.gauss(0.0, 0.001)
        hot_c += random_.gauss(0.0, 0.02)
        electric_heat_w = 0.96 * electric_w
        computed_heat_w = electric_heat_w + random_.gauss(0.0, 25.0)
        cold_c = hot_c - computed_heat_w / (_WATT_PER_M3_H_K * flow_m3_h)
        values = (
            *(electric_w, 0.01 * electric_w, electric_heat_w),
            *(computed_heat_w, 0.02 * computed_heat_w),
            *((electric_heat_w + computed_heat_w) / 2, 0.015 * computed_heat_w),
            *(hot_c, cold_c, flow_m3_h),
            *(float(QualityClass.B), float(Provenance.FUSED)),
        )
        cells = dict(zip(CHANNELS, values, strict=True))
        yield Row(event_ns=1 + place * step_ns, cells=cells)
