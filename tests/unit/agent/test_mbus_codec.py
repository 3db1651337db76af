"""The agent's M-Bus decoder: laws by fuzzing, then our own frames byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import SensorBusy, WireError
from heatpool_agent.core.mbus import (
    Record,
    Telegram,
    decode,
    heat_view,
    request_frame,
    reset_frame,
    split_frame,
)

HEADER = "78 56 34 12 43 04 05 {medium} 2A 00 00 00"  # 12345678, manufacturer ABC, version 5


def long_frame(body: bytes, *, ci: int = 0x72, control: int = 0x08) -> bytes:
    content = bytes((control, 1, ci)) + body
    size = len(content)
    checksum = sum(content) & 0xFF
    return bytes((0x68, size, size, 0x68)) + content + bytes((checksum, 0x16))


def telegram_of(records: str, *, medium: str = "04") -> Telegram:
    return decode(long_frame(bytes.fromhex(HEADER.format(medium=medium) + records)))


def only(records: str) -> Record:
    (record,) = telegram_of(records).records
    return record


def outcome(frame: bytes) -> object:
    """The heat view of a frame or the refusal; anything else escapes and fails the test."""
    try:
        return heat_view(decode(frame))
    except (WireError, SensorBusy) as refusal:
        return refusal


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused_with_a_reason(data: bytes) -> None:
    assert str(outcome(data))


@given(
    st.sampled_from((0x70, 0x72, 0x73, 0x76, 0x77, 0x78, 0x7A, 0x71)),
    st.sampled_from(("", *(HEADER.format(medium=m) for m in ("04", "0A", "0C", "0D", "07")))),
    st.binary(max_size=200),
)
def test_any_body_in_a_sound_frame_decodes_or_is_refused(ci: int, start: str, tail: bytes) -> None:
    assert str(outcome(long_frame(bytes.fromhex(start) + tail, ci=ci)))


# DIF, VIF and VIFE bytes that lead deep into the tables, with data of any kind behind.
deep_records = st.lists(
    st.tuples(
        st.sampled_from((0x01, 0x04, 0x05, 0x0B, 0x0D, 0x84, 0xC4, 0x07, 0x02)),
        st.lists(st.integers(0x80, 0xFF), max_size=4),
        st.integers(0, 0x7F),
        st.binary(min_size=1, max_size=8),
    ),
    max_size=12,
)


@given(deep_records)
def test_any_chain_of_codes_decodes_or_is_refused(
    parts: list[tuple[int, list[int], int, bytes]],
) -> None:
    body = b"".join(bytes((dif, *vifs, last)) + data for dif, vifs, last, data in parts)
    assert str(outcome(long_frame(bytes.fromhex(HEADER.format(medium="04")) + body[:230])))


frames = st.one_of(
    st.just(b"\xe5"),
    st.builds(request_frame, st.integers(0, 255), fcb=st.booleans()),
    st.builds(long_frame, st.binary(max_size=252)),
)


@given(frames, st.binary(max_size=20))
def test_a_frame_is_cut_out_whole_whatever_follows(frame: bytes, rest: bytes) -> None:
    assert split_frame(frame + rest) == (frame, rest)


@given(frames, st.data())
def test_a_frame_that_is_not_all_there_is_waited_for(frame: bytes, data: st.DataObject) -> None:
    part = frame[: data.draw(st.integers(0, len(frame) - 1))]
    assert split_frame(part) == (None, part)


@given(st.integers(-(10**7) + 1, 10**8 - 1))
def test_bcd_with_a_sign_nibble_gives_the_number(number: int) -> None:
    text = f"f{-number:07d}" if number < 0 else f"{number:08d}"
    assert only("0C 06" + bytes.fromhex(text)[::-1].hex()).raw == number


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_an_integer_of_eight_bytes_gives_the_number(number: int) -> None:
    record = only("07 06" + number.to_bytes(8, "little", signed=True).hex())
    assert (record.raw, record.value, record.exponent) == (number, number * 1000, 3)


def test_requests_toggle_the_frame_count_bit() -> None:
    assert request_frame(1, fcb=False).hex(" ") == "10 5b 01 5c 16"
    assert request_frame(1, fcb=True).hex(" ") == "10 7b 01 7c 16"
    assert reset_frame(0xFD).hex(" ") == "10 40 fd 3d 16"


@pytest.mark.parametrize("address", [-1, 256])
def test_an_address_outside_a_byte_is_a_bug_of_the_caller(address: int) -> None:
    with pytest.raises(ValueError, match="is outside"):
        reset_frame(address)


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        ("00", "starts no", 0),
        ("68 02", "below 3", 1),
        ("68 05 06", "second length", 2),
        ("68 05 05 10", "second start", 3),
        ("10 5B 01 5C 17", "ends with 17", 4),
        ("10 5B 01 5D 16", "two meters answered", 3),
    ],
)
def test_bytes_that_never_become_a_frame_are_refused(data: str, reason: str, offset: int) -> None:
    with pytest.raises(WireError, match=reason) as refusal:
        split_frame(bytes.fromhex(data))
    assert refusal.value.offset == offset


@pytest.mark.parametrize(
    ("frame", "reason", "offset"),
    [
        (b"\xe5", "carries no data", 0),
        (b"", "cut short", 0),
        (long_frame(b"")[:-1], "cut short", 8),
        (long_frame(b"", ci=0x78) + b"\xe5", "after the frame", 9),
        (long_frame(b"", control=0x53), "not a response", 4),
        (long_frame(b"", ci=0x51), "CI field 51", 6),
        (long_frame(bytes(11)), "inside its header", 18),
        (long_frame(bytes(3), ci=0x7A), "inside its header", 10),
        (long_frame(bytes(15), ci=0x73), "not 16", 22),
        (long_frame(b"\x04", ci=0x78), "before a VIF", 8),
        (long_frame(b"\x7f", ci=0x78), "special function 7F", 7),
        (long_frame(b"\x84" + b"\x80" * 10 + b"\x00", ci=0x78), "10 DIFEs", 18),
        (long_frame(b"\x0d\x78\xf8", ci=0x78), "reserved length F8", 9),
        (long_frame(b"\x0d\x78", ci=0x78), "length of a variable", 9),
        (long_frame(b"\x02\xfd", ci=0x78), "inside a VIF chain", 9),
        (long_frame(b"\x02\x7c", ci=0x78), "length of a plain-text", 9),
        (long_frame(b"\x09", ci=0x70), "error 9", None),
    ],
)
def test_every_refusal_says_why_and_where(frame: bytes, reason: str, offset: int | None) -> None:
    with pytest.raises((WireError, SensorBusy), match=reason) as refusal:
        decode(frame)
    assert getattr(refusal.value, "offset", None) == offset


@pytest.mark.parametrize(("code", "wait_s"), [(8, 0.0), (9, 86400.0)])
def test_a_busy_meter_asks_for_patience(code: int, wait_s: float) -> None:
    with pytest.raises(SensorBusy) as refusal:
        decode(long_frame(bytes((code,)), ci=0x70))
    assert refusal.value.wait_s == wait_s


@pytest.mark.parametrize(
    ("record", "quantity", "value", "raw", "exponent"),
    [
        ("01 06 F6", "energy_wh", -10_000, -10, 3),
        ("02 03 39 30", "energy_wh", 12345, 12345, 0),
        ("03 0D 01 00 00", "energy_j", 100_000, 1, 5),
        ("04 FB 00 02 00 00 00", "energy_wh", 200_000, 2, 5),
        ("04 FB 09 02 00 00 00", "energy_j", 2 * 10**9, 2, 9),
        ("06 13 01 00 00 00 00 00", "volume_m3", 0.001, 1, -3),
        ("02 2D 05 00", "power_w", 500, 5, 2),
        ("02 33 10 0E", "power_w", 1000.0, 3600, None),
        ("02 43 0A 00", "volume_flow_m3_h", 0.06, 10, None),
        ("02 4B 0A 00", "volume_flow_m3_h", 0.036, 10, None),
        ("02 53 10 0E", "mass_flow_kg_s", 1.0, 3600, None),
        ("01 21 02", "on_time_s", 120, 2, None),
        ("02 59 10 27", "flow_temperature_c", 100.0, 10000, -2),
        ("01 FB 5B D4", "flow_temperature_c", pytest.approx(-42.2222, abs=1e-4), -44, None),
        ("02 FB 5A A4 06", "flow_temperature_c", pytest.approx(76.6667, abs=1e-4), 1700, None),
        ("02 FB 62 12 00", "delta_k", 1.0, 18, None),
        ("01 FD 48 17", "voltage_v", 2.3, 23, -1),
        ("02 FB 1A 90 01", "relative_humidity_frac", 0.4, 400, -3),
        ("05 5B 00 00 B8 42", "flow_temperature_c", 92.0, None, None),
        ("05 5B 00 00 C0 7F", "flow_temperature_c", None, None, None),
        ("02 5B 00 80", "flow_temperature_c", None, -(2**15), 0),
        ("0A 5A 43 F4", "flow_temperature_c", -44.3, -443, -1),
        ("0A 5A 43 E4", "flow_temperature_c", None, None, None),
        ("0D 78 03 33 32 31", "fabrication_number", "123", None, None),
        ("0D 06 C2 34 12", "energy_wh", 1_234_000, 1234, 3),
        ("0D 06 D2 34 12", "energy_wh", -1_234_000, -1234, 3),
        ("0D 06 E2 34 12", "energy_wh", 4_660_000, 0x1234, 3),
        ("01 FD 17 80", "error_flags", 128, 128, None),
        ("00 06", "energy_wh", None, None, None),
        ("01 FF 21 05", "manufacturer_specific", 5, 5, 0),
        ("02 6C FF FF", "date", None, 0xFFFF, None),
        ("02 6C 00 00", "date", None, 0, None),
    ],
)
def test_a_record_says_quantity_value_and_raw_count(
    record: str, quantity: str, value: object, raw: int | None, exponent: int | None
) -> None:
    got = only(record)
    assert (got.quantity, got.raw, got.exponent) == (quantity, raw, exponent)
    assert got.value == value


@pytest.mark.parametrize(
    ("record", "value", "qualifiers"),
    [
        ("02 6C 1F 0C", "2000-12-31", ()),
        ("02 6C BF C1", None, ("invalid",)),
        ("04 6D 10 09 05 C5", "1996-05-05T09:16:00", ()),
        ("04 6D 90 09 05 C5", None, ("invalid",)),
        ("04 6D 1E 8A 4F 16", "2010-06-15T10:30:00", ("summer_time",)),
        ("04 6D 1E 2A 4F 16", "2010-06-15T10:30:00", ()),
        ("03 6D 05 1E 0A", "10:30:05", ()),
        ("03 6D 05 3F 0A", None, ("invalid",)),
        ("06 6D 45 1E 0A 4F 16 00", "2010-06-15T10:30:05", ("summer_time",)),
        ("06 6D 05 9E 0A 4F 16 00", None, ("invalid",)),
        ("04 86 3B 01 00 00 00", 1000, ("forward",)),
        ("04 86 3C 01 00 00 00", 1000, ("backward",)),
        ("04 86 15 01 00 00 00", None, ("no_data",)),
        ("04 86 74 01 00 00 00", 10, ()),
        ("04 86 7D 01 00 00 00", 1_000_000, ()),
        ("02 DA 79 0A 00", 1.01, ()),
        ("02 DA 7B 0A 00", 2.0, ()),
        ("01 86 FF 70 05", 5000, ("manufacturer_specific",)),
        ("02 AD 22 05 00", 500, ("per_h",)),
        ("01 86 5E 05", 5000, ("vife_5e",)),
    ],
)
def test_dates_and_further_codes_change_value_and_qualifiers(
    record: str, value: object, qualifiers: tuple[str, ...]
) -> None:
    got = only(record)
    assert (got.value, got.qualifiers) == (value, qualifiers)


@pytest.mark.parametrize(
    ("record", "address"),
    [
        ("02 2B 01 00", (0, 0, 0, "instantaneous")),
        ("52 2B 01 00", (1, 0, 0, "maximum")),
        ("E2 85 61 2B 01 00", (43, 8, 2, "minimum")),
        ("B2 10 2B 01 00", (0, 1, 0, "error")),
    ],
)
def test_a_dif_chain_says_storage_tariff_subunit_and_function(
    record: str, address: tuple[int, int, int, str]
) -> None:
    got = only(record)
    assert (got.storage, got.tariff, got.subunit, got.function) == address


def test_a_plain_text_unit_stands_before_its_scaling() -> None:
    record = only("02 FC 03 48 52 25 74 D4 11")
    assert (record.unit, record.value, record.raw, record.exponent) == ("%RH", 45.64, 4564, -2)


def test_fillers_are_skipped_and_makers_data_kept_as_hex() -> None:
    telegram = telegram_of("2F 2F 01 06 05 2F 1F DE AD")
    assert [record.value for record in telegram.records] == [5000, "DE AD"]
    assert telegram.more_follows


def test_the_second_mode_sends_high_bytes_first() -> None:
    body = "12 34 56 78 04 43 05 04 2A 00 00 00 04 06 00 00 00 05 0C 13 00 00 12 34"
    telegram = decode(long_frame(bytes.fromhex(body), ci=0x76))
    assert telegram.header is not None
    assert (telegram.header.id, telegram.header.manufacturer) == ("12345678", "ABC")
    assert [record.value for record in telegram.records] == [5000, 1.234]


def test_a_short_header_and_none_carry_no_identity() -> None:
    short = decode(long_frame(bytes.fromhex("2A 04 00 00 01 06 05"), ci=0x7A))
    bare = decode(long_frame(bytes.fromhex("01 06 05"), ci=0x78))
    assert short.header is not None
    assert (short.header.id, short.header.access, short.header.status) == (None, 42, 4)
    assert bare.header is None
    assert short.records == bare.records
    assert heat_view(bare).flags == heat_view(short).flags == ("medium_unknown",)


@pytest.mark.parametrize(
    ("status", "units", "counters", "values"),
    [
        ("00", "05 69", "01 00 00 00 35 01 00 00", [(1000, 0), (0.135, 0)]),
        ("03", "05 7E", "0A 00 00 00 FF FF FF FF", [(10_000, 1), (-1000, 1)]),
        ("01", "05 7E", "0A 00 00 00 09 00 00 00", [(10_000, 0), (9000, 1)]),
    ],
)
def test_a_fixed_structure_holds_two_counters(
    status: str, units: str, counters: str, values: list[tuple[float, int]]
) -> None:
    body = bytes.fromhex(f"78 56 34 12 0A {status} {units} {counters}")
    telegram = decode(long_frame(body, ci=0x73))
    assert [(record.value, record.storage) for record in telegram.records] == values
    assert telegram.header is not None
    assert (telegram.header.id, telegram.header.medium_name) == ("12345678", "heat")
    assert heat_view(telegram).sensor_side is None
