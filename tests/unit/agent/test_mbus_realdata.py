"""Real M-Bus telegrams, read in place: every value as in the XML another decoder made of it."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from heatpool.errors import SensorBusy, WireError
from heatpool_agent.core.mbus import Telegram, decode, heat_view

TEST_FRAMES = (
    *("EDC", "ELS_Elster-F96-Plus", "ELV-Elvaco-CMa10", "LGB_G350", "SEN_Sensus-PolluTherm"),
    *("abb_f95", "allmess_cf50", "amt_calec_mb", "eastron_sdm630", "electricity-meter-1"),
    *("els_falcon", "elv_temp_humid", "engelmann_sensostar2c", "example_data_01", "filler"),
    *("frame1", "frame2", "itron_bm_+m", "itron_cf_51", "itron_cf_echo_2", "kamstrup_382_005"),
    *("kamstrup_multical_601", "manual_frame3", "metrona_ultraheat_xs", "minol_minocal_c2"),
    *("oms_frame1", "oms_frame3", "sen_pollucom_e", "siemens_water", "svm_f22_telegram1"),
)
MEDIA = {
    "Bus/System": "bus or system",
    "Cold water": "cold water",
    "Electricity": "electricity",
    "Gas": "gas",
    "Heat / Cooling load meter": "heat and cooling",
    "Heat: Inlet": "heat (inlet)",
    "Heat: Outlet": "heat (outlet)",
    "Other": "other",
    "Warm water": "warm water",
    "Water": "water",
}
FUNCTIONS = {
    "Instantaneous value": "instantaneous",
    "Maximum value": "maximum",
    "Minimum value": "minimum",
    "Value during error state": "error",
    "Manufacturer specific": "instantaneous",
    "More records follow": "instantaneous",
}
# A date that is not set, and letters on the display ("dddd ebbd") that the XML reads as digits.
NOT_VALUES = ("2000-00-00", "13131113.000000", "131.113000", "1311041.300000", "11.041300")
QUANTITIES = {
    "Energy": "energy_wh",
    "Volume": "volume_m3",
    "Power": "power_w",
    "Volume flow": "volume_flow_m3_h",
    "Flow temperature": "flow_temperature_c",
    "Return temperature": "return_temperature_c",
    "Temperature difference": "delta_k",
    "External temperature": "external_temperature_c",
    "On time": "on_time_s",
    "Operating time": "operating_time_s",
    "Averaging Duration": "averaging_duration_s",
    "Actuality Duration": "actuality_duration_s",
    "Time point (date)": "date",
    "Time point (date & time)": "time_point",
    "Fabrication No": "fabrication_number",
    "Voltage": "voltage_v",
    "Current": "current_a",
    "Error flags": "error_flags",
    "H.C.A.": "heat_cost_allocation_count",
    "Customer location": "installation_place",
    "Digital Input": "digital_input",
    "Digital Output": "digital_output",
    "Dimensionless": "dimensionless",
    "Firmware version": "firmware_version",
    "Software version": "software_version",
    "Model / Version": "model_version",
    "Parameter set identification": "parameter_set_id",
    "Special supplier information": "special_supplier_number",
    "Manufacturer specific": "manufacturer_specific",
    "": "manufacturer_specific",
}


def telegram_in(realdata: Path, name: str, folder: str = "test-frames") -> Telegram:
    path = realdata / "03_mbus" / "libmbus" / folder / f"{name}.hex"
    return decode(bytes.fromhex(path.read_text()))


def xml_of(realdata: Path, name: str) -> ET.Element:
    folder = realdata / "03_mbus" / "libmbus" / "test-frames"
    return ET.parse(folder / f"{name}.xml").getroot()


def records_in(root: ET.Element) -> list[ET.Element]:
    # An empty block of the maker is a row there and nothing here.
    return [row for row in root.findall("DataRecord") if row.findtext("Value")]


def said(row: ET.Element) -> object:
    """A value of the XML: a number within its six printed places, a text, None for no date."""
    text = row.findtext("Value", "")
    if text in NOT_VALUES:
        return None
    if row.findtext("Quantity") in ("Parameter set identification", "") or "T" in text:
        return text.removesuffix("Z")
    try:
        return pytest.approx(float(text), rel=1e-12, abs=5.1e-7)
    except ValueError:
        return text


@pytest.mark.realdata
def test_the_table_names_every_real_telegram(realdata: Path) -> None:
    folder = realdata / "03_mbus" / "libmbus" / "test-frames"
    assert sorted(path.stem for path in folder.glob("*.hex")) == sorted(TEST_FRAMES)


@pytest.mark.realdata
@pytest.mark.parametrize("name", TEST_FRAMES)
def test_a_real_telegram_has_the_values_of_its_xml(realdata: Path, name: str) -> None:
    rows = records_in(xml_of(realdata, f"{name}.norm"))
    records = telegram_in(realdata, name).records
    assert [record.value for record in records] == [said(row) for row in rows]


@pytest.mark.realdata
@pytest.mark.parametrize("name", TEST_FRAMES)
def test_a_real_telegram_has_the_raw_counts_of_its_xml(realdata: Path, name: str) -> None:
    rows = records_in(xml_of(realdata, name))
    pairs = zip(telegram_in(realdata, name).records, rows, strict=True)
    counts = [
        (str(record.raw), row.findtext("Value"))
        for record, row in pairs
        if record.raw is not None and record.quantity not in ("date", "time_point")
    ]
    assert [ours for ours, _ in counts] == [theirs for _, theirs in counts]


@pytest.mark.realdata
@pytest.mark.parametrize("name", TEST_FRAMES)
def test_a_real_telegram_has_the_addresses_of_its_xml(realdata: Path, name: str) -> None:
    theirs = [
        (
            FUNCTIONS[row.findtext("Function", "")],
            int(row.findtext("StorageNumber", "0")),
            int(row.findtext("Tariff", "0")),
            int(row.findtext("Device", "0")),
            QUANTITIES.get(row.findtext("Quantity", ""), "plain_text_unit"),
        )
        for row in records_in(xml_of(realdata, f"{name}.norm"))
    ]
    ours = [
        (record.function, record.storage, record.tariff, record.subunit, record.quantity)
        for record in telegram_in(realdata, name).records
    ]
    assert ours == theirs


@pytest.mark.realdata
@pytest.mark.parametrize("name", TEST_FRAMES)
def test_a_real_telegram_has_the_header_of_its_xml(realdata: Path, name: str) -> None:
    telegram, root = telegram_in(realdata, name), xml_of(realdata, name)
    header, told = telegram.header, root.find("SlaveInformation")
    assert header is not None
    assert told is not None
    assert header.manufacturer == told.findtext("Manufacturer")
    assert header.medium_name == MEDIA[told.findtext("Medium", "").partition(" (")[0]]
    assert header.id is not None
    assert header.id.lstrip("0") == told.findtext("Id", "").lstrip("0")
    assert (header.version, header.access, header.status, header.signature) == (
        int(told.findtext("Version", "")),
        int(told.findtext("AccessNumber", "")),
        int(told.findtext("Status", ""), 16),
        int(told.findtext("Signature", ""), 16),
    )
    functions = [row.findtext("Function") for row in root.findall("DataRecord")]
    assert telegram.more_follows == ("More records follow" in functions)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("application_busy", "error 8: busy"),
        ("buffer_too_long", "error 2: buffer too long"),
        ("error", "without a code"),
        ("premature_end_of_data1", "inside a value of 3 bytes"),
        ("premature_end_of_dif1", "inside a DIF chain"),
        ("premature_end_of_record", "error 4: premature end"),
        ("premature_end_of_var_vif1", "inside a plain-text unit"),
        ("too_long_var_vif", "plain-text unit of 243 characters, at most"),
        ("too_many_difes", "error 5: more than 10 DIFEs"),
        ("too_many_readouts", "error 9: too many readouts"),
        ("too_many_records", "error 3: too many records"),
        ("too_many_vife", "a record has more than 10 VIFEs"),
        ("unimplemented_ci", "error 1: unimplemented CI"),
        ("unspecified_error", "error 0: unspecified"),
    ],
)
def test_a_real_error_frame_is_refused_with_its_own_reason(
    realdata: Path, name: str, reason: str
) -> None:
    with pytest.raises((WireError, SensorBusy), match=reason):
        telegram_in(realdata, name, "error-frames")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "kamstrup_multical_601",
            {
                "energy_wh": 37_351_000,
                "energy_raw": 37_351,
                "energy_exponent": 3,
                "volume_m3": 561.08,
                "heat_rate_w": 34_700,
                "hot_c": 101.69,
                "cold_c": 46.16,
                "sensor_side": "cold",
                "k_kwh_m3_k": pytest.approx(1.1508, abs=5e-5),
                "meter_id": "KAM.06855817.8.4",
                "flags": (),
            },
        ),
        (
            "amt_calec_mb",
            {
                "energy_wh": None,
                "heat_rate_w": pytest.approx(13_426e3, abs=500),
                "hot_c": pytest.approx(135.8, abs=0.05),
                "cold_c": pytest.approx(29.0, abs=0.05),
                "k_kwh_m3_k": pytest.approx(1.1639, abs=5e-5),
                "flags": ("temporary_error",),
            },
        ),
        (
            "svm_f22_telegram1",
            {
                "energy_wh": 28_014_000,
                "volume_m3": 640.581,
                "hot_c": None,
                "cold_c": None,
                "sensor_side": "hot",
                "k_kwh_m3_k": None,
            },
        ),
        (
            "oms_frame3",
            {
                "heat_rate_w": 329.7,
                "modulus_wh": 10**11,
                "flags": ("implausible_energy_per_volume", "implausible_k", "rate_mismatch"),
            },
        ),
    ],
)
def test_a_real_heat_meter_is_seen_as_it_is(
    realdata: Path, name: str, expected: dict[str, object]
) -> None:
    view = heat_view(telegram_in(realdata, name))
    assert {field: getattr(view, field) for field in expected} == expected


@pytest.mark.realdata
def test_the_control_byte_may_carry_access_bits(realdata: Path) -> None:
    assert telegram_in(realdata, "EDC").control == 0x28
