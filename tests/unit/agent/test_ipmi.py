"""IPMI: bytes of DCMI, texts of ipmitool, the kernel's device, settings, recordings."""

import asyncio
import ctypes
import errno
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone, WireError
from heatpool_agent.core import ipmi as words
from heatpool_agent.core import ipmi_sdr
from heatpool_agent.core.ipmi import CAPABILITIES_REQUEST, POWER_REQUEST, Power
from heatpool_agent.core.reading import Node
from heatpool_agent.sensors import ipmi
from heatpool_agent.sensors.ipmi import device, settings, tool

# DCMI 1.5, table 6-16: 167 W now, 124 to 422 W, 156 W over 699,043 s; a clock of 2016; bit 6.
ANSWER = bytes.fromhex("00 dc a700 7c00 a601 9c00 fb9b9f57 b8aeaa29 40")
INACTIVE = ANSWER[:-1] + b"\x00"
# No command of that name.
UNKNOWN = b"\xc1"
CAN = bytes.fromhex("00 dc 0105 02 00 01 07")
CANNOT = bytes.fromhex("00 dc 0105 02 00 00 07")

TEXT = """
    Instantaneous power reading:                   {power:>3} Watts
    Minimum during sampling period:                 90 Watts
    Maximum during sampling period:                510 Watts
    Average power reading over sample period:      140 Watts
    IPMI timestamp:                        07/31/16 21:20:00 UTC    Sampling period:  9 Seconds.
    Power reading state is:                   {state}

"""

LIST = """\
SEL              | 72h | ns  |  7.1 | No Reading
Fan1             | 30h | ok  |  7.1 | 5040 RPM
Power Supply 1   | 03h | ok  | 10.1 | 95 Watts, Presence detected
Power Supply 2   | 04h | ok  | 10.2 | 0 Watts, Presence detected, Failure detected
Power Supply 3   | 05h | ns  | 10.3 | No Reading
PS Redundancy    | 06h | ok  | 10.4 | Fully Redundant
Pwr Consumption  | 77h | ok  |  7.1 | 112 Watts
Avg Power        | 78h | ok  |  7.1 | 99 Watts
CPU Power        | 79h | ok  |  3.1 | 60 Watts
"""


def printed(power_w: int = 234, state: str = "activated") -> bytes:
    return TEXT.format(power=power_w, state=state).encode()


def script(folder: Path, body: str) -> str:
    path = folder / "ipmitool"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def config(**more: Any) -> ipmi.Config:
    return msgspec.convert({"id": "bmc", "kind": "ipmi", **more}, ipmi.Config)


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


# The kernel's device.


class Kernel:
    """What answers ioctl: looks at the caller's memory as the kernel does; a FIFO is the device."""

    def __init__(self, dev: Path) -> None:
        dev.mkdir(parents=True, exist_ok=True)
        self.path = dev / "ipmi0"
        os.mkfifo(self.path)
        self.answers: dict[int, list[bytes]] = {}
        self.asked: list[tuple[int, int, bytes]] = []
        # Answers that come before ours, with what is wrong with them.
        self.strays: list[tuple[int, int]] = []
        self._waiting: list[tuple[int, int, bytes]] = []
        self.error: int = 0

    def ioctl(self, descriptor: int, number: int, found: Any) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        if number == device.SEND:
            self._take(descriptor, found)
        else:
            self._give(descriptor, number, found)

    def _take(self, descriptor: int, sent: Any) -> None:
        address = ctypes.string_at(sent.addr, sent.addr_len)
        assert struct.unpack_from("=ihB", address) == (0x0C, 0x0F, 0)
        data = ctypes.string_at(sent.msg.data, sent.msg.data_len)
        self.asked.append((sent.msg.netfn, sent.msg.cmd, data))
        for kind, number in self.strays:
            self._queue(descriptor, kind, number, b"\x00stray")
        for answer in self.answers.get(sent.msg.cmd, []):
            self._queue(descriptor, 1, sent.msgid, answer)

    def _queue(self, descriptor: int, kind: int, number: int, answer: bytes) -> None:
        self._waiting.append((kind, number, answer))
        os.write(descriptor, b"x")

    def _give(self, descriptor: int, number: int, found: Any) -> None:
        assert number == device.RECEIVE
        os.read(descriptor, 1)
        found.recv_type, found.msgid, answer = self._waiting.pop(0)
        if len(answer) > found.msg.data_len:
            raise OSError(errno.EMSGSIZE, "too long")
        ctypes.memmove(found.msg.data, answer, len(answer))
        found.msg.data_len = len(answer)


