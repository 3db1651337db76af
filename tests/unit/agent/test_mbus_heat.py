"""What an M-Bus telegram says of heat: pipes, sides, sentinels, registers, contradictions."""

import pytest

from heatpool_agent.core.mbus import HeatView, Telegram, decode, heat_view

HEADER = "78 56 34 12 43 04 05 {medium} 2A 00 00 00"  # 12345678, manufacturer ABC, version 5


def long_frame(body: bytes, *, ci: int = 0x72, control: int = 0x08) -> bytes:
    content = bytes((control, 1, ci)) + body
    size = len(content)
    checksum = sum(content) & 0xFF
    return bytes((0x68, size, size, 0x68)) + content + bytes((checksum, 0x16))


def telegram_of(records: str, *, medium: str = "04") -> Telegram:
    return decode(long_frame(bytes.fromhex(HEADER.format(medium=medium) + records)))


READINGS = {
    "energy": "0C 06 45 23 01 00",  # 12,345 kWh in 8 digits
    "volume": "04 13 40 E2 01 00",  # 123.456 m3
    "hot": "02 5B 3C 00",  # 60 degC in the flow pipe
    "cold": "02 5F 28 00",  # 40 degC in the return pipe
    "rate": "02 2D E7 00",  # 23.1 kW
    "flow": "02 3B E8 03",  # 1 m3/h
}


def view_of(*, medium: str = "04", **changed: str) -> HeatView:
    return heat_view(telegram_of(" ".join((READINGS | changed).values()), medium=medium))


def test_a_heat_meter_gives_its_present_figures() -> None:
    assert view_of() == HeatView(
        energy_wh=12_345_000,
        energy_raw=12_345,
        energy_exponent=3,
        energy_unit="Wh",
        energy_digits=8,
        modulus_wh=10**11,
        volume_m3=123.456,
        hot_c=60,
        cold_c=40,
        heat_rate_w=23_100,
        volume_flow_m3_h=1.0,
        sensor_side="cold",
        meter_id="ABC.12345678.5.4",
        status=0,
        k_kwh_m3_k=pytest.approx(1.155),  # type: ignore[arg-type]  # equal within rounding
    )


@pytest.mark.parametrize(
    ("medium", "hot_c", "side"),
    [
        ("04", 60, "cold"),
        ("0C", 60, "hot"),
        ("0A", 40, "hot"),
        ("0B", 40, "cold"),
        ("0D", 60, None),
    ],
)
def test_the_medium_says_the_pipes_and_the_sensor_side(
    medium: str, hot_c: float, side: str | None
) -> None:
    view = view_of(medium=medium)
    assert (view.hot_c, view.sensor_side) == (hot_c, side)


@pytest.mark.parametrize("medium", ["00", "02", "03", "06", "07", "08", "16"])
def test_other_meters_on_the_bus_are_not_heat(medium: str) -> None:
    view = view_of(medium=medium)
    assert (view.energy_wh, view.heat_rate_w, view.flags) == (None, None, ("not_heat",))


@pytest.mark.parametrize(
    ("hot", "cold", "seen"),
    [
        ("02 5B F3 00", "02 5F F3 00", (None, None)),
        ("02 5B 00 00", "02 5F 00 00", (None, None)),
        ("02 5B F3 00", "02 5F 28 00", (None, 40)),
        ("02 5B 05 00", "02 5F 00 00", (5, 0)),
    ],
)
def test_a_missing_sensor_gives_no_temperature(
    hot: str, cold: str, seen: tuple[float | None, float | None]
) -> None:
    view = view_of(hot=hot, cold=cold)
    assert (view.hot_c, view.cold_c) == seen
    assert view.energy_wh == 12_345_000


@pytest.mark.parametrize(
    "rate",
    [
        "12 2D E7 00",  # a maximum
        "32 2D E7 00",  # during an error
        "42 2D E7 00",  # of the due date
        "82 10 2D E7 00",  # of a tariff
        "82 40 2D E7 00",  # of a subunit
        "02 AD 3C E7 00",  # backwards
        "02 AD 15 E7 00",  # no data, says the meter
    ],
)
def test_only_a_present_plain_value_is_a_reading(rate: str) -> None:
    assert view_of(rate=rate).heat_rate_w is None


def test_a_plain_register_comes_before_one_counted_forwards() -> None:
    forward = "04 86 3B 07 00 00 00"
    assert view_of(energy=forward).energy_wh == 7000
    assert view_of(energy=f"{forward} {READINGS['energy']}").energy_wh == 12_345_000


@pytest.mark.parametrize(
    ("energy", "wh", "raw", "exponent", "unit", "modulus_wh"),
    [
        ("04 FB 01 02 00 00 00", 2_000_000, 2, 6, "Wh", None),
        ("0C FB 08 02 00 00 00", 55_555, 2, 8, "J", None),
        ("0C 01 99 19 00 00", 19, 1999, -2, "Wh", 10**6),
        ("05 05 00 00 90 3F", 112, None, None, "Wh", None),
    ],
)
def test_a_register_keeps_its_raw_count_and_unit(
    energy: str, wh: int, raw: int | None, exponent: int | None, unit: str, modulus_wh: int | None
) -> None:
    view = view_of(energy=energy)
    assert (view.energy_wh, view.energy_raw, view.energy_unit) == (wh, raw, unit)
    assert (view.energy_exponent, view.modulus_wh) == (exponent, modulus_wh)


@pytest.mark.parametrize(
    ("changed", "flags"),
    [
        ({"rate": "02 2D B4 00"}, ("rate_mismatch",)),
        ({"rate": "02 2D 17 00"}, ("implausible_k", "rate_mismatch")),
        ({"rate": "02 2F 02 00"}, ()),  # 20 kW in steps of 10: rounding explains it
        ({"flow": "02 3B 00 00"}, ("implausible_k", "rate_mismatch")),
        ({"flow": ""}, ()),
        ({"cold": "02 5F 3C 00", "rate": "02 2D 09 00"}, ()),  # no difference, nothing to check
        ({"volume": "04 13 E8 03 00 00"}, ("implausible_energy_per_volume",)),
    ],
)
def test_a_meter_that_contradicts_itself_is_flagged(
    changed: dict[str, str], flags: tuple[str, ...]
) -> None:
    assert view_of(**changed).flags == flags


def test_the_status_byte_becomes_flags() -> None:
    body = bytearray(bytes.fromhex(HEADER.format(medium="04")))
    body[9] = 0x1E
    view = heat_view(decode(long_frame(bytes(body))))
    assert view.status == 0x1E
    assert view.flags == ("meter_error", "low_power", "permanent_error", "temporary_error")
