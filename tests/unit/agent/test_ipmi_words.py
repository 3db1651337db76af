"""IPMI: bytes of DCMI and texts of ipmitool."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.ipmi_rig import ANSWER, CAN, CANNOT, INACTIVE, LIST, printed

from heatpool.errors import SensorBusy, SensorError, SensorGone, WireError
from heatpool_agent.core import ipmi as words
from heatpool_agent.core import ipmi_sdr
from heatpool_agent.core.ipmi import CAPABILITIES_REQUEST, POWER_REQUEST, Power
from heatpool_agent.core.reading import Node
from heatpool_agent.sensors import ipmi
from heatpool_agent.sensors.ipmi import settings

# Bytes.


def test_the_request_is_the_standard_s() -> None:
    assert (POWER_REQUEST.netfn, POWER_REQUEST.command) == (0x2C, 0x02)
    assert POWER_REQUEST.data == bytes.fromhex("dc 01 00 00")
    assert (CAPABILITIES_REQUEST.command, CAPABILITIES_REQUEST.data) == (0x01, b"\xdc\x01")


def test_only_the_present_watts_count() -> None:
    assert words.power(ANSWER) == Power(power_w=167, is_active=True)


@given(st.integers(0, 0xFFFF), st.binary(min_size=14, max_size=14), st.integers(0, 255))
def test_neither_means_nor_clock_move_the_present_watts(
    power_w: int, between: bytes, state: int
) -> None:
    answer = b"\x00\xdc" + struct.pack("<H", power_w) + between + bytes((state,))
    assert words.power(answer) == Power(power_w=power_w, is_active=bool(state & 0x40))


def test_no_power_comes_from_what_is_not_activated() -> None:
    with pytest.raises(SensorGone, match="not activated") as caught:
        words.present_w(words.power(INACTIVE))
    assert caught.value.fix


@given(st.binary(max_size=40))
def test_any_bytes_are_a_power_or_an_error_of_ours(answer: bytes) -> None:
    for meaning in (words.power, words.measures_power):
        try:
            meaning(answer)
        except (SensorError, WireError):
            assert answer[:2] != b"\x00\xdc" or len(answer) < 19


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
def test_a_cut_answer_is_none(cut: int) -> None:
    with pytest.raises(WireError):
        words.power(ANSWER[:cut])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0xC0, SensorBusy), (0xC3, SensorBusy), (0xD2, SensorBusy), (0xD5, SensorBusy),
        (0xC1, SensorGone), (0xCC, SensorGone), (0xD4, SensorGone), (0xFF, SensorGone),
    ],
)  # fmt: skip
def test_a_completion_code_says_whether_time_mends_it(code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"0x{code:02X}"):
        words.power(bytes((code,)))


def test_patience_has_a_length_and_a_refusal_a_cure() -> None:
    busy, unknown = words.refusal(0xC0), words.refusal(0xC1)
    assert isinstance(busy, SensorBusy)
    assert busy.wait_s >= settings.PERIOD_LEAST_S
    assert isinstance(unknown, SensorGone)
    assert "redfish" in unknown.fix


def test_capabilities_say_whether_power_is_measured() -> None:
    assert words.measures_power(CAN)
    assert not words.measures_power(CANNOT)


# Texts.


@pytest.mark.parametrize("state", ["activated", "deactivated"])
def test_a_printed_reading_is_read(state: str) -> None:
    told = words.power_in_text(printed(234, state))
    assert told == Power(power_w=234, is_active=state == "activated")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Instantaneous power reading: 12 Watts\n",
        b"Power reading state is: activated\n",
        b"Instantaneous power reading: many Watts\nPower reading state is: activated\n",
        b"\xff\xfe\x00",
    ],
)
def test_half_a_text_is_no_reading(text: bytes) -> None:
    with pytest.raises(WireError):
        words.power_in_text(text)


def told_by(text: str) -> list[tuple[str, Node, float]]:
    found = ipmi_sdr.named(ipmi_sdr.sensors(text.encode()), ipmi._rules())
    return [(one.name, node, one.power_w) for one, node in found]


def test_watts_in_the_list_are_read_by_name() -> None:
    assert told_by(LIST) == [
        ("Power Supply 1", Node.PSU_IN, 95.0),
        ("Power Supply 2", Node.PSU_IN, 0.0),
        ("Pwr Consumption", Node.CHASSIS, 112.0),
    ]


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("PS1 Input Power", Node.PSU_IN),
        ("PSU1_PIN", Node.PSU_IN),
        ("PS2 Pin", Node.PSU_IN),
        ("PSU2 Power In", Node.PSU_IN),
        ("PS1 Output Power", Node.PSU_OUT),
        ("PSU1_POUT", Node.PSU_OUT),
        ("PS2 Pout", Node.PSU_OUT),
        ("PSU1_Power", Node.PSU_IN),
        ("Power Supply 2", Node.PSU_IN),
        ("System Level", Node.CHASSIS),
        ("Total_Power", Node.CHASSIS),
        ("Power Meter", Node.CHASSIS),
        ("Avg Power", None),
        ("System Peak Power", None),
        ("PS1 Max Input Power", None),
        ("Power Limit", None),
        ("CPU Power", None),
        ("PSU Mismatch", None),
    ],
)
def test_a_name_has_one_node_or_none(name: str, node: Node | None) -> None:
    assert told_by(f"{name} | 120 Watts | ok") == ([(name, node, 120.0)] if node else [])


def test_a_name_without_a_side_yields_to_one_with_a_side() -> None:
    text = "PS1 Input Power | 130 Watts | ok\nPower Supply 1 | 118 Watts | ok\n"
    assert told_by(text) == [("PS1 Input Power", Node.PSU_IN, 130.0)]


@pytest.mark.parametrize(
    "row",
    [
        "Power Supply 1 | 0x00 | ok",
        "Power Supply 1 | No Reading | ns",
        "Power Supply 1 | 110 Watts | ns",
        "Power Supply 1 | 03h | ok | 10.1 | Presence detected",
        "Power Supply 1 | 110 Watts",
        "Power Supply 1 | 110 BTU/hr | ok",
        " | 110 Watts | ok",
    ],
)
def test_states_and_blanks_give_no_watts(row: str) -> None:
    assert ipmi_sdr.sensors(row.encode()) == ()


@given(st.text(alphabet="PSUpowerin 0159|.hoknsWatts,\n", max_size=200))
def test_any_list_is_read_without_an_error(text: str) -> None:
    assert all(one.power_w == one.power_w for one in ipmi_sdr.sensors(text.encode()))


# Real captures.


@pytest.mark.realdata
def test_a_real_server_draws_its_present_watts(realdata: Path) -> None:
    text = (realdata / "01_ipmi/ipmitool_dcmi_power_reading.txt").read_bytes()
    assert words.power_in_text(text) == Power(power_w=167, is_active=True)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("ipmitool_sdr_elist_short.txt", [("Power Supply 1", Node.PSU_IN, 110.0)]),
        # Its only watts are a mean over an unknown time; its supplies show states in hexadecimal.
        ("ipmitool_sdr_full.txt", []),
    ],
)
def test_a_real_list_gives_its_supplies_and_no_states(
    realdata: Path, file: str, told: list[Any]
) -> None:
    assert told_by((realdata / "01_ipmi" / file).read_text(encoding="utf-8")) == told
