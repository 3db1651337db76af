"""Files of the kernel through the tape: kept with their errors, played back without a file."""

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from heatpool.errors import SensorBusy, SensorGone
from heatpool_agent.ports import LIVE
from heatpool_agent.sensors import host, hwmon, nvml, rapl
from heatpool_agent.sensors.kernel_file import KernelFile, KernelTree, OneAtATime, whole_number


def furnish(machine: Any) -> None:
    """A machine with something for each local sensor."""
    machine.zone("intel-rapl:0", "package-0", 5_000_000, constraint_0_max_power_uw=95_000_000)
    machine.zone("intel-rapl:0:0", "core", 1_000_000)
    machine.write("sys/class/hwmon/hwmon0", {"name": "x", "power1_input": 3_000_000})
    card = "sys/bus/pci/devices/0000:3b:00.0"
    machine.write(card, {"vendor": "0x10de", "class": "0x030200"})
    machine.write(f"{card}/power", {"runtime_status": "suspended"})
    machine.write("proc", {"stat": "cpu  1 2 3 4 5 6 7 8", "cpuinfo": "processor\t: 0"})


@pytest.mark.parametrize("module", [rapl, hwmon, nvml, host], ids=lambda module: module.__name__)
async def test_a_tape_plays_every_local_sensor_on_a_machine_without_it(
    machine: Any, cassette: Any, module: Any, tmp_path: Path
) -> None:
    furnish(machine)
    kind = module.__name__.rpartition(".")[2]
    recorded = await machine.sense(module, kind)
    assert recorded
    cassette.play()
    machine.folder = tmp_path / "elsewhere"
    assert await machine.sense(module, kind) == recorded


async def test_refusals_are_played_as_they_were(
    machine: Any, cassette: Any, without_rights: Any
) -> None:
    (machine.zone("intel-rapl:0", "package-0", 1) / "energy_uj").chmod(0)
    with without_rights(), pytest.raises(SensorGone) as first:
        await machine.sense(rapl, "rapl")
    cassette.play()
    with pytest.raises(SensorGone) as second:
        await machine.sense(rapl, "rapl")
    assert str(first.value) == str(second.value)


@pytest.mark.parametrize("module", [rapl, hwmon, nvml], ids=lambda module: module.__name__)
async def test_a_tree_that_may_not_be_entered_is_a_refusal_with_a_cure(
    machine: Any, without_rights: Any, module: Any
) -> None:
    furnish(machine)
    kind = module.__name__.rpartition(".")[2]
    # Also loads, with rights, what Python itself imports only now.
    assert await machine.sense(module, kind)
    shut = machine.folder / "sys"
    shut.chmod(0)
    try:
        with without_rights(), pytest.raises(SensorGone) as refused:
            await machine.sense(module, kind)
    finally:
        shut.chmod(0o755)
    assert refused.value.fix


async def test_requests_name_places_below_their_roots(machine: Any, cassette: Any) -> None:
    furnish(machine)
    await machine.sense(rapl, "rapl")
    assert "read sys/class/powercap/intel-rapl:0/energy_uj" in cassette.kept
    assert "text proc/sys/kernel/random/boot_id" in cassette.kept
    assert not [request for request in cassette.kept if str(machine.folder) in request]


def test_a_file_longer_than_a_page_is_read_whole(machine: Any) -> None:
    lines = "processor\t: 0\n" * 20_000
    machine.write("proc", {"cpuinfo": lines})
    tree = KernelTree(machine.roots())
    assert tree.text(tree.proc / "cpuinfo") == lines.strip()


def test_what_is_not_there_is_no_text(machine: Any) -> None:
    tree = KernelTree(machine.roots())
    assert tree.text(tree.sys / "nothing") is None
    assert tree.number(tree.sys / "nothing") is None
    assert tree.device(tree.sys / "nothing") == ""
    with pytest.raises(FileNotFoundError):
        tree.names(tree.sys / "nothing")


def test_a_link_is_named_by_where_it_leads(machine: Any) -> None:
    device = machine.write("sys/devices/pci0000:00/0000:03:00.0", {"vendor": "0x1002"})
    link = machine.write("sys/class/hwmon/hwmon0", {}) / "device"
    link.symlink_to(os.path.relpath(device, link.parent))
    assert KernelTree(machine.roots()).device(link) == "devices/pci0000:00/0000:03:00.0"


class Removed:
    """A tape on which a device went away between two reads."""

    is_playing = False
    exchange = LIVE.exchange

    def look(self, request: str, see: Any, *, hide: Any = None) -> bytes:
        if request.startswith("read"):
            raise OSError(errno.ENODEV, "No such device")
        return bytes(see())


@pytest.mark.parametrize("module", [rapl, hwmon], ids=["rapl", "hwmon"])
async def test_a_device_that_was_removed_is_gone(machine: Any, module: Any) -> None:
    furnish(machine)
    machine.tape = Removed()
    with pytest.raises(SensorGone, match="removed"):
        await machine.sense(module, module.__name__.rpartition(".")[2])


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("-7", -7), ("", None), (None, None), ("7x", None), ("0x10de", None), ("1.5", None)],
)
def test_a_number_is_a_whole_one_or_none(text: str | None, number: int | None) -> None:
    assert whole_number(text) == number


def test_closing_twice_is_closing(machine: Any) -> None:
    path = machine.write("sys", {"a": 5}) / "a"
    file = KernelFile(path)
    assert file.count() == 5
    file.close()
    file.close()


async def test_a_chip_that_hangs_takes_one_thread_and_no_more(machine: Any) -> None:
    chip = machine.write("sys/class/hwmon/hwmon0", {"name": "x"})
    # Opening it blocks until somebody writes: as a driver does whose bus is stuck.
    os.mkfifo(chip / "power1_input")
    threads = threading.active_count()
    async with hwmon.open(hwmon.Config(id="h", kind="hwmon"), machine.roots(), machine) as sensor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sensor.probe()
        for _ in range(2):
            with pytest.raises(SensorBusy, match="has not answered the last call yet"):
                await sensor.read()
        assert threading.active_count() <= threads + 1
    # And the agent can end: what was opened is closed when the call comes back.
    os.close(os.open(chip / "power1_input", os.O_WRONLY))


async def test_a_call_that_comes_back_late_does_the_last_work() -> None:
    calls, stuck, ended = OneAtATime("x"), threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await calls.run(stuck.wait)
    await calls.end(ended.set)
    assert not ended.is_set()
    stuck.set()
    assert await asyncio.to_thread(ended.wait, 60.0)
