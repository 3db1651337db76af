"""Secondary addresses and serial lines, as they stand in a configuration."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.mbus import Header
from heatpool_agent.core.mbus_frames import select_frame
from heatpool_agent.core.mbus_link import Secondary, SerialPort, secondary_of, serial_port
from heatpool_sim.devices import mbus_telegram
from heatpool_sim.plant.meter import Meter

HEADER = Header(
    id="12345678",
    manufacturer="HPS",
    version=1,
    medium=4,
    medium_name="heat (outlet)",
    access=0,
    status=0,
    signature=0,
)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("12345678", "78563412 FFFF FF FF"),
        ("1234FFFF", "FFFF3412 FFFF FF FF"),
        ("12345678.ABC", "78563412 4304 FF FF"),
        ("12345678.ABC.5.4", "78563412 4304 05 04"),
        ("ffffffff.*.*.4", "FFFFFFFF FFFF FF 04"),
    ],
)
def test_a_secondary_address_is_eight_bytes(text: str, sent: str) -> None:
    assert secondary_of(text).to_bytes() == bytes.fromhex(sent)


@pytest.mark.parametrize(
    "text", ["", "1234567", "123456789", "1234567A", "12345678.", "12345678.AB", "12345678.ABC.256"]
)
def test_another_form_of_a_secondary_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="secondary"):
        secondary_of(text)


def test_a_selection_goes_to_every_meter() -> None:
    assert select_frame(bytes(range(8))).hex(" ") == (
        "68 0b 0b 68 53 fd 52 00 01 02 03 04 05 06 07 be 16"
    )


@given(
    st.integers(0, 99_999_999),
    st.text("ABCXYZ", min_size=3, max_size=3),
    st.integers(0, 254),
    st.sets(st.integers(0, 7)),
)
def test_the_meter_that_is_selected_is_the_one_that_fits(
    number: int, manufacturer: str, version: int, free: set[int]
) -> None:
    digits = "".join("F" if at in free else digit for at, digit in enumerate(f"{number:08d}"))
    wanted = Secondary(id=digits, manufacturer=manufacturer, version=version, medium=4)
    meter = Meter(manufacturer=manufacturer, number=number, version=version)
    header = replace(HEADER, id=f"{number:08d}", manufacturer=manufacturer, version=version)
    assert mbus_telegram.is_selected(meter, wanted.to_bytes())
    assert wanted.fits(header)
    assert not wanted.fits(replace(header, version=version ^ 1))
    assert not mbus_telegram.is_selected(replace(meter, version=version ^ 1), wanted.to_bytes())


def test_a_telegram_without_an_identity_contradicts_no_selection() -> None:
    bare = replace(HEADER, id=None, manufacturer=None, version=None, medium=None)
    assert secondary_of("12345678.HPS.1.4").fits(bare)
    assert not secondary_of("12345679").fits(HEADER)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("serial:/dev/ttyUSB0", SerialPort(path="/dev/ttyUSB0", baud=2400)),
        ("serial:/dev/ttyUSB0?baud=300", SerialPort(path="/dev/ttyUSB0", baud=300)),
        (
            "serial:/dev/serial/by-id/usb-x_1?baud=38400",
            SerialPort(path="/dev/serial/by-id/usb-x_1", baud=38400),
        ),
    ],
)
def test_a_serial_port_is_a_path_and_a_speed(url: str, port: SerialPort) -> None:
    assert serial_port(url) == port


@pytest.mark.parametrize(
    "url",
    [
        "serial:ttyUSB0",
        "serial://dev/ttyUSB0",
        "tcp:/dev/ttyUSB0",
        "serial:/dev/ttyUSB0?baud=1234",
        "serial:/dev/ttyUSB0?baud=",
        "serial:/dev/ttyUSB0?speed=2400",
    ],
)
def test_what_is_no_serial_port_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        serial_port(url)


def test_a_line_waits_as_long_as_the_standard_allows() -> None:
    port = SerialPort(path="/dev/ttyUSB0", baud=2400)
    # 55 bits of request, 330 bit times and 50 ms for the meter, 50 ms for the port.
    assert port.answer_s(5) == pytest.approx(385 / 2400 + 0.1)
    assert port.quiet_s() == pytest.approx(33 / 2400 + 0.05)
    assert port.idle_s() == pytest.approx(11 / 2400)
