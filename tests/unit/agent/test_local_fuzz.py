"""Whatever stands in the files of /sys and /proc: a reading that is a number, or a reason."""

import asyncio
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatpool.errors import SensorError
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import host, hwmon, nvml, rapl

FILES = {
    rapl: (
        "sys/class/powercap/intel-rapl:0/name",
        "sys/class/powercap/intel-rapl:0/energy_uj",
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
        "sys/class/powercap/intel-rapl:0/constraint_0_max_power_uw",
        "sys/class/powercap/intel-rapl:0:0/energy_uj",
        "sys/bus/event_source/devices/power/type",
        "sys/bus/event_source/devices/power/cpumask",
        "sys/bus/event_source/devices/power/events/energy-pkg",
        "sys/bus/event_source/devices/power/events/energy-pkg.scale",
    ),
    hwmon: (
        "sys/class/hwmon/hwmon0/name",
        "sys/class/hwmon/hwmon0/energy1_input",
        "sys/class/hwmon/hwmon0/energy1_enable",
        "sys/class/hwmon/hwmon1/power1_average",
        "sys/class/hwmon/hwmon1/power1_label",
        "sys/class/hwmon/hwmon2/in1_input",
        "sys/class/hwmon/hwmon2/curr1_input",
        "sys/class/hwmon/hwmon2/curr1_label",
    ),
    host: (
        "proc/stat",
        "proc/cpuinfo",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
        "sys/class/hwmon/hwmon0/name",
        "sys/class/hwmon/hwmon0/temp1_input",
    ),
    nvml: (
        "sys/bus/pci/devices/0000:3b:00.0/vendor",
        "sys/bus/pci/devices/0000:3b:00.0/class",
        "sys/bus/pci/devices/0000:3b:00.0/power/runtime_status",
    ),
}
WORDS = ("", "0", "1", "-1", "9" * 19, "9" * 400, "12x", "package-0", "coretemp", "0-7",
         "1e-999999",
         "2.3283064365386962890625e-10", "event=0x02", "cpu  1 2 3 4 5 6 7 8", "cpu  a b c d e f g",
         "0x10de", "0x030000", "suspended", "amdgpu", "vin", "iin", "1_000")  # fmt: skip
contents = st.sampled_from(WORDS).map(str.encode) | st.binary(max_size=40)


class Clock:
    def event_ns(self) -> int:
        return 1

    def boot_ns(self) -> int:
        return 1


async def sense(module: Any, roots: Roots) -> list[Reading]:
    kind = module.__name__.rpartition(".")[2]
    async with module.open(module.Config(id="s", kind=kind), roots, Clock()) as sensor:
        await sensor.probe()
        return [*await sensor.read(), *await sensor.read()]


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_content_is_a_number_or_a_reason(module: Any, data: st.DataObject) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name in FILES[module]:
            content = data.draw(st.none() | contents, label=name)
            if content is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        roots = Roots(sys=folder / "sys", proc=folder / "proc", nvml=str(folder / "none.so"))
        try:
            readings = asyncio.run(sense(module, roots))
        except SensorError as error:
            assert str(error)
            return
        assert all(math.isfinite(reading.value) for reading in readings)
        assert all(reading.raw is None or reading.raw >= 0 for reading in readings)
