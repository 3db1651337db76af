"""What a recording keeps of a telegram: everything but whose it is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.mbus import decode
from heatpool_agent.core.mbus_frames import long_frame, request_frame
from heatpool_agent.core.mbus_hide import hidden

KEY = b"k" * 16
ID = bytes.fromhex("78563412")
HEAD = ID + bytes.fromhex("4304 05 04 2A 00 0000")
RECORDS = bytes.fromhex("0C06 45230100 025B 3C00")


def frame(records: bytes = RECORDS, *, head: bytes = HEAD, ci: int = 0x72) -> bytes:
    return long_frame(0x08, 1, bytes((ci,)) + head + records)


def test_the_number_is_another_and_the_figures_are_the_same() -> None:
    before, after = decode(frame()), decode(hidden(frame(), key=KEY))
    assert before.header is not None
    assert after.header is not None
    assert after.header.id != before.header.id
    assert (after.header.id or "").isdecimal()
    assert after.header.manufacturer == before.header.manufacturer
    assert after.records == before.records


def test_one_meter_stays_one_meter_under_one_key() -> None:
    other = frame(head=b"\x79" + HEAD[1:])
    assert hidden(frame(), key=KEY) == hidden(frame(), key=KEY)
    assert hidden(frame(), key=KEY)[7:11] != hidden(other, key=KEY)[7:11]
    assert hidden(frame(), key=KEY) != hidden(frame(), key=b"x" * 16)


@pytest.mark.parametrize(
    "named",
    [
        b"\x0c\x78" + ID,  # fabrication number
        b"\x0c\x79" + ID,  # enhanced identification
        b"\x0d\x78\x08" + b"87654321",  # the same as text
        b"\x0d\xfd\x10\x08" + b"87654321",  # place of installation
        b"\x0f" + ID,  # the maker's own data
        b"\x1f" + ID,
    ],
)
def test_numbers_in_records_are_others_too(named: bytes) -> None:
    after = hidden(frame(RECORDS + named), key=KEY)
    assert named not in after
    assert ID not in after
    assert b"87654321" not in after
    assert decode(after).records[:2] == decode(frame()).records


def test_a_number_that_stands_twice_is_the_same_twice() -> None:
    after = hidden(frame(b"\x0c\x78" + ID), key=KEY)
    assert after[7:11] == after[-6:-2]


@pytest.mark.parametrize("ci", [0x73, 0x77])
def test_an_old_meters_number_is_another(ci: int) -> None:
    counters = bytes.fromhex("0A 00 05 69 01000000 35010000")
    after = hidden(frame(counters, head=ID, ci=ci), key=KEY)
    assert ID not in after
    assert after[11:-2] == frame(counters, head=ID, ci=ci)[11:-2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xe5",
        request_frame(1, fcb=True),
        b"HTTP/1.1 400",
        frame()[:-4],
        frame() + b"\xe5",
        frame()[:-2] + b"\0\x16",
        long_frame(0x53, 0xFD, b"\x52" + ID + bytes(4)),
        long_frame(0x08, 1, b"\x70\x08"),
    ],
)
def test_what_is_no_telegram_is_kept_as_it_is(data: bytes) -> None:
    assert hidden(data, key=KEY) == data


@given(st.sampled_from((0x72, 0x76, 0x78, 0x7A, 0x73, 0x70, 0x51)), st.binary(max_size=60))
def test_any_telegram_keeps_its_size_and_stays_a_frame(ci: int, tail: bytes) -> None:
    before = long_frame(0x08, 1, bytes((ci,)) + tail)
    after = hidden(before, key=KEY)
    assert (len(after), after[:7]) == (len(before), before[:7])
    assert after[-2] == sum(after[4:-2]) & 0xFF


@pytest.mark.realdata
def test_real_telegrams_are_read_the_same_without_their_numbers(realdata: Path) -> None:
    folder = realdata / "03_mbus" / "libmbus" / "test-frames"
    paths = sorted(folder.glob("*.hex"))
    kept = {path: decode(hidden(bytes.fromhex(path.read_text()), key=KEY)) for path in paths}
    told = {path: decode(bytes.fromhex(path.read_text())) for path in paths}
    assert len(kept) == 30
    for path in paths:
        pairs = list(zip(kept[path].records, told[path].records, strict=True))
        assert [a.quantity for a, _ in pairs] == [b.quantity for _, b in pairs]
        assert [a.value for a, _ in pairs if a.quantity.endswith(("_wh", "_c", "_w"))] == [
            b.value for _, b in pairs if b.quantity.endswith(("_wh", "_c", "_w"))
        ]
