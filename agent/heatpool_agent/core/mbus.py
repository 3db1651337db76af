"""M-Bus, the wired meter bus: the door of the decoder, and what a telegram says of heat.

Bytes go in, frozen values come out; whoever holds the line drives this. The rooms behind it:
`mbus_frames`, `mbus_telegram`, `mbus_records`, `mbus_values`, `mbus_units`. In the heat view the
trade's flow and return pipe become hot and cold.

Source: EN 1434 (heat meters), EN 13757-7 (device types).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from heatpool.heat import heat_rate_w
from heatpool.units import J_PER_WH
from heatpool_agent.core.mbus_frames import request_frame, reset_frame, split_frame
from heatpool_agent.core.mbus_records import Record
from heatpool_agent.core.mbus_telegram import Header, Telegram, decode
from heatpool_agent.core.mbus_units import power_of_ten

__all__ = [
    "Header",
    "HeatView",
    "Record",
    "Telegram",
    "decode",
    "heat_view",
    "request_frame",
    "reset_frame",
    "split_frame",
]

Side = Literal["hot", "cold"]

# Device types that measure heat -> where their flow sensor sits. In a cooling loop the flow pipe
# is the cold one, so outlet and inlet change sides; a combined meter does not say.
SENSOR_SIDES: dict[int, Side | None] = {
    0x04: "cold",
    0x0C: "hot",
    0x0A: "hot",
    0x0B: "cold",
    0x0D: None,
}
COOLING = (0x0A, 0x0B)
STATUS_FLAGS = ((0x04, "low_power"), (0x08, "permanent_error"), (0x10, "temporary_error"))

# A sensor that is broken or not connected shows 243 degC; no meter measures that hot.
ABSENT_FROM_C = 243.0
NO_TEMPERATURE = "no_temperature"
# Water carries 1.15 kWh/(m3 K), glycols less and everything real stays inside.
K_LOW_KWH_M3_K, K_HIGH_KWH_M3_K = 1.00, 1.20
# The widest difference of an approved meter, 180 K, times the largest coefficient.
MOST_KWH_M3 = 180 * K_HIGH_KWH_M3_K
# Below this difference the temperatures' own error (0.1 K and more) decides the coefficient.
LEAST_CHECKED_K = 1.0
# What a class 3 meter may be wrong by in all its parts together (EN 1434-1).
RATE_TOLERANCE_FRAC = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatView:
    """What one telegram says of heat now; absent figures are None.

    `energy_raw` x 10**`energy_exponent` is the register in `energy_unit` ("Wh" or "J") as sent;
    `energy_wh` is the same in whole Wh, rounded down. `modulus_wh` is where a BCD register in Wh
    rolls over.
    """

    energy_wh: int | None = None
    energy_raw: int | None = None
    energy_exponent: int | None = None
    energy_unit: str | None = None
    energy_digits: int | None = None
    modulus_wh: int | None = None
    volume_m3: float | None = None
    mass_kg: float | None = None
    hot_c: float | None = None
    cold_c: float | None = None
    heat_rate_w: float | None = None
    volume_flow_m3_h: float | None = None
    mass_flow_kg_s: float | None = None
    sensor_side: Side | None = None
    meter_id: str
    status: int
    k_kwh_m3_k: float | None = None
    flags: tuple[str, ...] = ()


def heat_view(telegram: Telegram) -> HeatView:
    """The present heat figures of a heat or cooling meter, with what contradicts itself flagged.

    Only present, instantaneous values of the main unit count: maxima, due-date values, tariffs
    and flows backwards stay records.
    """
    header = telegram.header
    if header is None or header.medium is None:
        status = header.status if header else 0
        return HeatView(meter_id=_meter_id(header), status=status, flags=("medium_unknown",))
    if header.medium not in SENSOR_SIDES:
        return HeatView(meter_id=_meter_id(header), status=header.status, flags=("not_heat",))
    now = _present(telegram.records)
    hot, cold = _pipes(now, is_cooling=header.medium in COOLING)
    # The fixed structure says "heat" without a pipe.
    side = None if telegram.ci in (0x73, 0x77) else SENSOR_SIDES[header.medium]
    view = HeatView(
        volume_m3=_number(now.get("volume_m3")),
        mass_kg=_number(now.get("mass_kg")),
        hot_c=_number(hot),
        cold_c=_number(cold),
        heat_rate_w=_number(now.get("power_w")),
        volume_flow_m3_h=_number(now.get("volume_flow_m3_h")),
        mass_flow_kg_s=_number(now.get("mass_flow_kg_s")),
        sensor_side=side,
        meter_id=_meter_id(header),
        status=header.status,
    )
    view = _with_register(view, now.get("energy_wh") or now.get("energy_j"))
    flags = [*_status_flags(header.status), *_register_flags(view)]
    if _has_dead_sensor(now):
        flags.append(NO_TEMPERATURE)
    if (check := _check(view, now, slack_k=_resolution(hot) + _resolution(cold))) is not None:
        flags += check.flags(side)
        view = replace(view, k_kwh_m3_k=check.k_kwh_m3_k())
    return replace(view, flags=tuple(flags))


def _meter_id(header: Header | None) -> str:
    """Identity of a meter: another one means another meter was put in."""
    if header is None:
        return ""
    parts = (header.manufacturer, header.id, header.version, header.medium)
    return ".".join("-" if part is None else str(part) for part in parts)


def _present(records: Iterable[Record]) -> dict[str, Record]:
    """The first usable record of each quantity; a plain one before one counted forwards."""
    plain: dict[str, Record] = {}
    forward: dict[str, Record] = {}
    for record in records:
        is_main = not (record.storage or record.tariff or record.subunit)
        if not is_main or record.function != "instantaneous" or _number(record) is None:
            continue
        if not record.qualifiers:
            plain.setdefault(record.quantity, record)
        elif record.qualifiers == ("forward",):
            forward.setdefault(record.quantity, record)
    return forward | plain


def _number(record: Record | None) -> float | int | None:
    if record is None or not isinstance(record.value, int | float):
        return None
    return record.value


def _pipes(now: dict[str, Record], *, is_cooling: bool) -> tuple[Record | None, Record | None]:
    """The records of the hot and the cold pipe, without what a missing sensor shows."""
    flow, back = now.get("flow_temperature_c"), now.get("return_temperature_c")
    flow_c, back_c = _number(flow), _number(back)
    if flow_c == 0 and back_c == 0:
        return None, None
    flow = None if flow_c is None or flow_c >= ABSENT_FROM_C else flow
    back = None if back_c is None or back_c >= ABSENT_FROM_C else back
    return (back, flow) if is_cooling else (flow, back)


def _has_dead_sensor(now: dict[str, Record]) -> bool:
    pipes = ("flow_temperature_c", "return_temperature_c")
    return any((_number(now.get(pipe)) or 0.0) >= ABSENT_FROM_C for pipe in pipes)


def _with_register(view: HeatView, record: Record | None) -> HeatView:
    """The view with its energy register; a register in J has no rollover in whole Wh."""
    value = _number(record)
    if record is None or value is None:
        return view
    is_j = record.unit == "J"
    modulus_wh = None
    if record.digits is not None and record.exponent is not None and not is_j:
        places = record.digits + record.exponent
        modulus_wh = 10**places if places >= 0 else None
    return replace(
        view,
        energy_wh=_whole_wh(record, value),
        energy_raw=record.raw,
        energy_exponent=record.exponent,
        energy_unit=record.unit,
        energy_digits=record.digits,
        modulus_wh=modulus_wh,
    )


def _whole_wh(record: Record, value: float) -> int:
    per_wh = J_PER_WH if record.unit == "J" else 1
    if record.raw is None or record.exponent is None:
        return math.floor(value / per_wh)
    # Whole numbers throughout: a float would lose Wh above 2**53 of the smallest unit.
    up, down = power_of_ten(record.exponent)
    return record.raw * up // (per_wh * down)


def _status_flags(status: int) -> list[str]:
    # The two lowest bits are one number, the others one bit each.
    states = {1: "meter_busy", 2: "meter_error", 3: "meter_abnormal"}
    state = [states[status & 3]] if status & 3 else []
    return state + [name for bit, name in STATUS_FLAGS if status & bit]


def _register_flags(view: HeatView) -> list[str]:
    if view.energy_wh is None or not view.volume_m3:
        return []
    is_absurd = view.energy_wh > 1000 * MOST_KWH_M3 * view.volume_m3
    return ["implausible_energy_per_volume"] if is_absurd else []


def _resolution(record: Record | None) -> float:
    """One count of a record in its unit; a real number has none to speak of."""
    if record is None or record.raw is None:
        return 0.0
    if record.exponent is not None:
        return 10.0**record.exponent
    value = _number(record)
    return abs(value / record.raw) if value and record.raw else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """A meter's heat rate beside its own flow and temperatures."""

    rate_w: float
    volume_flow_m3_h: float
    hot_c: float
    cold_c: float
    slack_w: float  # what rounding of the shown figures alone can make

    def carried_m3_k_h(self) -> float:
        return self.volume_flow_m3_h * (self.hot_c - self.cold_c)

    def k_kwh_m3_k(self) -> float | None:
        carried = self.carried_m3_k_h()
        return self.rate_w / 1000 / carried if carried else None

    def flags(self, side: Side | None) -> list[str]:
        if abs(self.hot_c - self.cold_c) < LEAST_CHECKED_K:
            return []
        carried = self.carried_m3_k_h()
        bounds_w = (1000 * K_LOW_KWH_M3_K * carried, 1000 * K_HIGH_KWH_M3_K * carried)
        is_plausible = min(bounds_w) - self.slack_w <= self.rate_w <= max(bounds_w) + self.slack_w
        sides: tuple[Side, ...] = (side,) if side else ("hot", "cold")
        is_near = any(self._is_near(one) for one in sides)
        named = (("implausible_k", is_plausible), ("rate_mismatch", is_near))
        return [name for name, holds in named if not holds]

    def _is_near(self, side: Side) -> bool:
        computed_w = heat_rate_w(self.volume_flow_m3_h, self.hot_c, self.cold_c, side)
        allowed_w = RATE_TOLERANCE_FRAC * abs(computed_w) + self.slack_w
        # Outside the range of the water tables nothing was computed, so nothing contradicts.
        return math.isnan(computed_w) or abs(self.rate_w - computed_w) <= allowed_w


def _check(view: HeatView, now: dict[str, Record], *, slack_k: float) -> _Check | None:
    if view.heat_rate_w is None or view.volume_flow_m3_h is None:
        return None
    if view.hot_c is None or view.cold_c is None:
        return None
    delta_k, flow_m3_h = abs(view.hot_c - view.cold_c), abs(view.volume_flow_m3_h)
    slack_m3_k_h = _resolution(now["volume_flow_m3_h"]) * delta_k + flow_m3_h * slack_k
    return _Check(
        rate_w=view.heat_rate_w,
        volume_flow_m3_h=view.volume_flow_m3_h,
        hot_c=view.hot_c,
        cold_c=view.cold_c,
        slack_w=_resolution(now["power_w"]) + 1000 * K_HIGH_KWH_M3_K * slack_m3_k_h,
    )
