"""Files of telegrams: text and binary, one or many, and what lies between them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from heatpool.errors import WireError
from heatpool_agent.commands.mbus import command
from heatpool_agent.core.mbus_document import document, is_all_good
from heatpool_agent.core.mbus_frames import long_frame, request_frame, reset_frame, select_frame
from heatpool_agent.core.mbus_stream import bytes_of, pieces

HEAT = bytes.fromhex("72 78563412 4304 05 04 2A 00 0000 0C06 45230100 025B 3C00 025F 2800")
TELEGRAM = long_frame(0x08, 1, HEAT)
ERROR = long_frame(0x08, 1, b"\x70\x08")
BROKEN = TELEGRAM[:-2] + b"\x00\x16"
WATER = long_frame(0x08, 2, HEAT[:8] + b"\x07" + HEAT[9:])


def rows(content: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document(content)["telegrams"]
    return found


def run(tmp_path: Path, content: bytes, *options: str) -> Result:
    path = tmp_path / "telegrams"
    path.write_bytes(content)
    return CliRunner().invoke(command, ["decode", str(path), *options])


# Frames, pieces of frames and rubbish, in any order.
streams = st.lists(
    st.one_of(
        st.sampled_from((TELEGRAM, ERROR, BROKEN, b"\xe5", TELEGRAM[:20], b"\x68", b"\x10")),
        st.binary(max_size=12),
    ),
    max_size=8,
).map(b"".join)


@given(streams)
def test_the_pieces_of_a_stream_are_the_stream(data: bytes) -> None:
    found = list(pieces(data))
    assert b"".join(piece.data for piece in found) == data
    assert [piece.offset for piece in found] == [
        sum(len(piece.data) for piece in found[:count]) for count in range(len(found))
    ]


@given(streams)
def test_any_stream_gives_a_document(data: bytes) -> None:
    found = document(data)
    assert all(row["ok"] or row["reason"] for row in found["telegrams"])
    assert all(0 <= row["offset"] <= len(data) for row in found["telegrams"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(st.text(max_size=60))
def test_any_text_gives_a_document(text: str) -> None:
    found = document(text.encode())
    assert all(row["ok"] or row["reason"] for row in found["telegrams"])


@settings(max_examples=50)
@given(st.lists(st.sampled_from((TELEGRAM, ERROR, b"\xe5", reset_frame(1))), max_size=6))
def test_every_frame_of_a_clean_stream_is_found(frames: list[bytes]) -> None:
    assert [piece.data for piece in pieces(b"".join(frames))] == frames


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=30).filter(lambda data: not {0x10, 0x68, 0xE5} & {*data}))
def test_rubbish_between_two_telegrams_hides_neither(rubbish: bytes) -> None:
    first, between, second = rows(TELEGRAM + rubbish + TELEGRAM)
    assert first["records"] == second["records"]
    assert (between["ok"], between["start"]) == (False, len(TELEGRAM))
    assert f"{len(rubbish)} bytes that start no M-Bus frame" in between["reason"]


@pytest.mark.parametrize("data", [b"\x68" * 4096, b"\x10" * 4096, TELEGRAM * 60, bytes(4096)])
def test_a_stream_is_read_in_less_than_five_ms_per_250_bytes(data: bytes) -> None:
    begun = time.process_time()
    document(data)
    assert (time.process_time() - begun) / (len(data) / 250) < 0.005


@pytest.mark.parametrize(
    "text",
    [
        TELEGRAM.hex(),
        TELEGRAM.hex(" ").upper(),
        f"# a meter, 60 °C: 00 FF\r\n{TELEGRAM.hex(' ', 8)}# E5\n\n",
        "\n".join(f"{byte:02x}" for byte in TELEGRAM),
        "\ufeff" + TELEGRAM.hex(),
    ],
)
def test_hex_text_may_be_written_in_any_way(text: str) -> None:
    assert bytes_of(text.encode()) == TELEGRAM


@pytest.mark.parametrize("data", [TELEGRAM, ERROR, b"\xe5", reset_frame(1), b"\xe5" + TELEGRAM])
def test_binary_is_taken_as_it_is(data: bytes) -> None:
    assert bytes_of(data) == data


@pytest.mark.parametrize(
    ("text", "reason", "offset"),
    [
        (b"E5\nE5 xy", "line 2: 'x' is no hex digit", 2),
        (b"# only hex\nE5 E", "3 hex digits make no whole bytes", 1),
        (b"hello", "line 1: 'h'", 0),
    ],
)
def test_text_that_is_not_hex_is_refused_with_its_place(
    text: bytes, reason: str, offset: int
) -> None:
    with pytest.raises(WireError, match=reason) as refusal:
        bytes_of(text)
    assert refusal.value.offset == offset
    (row,) = rows(text)
    assert (row["ok"], row["offset"]) == (False, offset)


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (BROKEN, "two meters answered at once", len(TELEGRAM) - 2),
        (TELEGRAM[:-3], "cut short after", len(TELEGRAM) - 3),
        (ERROR, "error 8: busy", 7),
        (long_frame(0x08, 1, b"\x72\x01"), "ends inside its header", 8),
        (long_frame(0x08, 1, HEAT + b"\x0c\x06\x00"), "inside a value of 4 bytes", 35),
        (b"\x68\x05\x06\x68", "second length 6", 2),
        (b"\x00\x01", "2 bytes that start no M-Bus frame: 00 01", 0),
    ],
)
def test_what_cannot_be_read_is_named_with_the_byte_in_the_file(
    data: bytes, reason: str, offset: int
) -> None:
    first, refused, last = rows(TELEGRAM + data + TELEGRAM)
    assert first["ok"]
    assert last["ok"]
    assert reason in refused["reason"]
    start = len(TELEGRAM)
    assert (refused["start"], refused["offset"]) == (start, start + offset)


def test_two_broken_telegrams_are_two() -> None:
    assert [row["start"] for row in rows(BROKEN * 2)] == [0, len(BROKEN)]


def test_what_looks_like_a_frame_in_a_broken_telegram_is_none() -> None:
    broken = long_frame(0x08, 1, HEAT + request_frame(1, fcb=True))[:-2] + b"\x00\x16"
    refused, whole = rows(broken + TELEGRAM)
    assert "two meters answered at once" in refused["reason"]
    assert whole["ok"]


def test_a_telegram_that_was_cut_short_swallows_not_the_next() -> None:
    cut, whole = rows(TELEGRAM[:30] + TELEGRAM)
    assert (cut["ok"], whole["ok"], whole["offset"]) == (False, True, 30)


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (b"\xe5", "acknowledgement (E5)"),
        (reset_frame(3), "link reset (40) to address 3"),
        (request_frame(3, fcb=True), "data request (7B) to address 3"),
        (bytes.fromhex("10 5A 03 5D 16"), "alarm request (5A) to address 3"),
        (bytes.fromhex("10 08 03 0B 16"), "short frame (08) to address 3"),
        (select_frame(bytes(8)), "long frame (53) to address 253: selection"),
        (long_frame(0x53, 254, b"\x50"), "control frame (53) to address 254: application reset"),
        (long_frame(0x73, 1, b"\xbb"), "control frame (73) to address 1: baud rate 2400"),
        (long_frame(0x53, 1, b"\x33"), "control frame (53) to address 1: CI field 33"),
    ],
)
def test_frames_without_figures_are_named(frame: bytes, name: str) -> None:
    (row,) = rows(frame)
    assert (row["ok"], row["frame"], "records" in row) == (True, name, False)


def test_a_document_says_everything_of_a_telegram() -> None:
    found = document(TELEGRAM)
    (row,) = found["telegrams"]
    assert found["schema"] == "heatpool.mbus/1"
    assert (row["ok"], row["reason"], row["offset"], row["address"], row["ci"]) == (
        *(True, None, 0, 1, 0x72),
    )
    assert row["header"] == {
        "id": "12345678",
        "manufacturer": "ABC",
        "version": 5,
        "medium": 4,
        "medium_name": "heat (outlet)",
        "access": 42,
        "status": 0,
        "signature": 0,
    }
    assert row["records"][0] == {
        "storage": 0,
        "tariff": 0,
        "subunit": 0,
        "function": "instantaneous",
        "quantity": "energy_wh",
        "unit": "Wh",
        "value": 12_345_000,
        "raw": 12_345,
        "exponent": 3,
        "digits": 8,
        "qualifiers": [],
    }
    assert row["heat"] == {
        "energy_wh": 12_345_000,
        "hot_c": 60,
        "cold_c": 40,
        "sensor_side": "cold",
        "meter_id": "ABC.12345678.5.4",
        "flags": [],
    }


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (TELEGRAM, 0),
        (TELEGRAM.hex().encode(), 0),
        (reset_frame(1) + b"\xe5" + request_frame(1, fcb=True) + TELEGRAM, 0),
        (TELEGRAM + ERROR, 4),
        (BROKEN, 4),
        (b"\xe5", 4),
        (b"", 4),
        (b"no hex", 4),
    ],
)
def test_the_exit_code_tells_whether_everything_could_be_used(
    tmp_path: Path, content: bytes, code: int
) -> None:
    result = run(tmp_path, content, "--json")
    assert result.exit_code == code
    found = json.loads(result.stdout)
    assert found["schema"] == "heatpool.mbus/1"
    assert is_all_good(found) == (code == 0)


@pytest.mark.parametrize("arguments", [["decode"], ["decode", "/no/such/file"], ["decode", "/"]])
def test_a_file_that_cannot_be_read_is_a_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2


def test_stdin_is_a_file_too() -> None:
    result = CliRunner().invoke(command, ["decode", "-"], input=TELEGRAM.hex())
    assert (result.exit_code, "ABC 12345678" in result.stdout) == (0, True)


def test_a_table_says_who_where_and_what(tmp_path: Path) -> None:
    lines = run(tmp_path, TELEGRAM + WATER + ERROR).stdout.splitlines()
    assert lines[0] == (
        "telegram 1 at byte 0: response of address 1, "
        "ABC 12345678, version 5, heat (outlet), access 42, status 00"
    )
    assert lines[1].strip() == "flow sensor in the cold pipe"
    assert "energy_wh 12345000, hot_c 60, cold_c 40" in lines[2]
    assert lines[4].split() == ["0", "0", "0", "instantaneous", "energy_wh", "12345000", "Wh"]
    assert any("no heat meter" in line for line in lines)
    assert lines[-1].startswith("telegram 3 at byte ")
    assert "refused: the meter reports error 8: busy" in lines[-1]


def test_text_of_a_meter_commands_no_terminal(tmp_path: Path) -> None:
    escape = HEAT[:13] + b"\x0d\x78\x05" + b"m13[\x1b" + b"\x0d\x78\x64" + b"A" * 100
    shown = run(tmp_path, long_frame(0x08, 1, escape)).stdout
    assert "\x1b" not in shown
    assert ".[31m" in shown
    assert max(map(len, shown.splitlines())) < 120


def test_encrypted_records_are_named_as_such() -> None:
    head = HEAT[:11] + b"\x10\x05"
    refused, plain = rows(
        long_frame(0x08, 1, head + bytes(range(16)))
        + long_frame(0x08, 1, head + b"\x2f\x2f\x0c\x06\x45\x23\x01\x00" + b"\x2f" * 8)
    )
    assert "encrypted (mode 5)" in refused["reason"]
    assert plain["records"][0]["value"] == 12_345_000


@pytest.mark.realdata
def test_real_telegrams_in_one_stream_are_told_apart(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "03_mbus" / "libmbus"
    good = [path.read_bytes() for path in sorted((folder / "test-frames").glob("*.hex"))]
    bad = [path.read_bytes() for path in sorted((folder / "error-frames").glob("*.hex"))]
    assert (len(good), len(bad)) == (30, 14)
    assert run(tmp_path, b"\n".join(good)).exit_code == 0
    result = run(tmp_path, b"\n# refused from here\n".join(good + bad), "--json")
    assert result.exit_code == 4
    telegrams = json.loads(result.stdout)["telegrams"]
    assert [row["ok"] for row in telegrams] == [True] * 30 + [False] * 14
    assert len({row["reason"] for row in telegrams[30:]}) == 14
    media = [row["header"]["medium_name"] for row in telegrams[:30]]
    assert [media.count(f"heat {kind}") for kind in ("(outlet)", "(inlet)", "and cooling")] == [
        *(14, 1, 1),
    ]
