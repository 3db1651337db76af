"""What the numbers of M-Bus mean: units of variable records, of old fixed counters, media.

Tables only. Names follow the vocabulary (unit last), except that a heat meter's "flow" and
"return" pipe keep the trade's words here; `mbus.heat_view` turns them into hot and cold.

Source: EN 13757-3 (value information, extensions FB and FD, fixed data structure, application
errors) and EN 13757-7 (device types).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Form = Literal["number", "bits", "moment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One unit code: value = (raw x up + add) / down, in `unit`.

    `exponent` is the power of ten where up / down is one, so that a register's raw count can be
    kept beside it; None where the unit is converted by another factor.
    """

    quantity: str
    unit: str
    exponent: int | None = 0
    up: int = 1
    down: int = 1
    add: int = 0
    form: Form = "number"


UNKNOWN = Meaning(quantity="unknown", unit="")
MANUFACTURER = Meaning(quantity="manufacturer_specific", unit="")


def power_of_ten(exponent: int) -> tuple[int, int]:
    """10**exponent as (up, down), both whole."""
    return (10**exponent, 1) if exponent >= 0 else (1, 10**-exponent)


def decimal(quantity: str, unit: str, exponent: int) -> Meaning:
    """A meaning whose raw count is a power of ten of its unit."""
    up, down = power_of_ten(exponent)
    return Meaning(quantity=quantity, unit=unit, exponent=exponent, up=up, down=down)


def _ratio(quantity: str, unit: str, exponent: int, *, up: int = 1, down: int = 1) -> Meaning:
    ten_up, ten_down = power_of_ten(exponent)
    return Meaning(
        quantity=quantity, unit=unit, exponent=None, up=up * ten_up, down=down * ten_down
    )


def _decimals(quantity: str, unit: str, exponents: Iterable[int]) -> list[Meaning]:
    return [decimal(quantity, unit, exponent) for exponent in exponents]


def _durations(quantity: str) -> list[Meaning]:
    seconds = decimal(quantity, "s", 0)
    return [seconds, *(_ratio(quantity, "s", 0, up=length_s) for length_s in (60, 3600, 86400))]


def _fahrenheit(quantity: str, unit: str, *, is_difference: bool = False) -> list[Meaning]:
    def meaning(exponent: int) -> Meaning:
        parts = 10**-exponent
        add = 0 if is_difference else -5 * 32 * parts
        return Meaning(quantity=quantity, unit=unit, exponent=None, up=5, down=9 * parts, add=add)

    return [meaning(exponent) for exponent in range(-3, 1)]


def _plain(quantity: str, *, form: Form = "number") -> Meaning:
    return Meaning(quantity=quantity, unit="", form=form)


def _table(rows: dict[int, list[Meaning]]) -> tuple[Meaning, ...]:
    table = [UNKNOWN] * 128
    for start, meanings in rows.items():
        table[start : start + len(meanings)] = meanings
    return tuple(table)


PRIMARY = _table(
    {
        0x00: _decimals("energy_wh", "Wh", range(-3, 5)),
        0x08: _decimals("energy_j", "J", range(8)),
        0x10: _decimals("volume_m3", "m3", range(-6, 2)),
        0x18: _decimals("mass_kg", "kg", range(-3, 5)),
        0x20: _durations("on_time_s"),
        0x24: _durations("operating_time_s"),
        0x28: _decimals("power_w", "W", range(-3, 5)),
        0x30: [_ratio("power_w", "W", n, down=3600) for n in range(8)],
        0x38: _decimals("volume_flow_m3_h", "m3/h", range(-6, 2)),
        0x40: [_ratio("volume_flow_m3_h", "m3/h", n, up=60) for n in range(-7, 1)],
        0x48: [_ratio("volume_flow_m3_h", "m3/h", n, up=3600) for n in range(-9, -1)],
        0x50: [_ratio("mass_flow_kg_s", "kg/s", n, down=3600) for n in range(-3, 5)],
        0x58: _decimals("flow_temperature_c", "degC", range(-3, 1)),
        0x5C: _decimals("return_temperature_c", "degC", range(-3, 1)),
        0x60: _decimals("delta_k", "K", range(-3, 1)),
        0x64: _decimals("external_temperature_c", "degC", range(-3, 1)),
        0x68: _decimals("pressure_bar", "bar", range(-3, 1)),
        0x6C: [_plain("date", form="moment"), _plain("time_point", form="moment")],
        0x6E: [_plain("heat_cost_allocation_count")],
        0x70: _durations("averaging_duration_s"),
        0x74: _durations("actuality_duration_s"),
        0x78: [_plain("fabrication_number"), _plain("identification"), _plain("bus_address")],
        0x7C: [_plain("plain_text_unit")],
        0x7E: [_plain("any"), MANUFACTURER],
    }
)