@pytest.fixture
def kernel(machine: Any) -> Kernel:
    kernel = Kernel(machine.folder / "dev")
    kernel.answers = {2: [ANSWER], 1: [CAN]}
    return kernel


@pytest.fixture
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0)
    yield descriptor
    os.close(descriptor)


def bound(machine: Any, kernel: Kernel, **more: Any) -> ipmi.Ipmi:
    return ipmi.Ipmi(config(**more), machine.roots(), machine, ioctl=kernel.ioctl)


def test_the_layouts_are_the_kernel_s(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/ipmi.h").exists():
        pytest.skip("no gcc or no <linux/ipmi.h> here to compare with")
    source = tmp_path / "layout.c"
    source.write_text(
        """
        #include <stddef.h>
        #include <stdio.h>
        #include <sys/ioctl.h>
        #include <linux/ipmi.h>
        int main(void) {
            printf("%lu %lu %zu %zu %zu %zu %zu %zu %zu %zu %d %d %d\\n",
                (unsigned long)IPMICTL_SEND_COMMAND, (unsigned long)IPMICTL_RECEIVE_MSG_TRUNC,
                sizeof(struct ipmi_req), offsetof(struct ipmi_req, msg),
                offsetof(struct ipmi_req, msgid), offsetof(struct ipmi_msg, data),
                sizeof(struct ipmi_recv), offsetof(struct ipmi_recv, msg),
                offsetof(struct ipmi_recv, addr),
                offsetof(struct ipmi_system_interface_addr, lun),
                IPMI_SYSTEM_INTERFACE_ADDR_TYPE, IPMI_BMC_CHANNEL, IPMI_RESPONSE_RECV_TYPE);
        }
        """,
        encoding="ascii",
    )
    program = tmp_path / "layout"
    subprocess.run([compiler, source, "-o", program], check=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert [int(number) for number in told.split()] == [
        device.SEND, device.RECEIVE,
        ctypes.sizeof(device.Sent), device.Sent.msg.offset,
        device.Sent.msgid.offset, device.Message.data.offset,
        ctypes.sizeof(device.Received), device.Received.msg.offset,
        device.Received.addr.offset, device.Address.lun.offset,
        device.SYSTEM_INTERFACE, device.BMC_CHANNEL, 1,
    ]  # fmt: skip


def test_a_command_goes_in_and_its_answer_comes_out(kernel: Kernel, wake: int) -> None:
    told = device.answer(kernel.path, POWER_REQUEST, timeout_s=1, wake=wake, ioctl=kernel.ioctl)
    assert told == ANSWER
    assert kernel.asked == [(0x2C, 0x02, b"\xdc\x01\x00\x00")]


def test_events_and_answers_to_others_are_passed_over(kernel: Kernel, wake: int) -> None:
    kernel.strays = [(2, 1), (1, 99)]
    told = device.answer(kernel.path, POWER_REQUEST, timeout_s=1, wake=wake, ioctl=kernel.ioctl)
    assert told == ANSWER


def test_silence_ends_in_time(kernel: Kernel, wake: int) -> None:
    kernel.answers = {}
    with pytest.raises(TimeoutError):
        device.answer(kernel.path, POWER_REQUEST, timeout_s=0.01, wake=wake, ioctl=kernel.ioctl)


def test_a_thread_that_nobody_waits_for_is_woken(kernel: Kernel, wake: int) -> None:
    kernel.answers = {}
    os.eventfd_write(wake, 1)
    with pytest.raises(OSError, match="nobody waits") as caught:
        device.answer(kernel.path, POWER_REQUEST, timeout_s=30, wake=wake, ioctl=kernel.ioctl)
    assert caught.value.errno == errno.ECANCELED


def test_an_endless_answer_is_refused(kernel: Kernel, wake: int) -> None:
    kernel.answers = {2: [bytes(400)]}
    with pytest.raises(WireError, match="longer"):
        device.answer(kernel.path, POWER_REQUEST, timeout_s=1, wake=wake, ioctl=kernel.ioctl)


@pytest.mark.parametrize("name", device.NAMES)
def test_every_name_of_the_device_is_known(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert device.device(tmp_path) == path


# The driver, from inside.


async def test_the_own_bmc_is_read_without_a_fork(machine: Any, kernel: Kernel) -> None:
    sensor = bound(machine, kernel, loop="rack", ipmitool="/nowhere/ipmitool")
    assert await sensor.probe() == ["ipmi/dcmi"]
    (reading,) = await sensor.read()
    assert (reading.value, reading.node, reading.quantity) == (167.0, Node.CHASSIS, "power_w")
    assert (reading.event_ns, reading.loop) == (machine.at_ns, "rack")


async def test_no_device_is_nothing_there(machine: Any) -> None:
    async with ipmi.open(config(), machine.roots(), machine) as sensor:
        assert await sensor.probe() == ()


async def test_no_device_is_told_to_who_asked_for_it(machine: Any) -> None:
    async with ipmi.open(config(via="device"), machine.roots(), machine) as sensor:
        with pytest.raises(SensorGone) as caught:
            await sensor.probe()
    assert "modprobe" in caught.value.fix


async def test_a_bmc_without_its_driver_is_told(machine: Any) -> None:
    machine.write("sys/firmware/dmi/entries/38-0", {"type": 38})
    async with ipmi.open(config(), machine.roots(), machine) as sensor:
        with pytest.raises(SensorGone, match="firmware") as caught:
            await sensor.probe()
    assert "ipmi_devintf" in caught.value.fix


async def test_no_right_is_told_with_the_rule_that_gives_it(machine: Any, kernel: Kernel) -> None:
    kernel.error = errno.EACCES
    with pytest.raises(SensorGone, match="Permission denied") as caught:
        await bound(machine, kernel).probe()
    assert "udev" in caught.value.fix


async def test_a_bmc_without_dcmi_is_gone(machine: Any, kernel: Kernel) -> None:
    kernel.answers = {2: [UNKNOWN], 1: [UNKNOWN]}
    with pytest.raises(SensorGone, match="0xC1") as caught:
        await bound(machine, kernel).probe()
    assert "claims" not in caught.value.reason


async def test_a_bmc_that_claims_to_measure_and_does_not_is_named(
    machine: Any, kernel: Kernel
) -> None:
    kernel.answers = {2: [UNKNOWN], 1: [CAN]}
    with pytest.raises(SensorGone, match="claims"):
        await bound(machine, kernel).probe()


async def test_not_activated_inside_is_no_reading_either(machine: Any, kernel: Kernel) -> None:
    kernel.answers = {2: [INACTIVE]}
    with pytest.raises(SensorGone, match="not activated"):
        await bound(machine, kernel).read()
    assert [command for _, command, _ in kernel.asked] == [2]


async def test_a_busy_bmc_is_left_alone_for_a_while(machine: Any, kernel: Kernel) -> None:
    kernel.answers = {2: [b"\xc0"]}
    sensor = bound(machine, kernel)
    for _ in range(3):
        with pytest.raises(SensorBusy) as caught:
            await sensor.read()
    assert caught.value.wait_s > 0
    assert len(kernel.asked) == 1
    kernel.answers = {2: [ANSWER]}
    machine.pass_s(caught.value.wait_s)
    assert await sensor.read()


async def test_a_cancelled_read_frees_the_device_at_once(machine: Any, kernel: Kernel) -> None:
    kernel.answers = {}
    sensor = bound(machine, kernel)
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(sensor.read())
    async with asyncio.timeout(5):
        while not kernel.asked:
            await asyncio.to_thread(os.sched_yield)
    begun_s = loop.time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.time() - begun_s < 0.5
    kernel.answers = {2: [ANSWER]}
    assert await sensor.read()


async def test_silence_inside_is_gone_after_the_timeout(machine: Any, kernel: Kernel) -> None:
    kernel.answers = {}
    sensor = bound(machine, kernel, timeout_s=0.05)
    with pytest.raises(SensorGone, match=r"0\.05 s") as caught:
        await sensor.read()
    assert caught.value.fix


async def test_a_slow_bmc_is_left_out_every_second_time(machine: Any, kernel: Kernel) -> None:
    sensor = bound(machine, kernel)
    steps = iter((0, 4 * 10**9, 30 * 10**9, 60 * 10**9, 60 * 10**9))
    machine.boot_ns = lambda: next(steps, 60 * 10**9)
    # Asked for the time: before, in the stamp, after; the second counts as the end.
    first = await sensor.read()
    assert len(kernel.asked) == 1
    machine.boot_ns = lambda: 30 * 10**9
    assert await sensor.read() == first
    assert len(kernel.asked) == 1
    machine.boot_ns = lambda: 60 * 10**9
    await sensor.read()
    assert len(kernel.asked) == 2


# The driver and ipmitool's text; what ipmitool itself does is in the integration suite.


async def test_the_own_bmc_can_be_read_by_ipmitool(machine: Any, tmp_path: Path) -> None:
    said = tmp_path / "said"
    command = script(tmp_path, f'echo "$@" > {said}; cat <<END{printed().decode()}END')
    async with ipmi.open(
        config(via="ipmitool", ipmitool=command), machine.roots(), machine
    ) as sensor:
        (reading,) = await sensor.read()
    assert reading.value == 234.0
    assert said.read_text() == "-I open dcmi power reading\n"


async def test_an_absent_ipmitool_is_told_with_a_cure(machine: Any) -> None:
    more = {"via": "ipmitool", "ipmitool": "/nowhere/ipmitool"}
    async with ipmi.open(config(**more), machine.roots(), machine) as sensor:
        with pytest.raises(SensorGone) as caught:
            await sensor.read()
    assert "apt install ipmitool" in caught.value.fix


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        ("DCMI request failed because: Invalid command (c1)", SensorGone, "0xC1"),
        ("DCMI request failed because: Node busy (c0)", SensorBusy, "0xC0"),
        ("> RAKP 2 HMAC is invalid\nError: Unable to establish", SensorGone, "let us in"),
        ("RAKP 2 message indicates an error : unauthorized name", SensorGone, "let us in"),
        ("Authentication algorithm 0x01 is not what we requested 0x03", SensorGone, "cipher"),
        ("Could not open device at /dev/ipmi0", SensorGone, "Could not open"),
        ("", SensorGone, "ended with 1"),
    ],
)
async def test_what_ipmitool_complains_of_is_told(
    machine: Any, tmp_path: Path, said: str, kind: type[Exception], reason: str
) -> None:
    command = script(tmp_path, f"cat >&2 <<'END'\n{said}\nEND\nexit 1")
    more = {"via": "ipmitool", "ipmitool": command}
    async with ipmi.open(config(**more), machine.roots(), machine) as sensor:
        with pytest.raises(kind, match=reason):
            await sensor.read()


async def test_a_text_of_something_else_is_refused(machine: Any, tmp_path: Path) -> None:
    more = {"via": "ipmitool", "ipmitool": script(tmp_path, "echo login:")}
    async with ipmi.open(config(**more), machine.roots(), machine) as sensor:
        with pytest.raises(SensorGone, match="no power reading"):
            await sensor.read()


async def test_supplies_are_read_beside_the_server_which_counts_once(
    machine: Any, kernel: Kernel, tmp_path: Path
) -> None:
    command = script(tmp_path, f"cat <<'END'\n{LIST}END")
    readings = await bound(machine, kernel, sdr=True, ipmitool=command).read()
    assert [(r.channel, r.node, r.value) for r in readings] == [
        ("ipmi/dcmi", Node.CHASSIS, 167.0),
        ("ipmi/sdr/03h@10.1", Node.PSU_IN, 95.0),
        ("ipmi/sdr/04h@10.2", Node.PSU_IN, 0.0),
    ]


@pytest.mark.parametrize("answer", [INACTIVE, UNKNOWN])
async def test_the_list_s_own_total_stands_in_where_dcmi_has_none(
    machine: Any, kernel: Kernel, tmp_path: Path, answer: bytes
) -> None:
    kernel.answers = {2: [answer], 1: [CANNOT]}
    command = script(tmp_path, f"cat <<'END'\n{LIST}END")
    readings = await bound(machine, kernel, sdr=True, ipmitool=command, timeout_s=1.0).read()
    assert ("ipmi/sdr/77h@7.1", 112.0) in [(r.channel, r.value) for r in readings]


# Settings.


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"url": "https://192.0.2.9"}, "url"),
        ({"url": "ipmi://"}, "url"),
        ({"url": "ipmi://192.0.2.9:99999"}, "url"),
        ({"url": "ipmi://192.0.2.9/path"}, "url"),
        ({"url": "ipmi://192.0.2.9?x=1"}, "url"),
        ({"url": "ipmi://me:secret@192.0.2.9"}, "url"),
        ({"url": "ipmi://192.0.2.9", "user": "", "password_file": "/p"}, "user"),
        ({"url": "ipmi://192.0.2.9", "password_file": ""}, "password_file"),
        ({"url": "ipmi://192.0.2.9", "via": "device"}, "via"),
        ({"via": "device", "sdr": True, "user": "", "password_file": ""}, "sdr"),
        ({"password_file": ""}, "user"),
        ({"cipher": 3, "user": "", "password_file": ""}, "cipher"),
    ],
)
async def test_what_does_not_fit_together_is_told(
    machine: Any, more: dict[str, Any], key: str
) -> None:
    told = config(**({"user": "me", "password_file": "/p"} | more))
    with pytest.raises(ConfigError) as caught:
        async with ipmi.open(told, machine.roots(), machine):
            pass
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [key]
    assert "secret" not in str(caught.value)


