"""The driver `ipmi`: inside by the kernel's device, ipmitool's words, settings, recordings."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from turns import cancelled
from unit.agent.ipmi_rig import (
    ANSWER,
    CAN,
    CANNOT,
    INACTIVE,
    LIST,
    UNKNOWN,
    Kernel,
    printed,
    script,
)

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.core.reading import Node
from heatpool_agent.sensors import ipmi
from heatpool_agent.sensors.ipmi import tool


def config(**more: Any) -> ipmi.Config:
    return msgspec.convert({"id": "bmc", "kind": "ipmi", **more}, ipmi.Config)


@pytest.fixture
def kernel(machine: Any) -> Kernel:
    kernel = Kernel(machine.folder / "dev")
    kernel.answers = {2: [ANSWER], 1: [CAN]}
    return kernel


def bound(machine: Any, kernel: Kernel, **more: Any) -> ipmi.Ipmi:
    return ipmi.Ipmi(config(**more), machine.roots(), machine, ioctl=kernel.ioctl)


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


async def test_a_device_that_the_unit_hides_is_not_called_a_missing_driver(machine: Any) -> None:
    machine.write("sys/firmware/dmi/entries/38-0", {"type": 38})
    machine.write("sys/class/ipmi/ipmi0", {"dev": "240:0"})
    async with ipmi.open(config(), machine.roots(), machine) as sensor:
        with pytest.raises(SensorGone, match="hidden from this process") as caught:
            await sensor.probe()
    assert "modprobe" not in caught.value.fix
    assert "ipmi.conf" in caught.value.fix


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
    task = asyncio.create_task(sensor.read())
    async with asyncio.timeout(60):
        while not kernel.asked:
            await asyncio.to_thread(os.sched_yield)
    await cancelled(task)
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
    readings = await bound(machine, kernel, sdr=True, ipmitool=command).read()
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
    assert tool.arguments(told, ("dcmi", "power", "reading")) == (
        "-v", "-I", "lanplus", "-H", "2001:db8::9", "-p", "6230",
        "-U", "me", "-f", "/p", "-L", "USER", "-C", "3",
    )  # fmt: skip
    assert "-v" not in tool.arguments(told, ("sdr", "elist", "full"))


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