FT3 = {"up": 28_316_846_592, "down": 10**12}  # cubic foot in m3, exact
GALLON = {"up": 3_785_411_784, "down": 10**12}  # US gallon in m3, exact
GALLON_MIN = {"up": 60 * 3_785_411_784, "down": 10**12}

EXTENSION_FB = _table(
    {
        0x00: _decimals("energy_wh", "Wh", range(5, 7)),
        0x02: _decimals("reactive_energy_varh", "varh", range(3, 5)),
        0x08: _decimals("energy_j", "J", range(8, 10)),
        0x10: _decimals("volume_m3", "m3", range(2, 4)),
        0x18: _decimals("mass_kg", "kg", range(5, 7)),
        0x1A: _decimals("relative_humidity_frac", "", range(-3, -1)),
        0x20: [_ratio("volume_m3", "m3", n, **FT3) for n in (0, -1)],
        0x22: [_ratio("volume_m3", "m3", n, **GALLON) for n in (-1, 0)],
        0x24: [_ratio("volume_flow_m3_h", "m3/h", n, **GALLON_MIN) for n in (-3, 0)],
        0x26: [_ratio("volume_flow_m3_h", "m3/h", 0, **GALLON)],
        0x28: _decimals("power_w", "W", range(5, 7)),
        0x2C: _decimals("frequency_hz", "Hz", range(-3, 1)),
        0x30: [_ratio("power_w", "W", n, down=3600) for n in range(8, 10)],
        0x58: _fahrenheit("flow_temperature_c", "degC"),
        0x5C: _fahrenheit("return_temperature_c", "degC"),
        0x60: _fahrenheit("delta_k", "K", is_difference=True),
        0x64: _fahrenheit("external_temperature_c", "degC"),
        0x70: _fahrenheit("temperature_limit_c", "degC"),
        0x74: _decimals("temperature_limit_c", "degC", range(-3, 1)),
        0x78: _decimals("cumulated_peak_w", "W", range(-3, 5)),
    }
)

EXTENSION_FD = _table(
    {
        0x00: _decimals("credit", "", range(-3, 1)),
        0x04: _decimals("debit", "", range(-3, 1)),
        0x08: [
            _plain("access_number"),
            _plain("medium"),
            _plain("manufacturer"),
            _plain("parameter_set_id"),
            _plain("model_version"),
            _plain("hardware_version"),
            _plain("firmware_version"),
            _plain("software_version"),
            _plain("installation_place"),
            _plain("owner"),
        ],
        0x16: [_plain("password"), *2 * [_plain("error_flags", form="bits")]],
        0x18: [_plain("error_mask", form="bits")],
        0x1A: [_plain("digital_output", form="bits"), _plain("digital_input", form="bits")],
        0x1C: [_plain("baud_rate"), _plain("response_delay_bit_times"), _plain("retry_count")],
        0x20: [_plain("first_record_number"), _plain("last_record_number"), _plain("record_count")],
        0x24: _durations("record_interval_s"),
        0x28: [_plain("record_interval_months"), _plain("record_interval_years")],
        0x2C: _durations("since_last_readout_s"),
        0x30: [_plain("tariff_start", form="moment"), *_durations("tariff_duration_s")[1:]],
        0x34: _durations("tariff_period_s"),
        0x38: [_plain("tariff_period_months"), _plain("tariff_period_years")],
        0x3A: [_plain("dimensionless")],
        0x40: _decimals("voltage_v", "V", range(-9, 7)),
        0x50: _decimals("current_a", "A", range(-12, 4)),
        0x60: [_plain("reset_count"), _plain("cumulation_count"), _plain("control_signal")],
        0x63: [_plain("day_of_week"), _plain("week_number"), _plain("day_change_point")],
        0x66: [_plain("parameter_state"), _plain("special_supplier_number")],
        0x70: [_plain("battery_change", form="moment")],
    }
)