def test_a_bmc_is_not_asked_more_often_than_every_ten_seconds() -> None:
    with pytest.raises(msgspec.ValidationError):
        config(period_s=9.0)
    assert config().period_s == ipmi.PERIOD_S == 30.0


def test_the_command_line_names_a_file_and_no_password() -> None:
    told = config(
        url="ipmi://[2001:db8::9]:6230", user="me", password_file="/p", cipher=3
    )  # fmt: skip
    assert tool.arguments(told) == (
        "-v", "-I", "lanplus", "-H", "2001:db8::9", "-p", "6230",
        "-U", "me", "-f", "/p", "-L", "USER", "-C", "3",
    )  # fmt: skip


# Recordings.


async def test_a_recording_plays_without_a_device(
    machine: Any, kernel: Kernel, cassette: Any
) -> None:
    sensor = bound(machine, kernel)
    assert await sensor.probe()
    first = await sensor.read()
    kernel.path.unlink()
    cassette.play()
    again = ipmi.Ipmi(config(), machine.roots(), machine)
    assert await again.probe() == ["ipmi/dcmi"]
    assert await again.read() == first


async def test_what_is_kept_is_the_bmc_s_answer(
    machine: Any, kernel: Kernel, cassette: Any
) -> None:
    await bound(machine, kernel).read()
    assert cassette.kept["dcmi power reading"] == [ANSWER]


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
