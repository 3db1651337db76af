"""Load of a host from /proc, and which figures may only come from the machine itself."""

from pathlib import Path
from typing import Any

import pytest

from heatpool.errors import SensorGone
from heatpool_agent.core.levels import host_load
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import host

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\n" \
    "model name\t: Some CPU @ 2 GHz\n"  # fmt: skip


def stat(machine: Any, *jiffies: int) -> None:
    line = " ".join(map(str, jiffies))
    machine.write("proc", {"stat": f"cpu  {line} 0 0\ncpu0 1 2 3", "cpuinfo": CPUINFO})


async def passes(machine: Any, first: tuple[int, ...], second: tuple[int, ...]) -> list[Reading]:
    stat(machine, *first)
    config = host.Config(id="host", kind="host")
    async with host.open(config, machine.roots(), machine) as sensor:
        assert await sensor.probe() == ("host/cpu",)
        assert [r.quantity for r in await sensor.read()] == ["logical_cpu_count"]
        stat(machine, *second)
        return list(await sensor.read())


@pytest.mark.parametrize(
    ("second", "busy_frac"),
    [
        ((25, 0, 0, 75, 0, 0, 0, 0), 0.25),
        # Waiting for a disk is idle; steal and interrupts are not.
        ((0, 0, 0, 50, 25, 0, 0, 25), 0.25),
        ((10, 20, 30, 0, 0, 20, 10, 10), 1.0),
        ((0, 0, 0, 100, 0, 0, 0, 0), 0.0),
    ],
)
async def test_load_is_the_share_of_time_not_idle(
    machine: Any, second: tuple[int, ...], busy_frac: float
) -> None:
    readings = await passes(machine, (0,) * 8, second)
    [load] = [r for r in readings if r.quantity == "busy_frac"]
    assert load.value == pytest.approx(busy_frac)
    assert (load.node, load.channel, load.kind) == (Node.HOST, "host/cpu", ReadingKind.GAUGE)
    assert load.label == "Some CPU @ 2 GHz"


@pytest.mark.parametrize("second", [(9,) * 8, (10, 9, 9, 5, 9, 9, 9, 9)])
async def test_no_time_passed_or_time_stepping_back_gives_no_load(
    machine: Any, second: tuple[int, ...]
) -> None:
    readings = await passes(machine, (9,) * 8, second)
    assert [r.quantity for r in readings] == ["logical_cpu_count"]


async def test_logical_cpus_are_counted_and_feed_the_host_model(machine: Any) -> None:
    load = host_load(await passes(machine, (0,) * 8, (25, 0, 0, 75, 0, 0, 0, 0)))
    assert load is not None
    assert load.logical_cpu_count == 2
    assert load.busy_frac == pytest.approx(0.25)


async def test_figures_of_this_machine_never_mix_into_a_dump(machine: Any) -> None:
    readings = await passes(machine, (0,) * 8, (1,) * 8)
    assert {r.quantity for r in readings} == {"busy_frac", "logical_cpu_count"}


async def test_without_proc_the_reason_and_cure_are_told(machine: Any) -> None:
    with pytest.raises(SensorGone, match="stat"):
        await machine.sense(host, "host")


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat on this machine")
async def test_on_this_machine_load_and_own_cpu_seconds_are_real(machine: Any) -> None:
    config = host.Config(id="host", kind="host")
    async with host.open(config, Roots(), machine) as sensor:
        first = {r.quantity: r for r in await sensor.read()}
        sum(range(2_000_000))
        second = {r.quantity: r for r in await sensor.read()}
    assert first["cpu_s"].value < second["cpu_s"].value
    assert second["cpu_s"].raw == round(second["cpu_s"].value * 1e6)
    assert second["logical_cpu_count"].value >= 1
    assert 0.0 <= second.get("busy_frac", second["logical_cpu_count"]).value