# What a further code does to a value besides scaling it; a reading with one of these is not
# the plain quantity any more.
QUALIFIERS: dict[int, str] = {
    0x20: "per_s",
    0x21: "per_min",
    0x22: "per_h",
    0x23: "per_day",
    0x24: "per_week",
    0x25: "per_month",
    0x26: "per_year",
    0x27: "per_revolution",
    0x28: "per_input_pulse_0",
    0x29: "per_input_pulse_1",
    0x2A: "per_output_pulse_0",
    0x2B: "per_output_pulse_1",
    0x2C: "per_l",
    0x2D: "per_m3",
    0x2E: "per_kg",
    0x2F: "per_k",
    0x30: "per_kwh",
    0x31: "per_gj",
    0x32: "per_kw",
    0x33: "per_k_l",
    0x34: "per_v",
    0x35: "per_a",
    0x36: "times_s",
    0x37: "times_s_per_v",
    0x38: "times_s_per_a",
    0x39: "start_of",
    0x3A: "uncorrected",
    0x3B: "forward",
    0x3C: "backward",
    0x40: "lower_limit",
    0x41: "below_limit_count",
    0x48: "upper_limit",
    0x49: "above_limit_count",
    0x7E: "future",
}

# A device's own word that the value of a record cannot be used.
RECORD_ERRORS: dict[int, str] = {
    0x01: "too_many_dife",
    0x02: "storage_not_implemented",
    0x03: "subunit_not_implemented",
    0x04: "tariff_not_implemented",
    0x05: "function_not_implemented",
    0x06: "data_class_not_implemented",
    0x07: "data_size_not_implemented",
    0x0B: "too_many_vife",
    0x0C: "illegal_vif_group",
    0x0D: "illegal_vif_exponent",
    0x0E: "vif_dif_mismatch",
    0x0F: "unimplemented_action",
    0x15: "no_data",
    0x16: "overflow",
    0x17: "underflow",
    0x18: "data_error",
    0x1C: "premature_end_of_record",
}


def _fixed_units() -> tuple[Meaning, ...]:
    table = [
        _plain("clock_hms"),
        _plain("date_dmy"),
        *_decimals("energy_wh", "Wh", range(9)),
        *_decimals("energy_j", "J", range(3, 12)),
        *_decimals("power_w", "W", range(9)),
        *(_ratio("power_w", "W", n, down=3600) for n in range(3, 12)),
        *_decimals("volume_m3", "m3", range(-6, 3)),
        *_decimals("volume_flow_m3_h", "m3/h", range(-6, 3)),
        decimal("temperature_c", "degC", -3),
        _plain("heat_cost_allocation_count"),
    ]
    reserved = [UNKNOWN] * (0x3F - len(table))
    return (*table, *reserved, _plain("dimensionless"))


FIXED_UNITS = _fixed_units()
FIXED_SAME_BUT_HISTORIC = 0x3E

# The four medium bits of the fixed structure -> device type of the variable one.
FIXED_MEDIA = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x0F, 3, 4, 6, 7, 8, 0x0F)

MEDIA: dict[int, str] = {
    0x00: "other",
    0x01: "oil",
    0x02: "electricity",
    0x03: "gas",
    0x04: "heat (outlet)",
    0x05: "steam",
    0x06: "warm water",
    0x07: "water",
    0x08: "heat cost allocator",
    0x09: "compressed air",
    0x0A: "cooling (outlet)",
    0x0B: "cooling (inlet)",
    0x0C: "heat (inlet)",
    0x0D: "heat and cooling",
    0x0E: "bus or system",
    0x0F: "unknown",
    0x14: "calorific value",
    0x15: "hot water",
    0x16: "cold water",
    0x17: "hot and cold water",
    0x18: "pressure",
    0x19: "analogue converter",
    0x1A: "smoke detector",
    0x1B: "room sensor",
    0x1C: "gas detector",
    0x20: "breaker",
    0x21: "valve",
    0x28: "waste water",
    0x29: "garbage",
    0x31: "communication controller",
    0x32: "unidirectional repeater",
    0x33: "bidirectional repeater",
    0x36: "radio converter, system side",
    0x37: "radio converter, meter side",
}

APPLICATION_ERRORS = (
    "unspecified error",
    "unimplemented CI field",
    "buffer too long, the device cut the request",
    "too many records",
    "premature end of a record",
    "more than 10 DIFEs",
    "more than 10 VIFEs",
    "reserved",
    "busy",
    "too many readouts",
)
BUSY, TOO_MANY_READOUTS = 8, 9
