"""Every real file of the sensors' folders, 01_* to 04_*: read by its reader, or refused with a why.

A file that no row of `READERS` names (realdata_readers.py) fails the sweep, so that nothing is
passed over in silence. What the figures of single captures mean is tested beside each driver.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.agent.realdata_readers import loads, outcome, sound

from heatpool.errors import SensorBusy, SensorGone
from heatpool.process import settings
from heatpool_agent.core.mbus_telegram import decode
from heatpool_agent.core.mirrors import Mirrors, mirrored, observe
from heatpool_agent.core.reading import ReadingKind
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import host, hwmon, rapl
from heatpool_agent.sensors import redfish as redfish_driver
from heatpool_agent.sensors.redfish import RedfishSensor

pytestmark = pytest.mark.realdata

FOLDERS = ("01_cpu", "01_gpu", "01_ipmi", "01_sysfs", "02_redfish", "03_mbus", "04_modbus")
THREADRIPPER = "01_cpu/codecarbon_load_profiling/AMD_Threadripper"


EXPECTED: dict[str, dict[str, int]] = {
    "01_cpu": {"steps of load": 6},
    "01_gpu": {
        "card with power": 5,
        "card without power": 2,
        "figures for the library": 12,
        "names of another exporter's fields, no figures": 3,
    },
    "01_ipmi": {"167 W": 1, "1 sensors with watts": 2},
    "01_sysfs": {
        "number": 85,
        "text": 60,
        "archive of 2496 places": 1,
        "what another exporter says of sys.ttar": 1,
        "names of devices, which no driver reads": 1,
        "holds a folder open": 1,
    },
    "02_redfish": {
        "resource": 776,
        "error message": 17,
        "broken": 7,
        "no answer of a service: refused": 6,
    },
    "03_mbus": {
        "telegram": 30,
        "refused": 14,
        "what another decoder said: no telegram": 61,
    },
    "04_modbus": {
        "map of 13 points in 1 requests": 1,
        "configuration read": 5,
        "configuration refused": 4,
        "what another program said to its configuration": 9,
        "12 rows: map of 12 points in 5 requests": 1,
        "20 rows: map of 20 points in 5 requests": 1,
        "21 rows: map of 21 points in 5 requests": 1,
        "template of another program: no TOML": 10,
    },
}
# Folders in which no document carries a figure.
SILENT = {
    "lambda_gb300/gb300_happypath",
    # A tree whose root is not here: it is read from above.
    "ocp_cdu_examples/redfish/v1/ThermalEquipment/CDUs/1",
    # Which properties must be there, not what they say.
    "ocp_cdu_profile",
    "telegraf_dell_hp/hp/storage_subsys",
    "telegraf_dell_hp/hp/thermal_subsys",
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_read_or_refused_with_its_reason(realdata: Path, folder: str) -> None:
    files = [path for path in sorted((realdata / folder).rglob("*")) if path.is_file()]
    told = Counter(outcome(path.relative_to(realdata).as_posix(), path) for path in files)
    assert dict(told) == EXPECTED[folder]


def test_the_sweep_names_every_folder_of_sensors(realdata: Path) -> None:
    there = sorted(path.name for path in realdata.glob("0[1-4]*"))
    assert there == sorted(FOLDERS) == sorted(EXPECTED)


# Whole folders, through the drivers.


class Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return 7


@pytest.mark.parametrize("load", ["all_cores", "some_cores"])
def test_two_dies_that_show_one_package_are_seen_as_mirrors(realdata: Path, load: str) -> None:
    (path,) = (realdata / THREADRIPPER).glob(f"{load}-*.csv")
    state, absurd = Mirrors(), 0
    for one in loads(path):
        for _ in range(round(one.span_s)):
            state = observe(state, {"powercap/intel-rapl:0": one.die_w,
                                    "powercap/intel-rapl:1": one.die_w})  # fmt: skip
        assert one.die_w < one.wall_w
        absurd += 2 * one.die_w > one.wall_w
    # Added, they would draw more than the whole machine does at its plug.
    assert absurd >= 5
    assert mirrored(state) == {("powercap/intel-rapl:0", "powercap/intel-rapl:1")}


async def test_a_whole_tree_counts_as_another_exporter_does(
    machine: Any, realdata: Path, unpack_ttar: Any
) -> None:
    folder = realdata / "01_sysfs/node_exporter"
    unpack_ttar(folder / "sys.ttar", machine.folder, under="sys")
    readings = [*await machine.sense(rapl, "rapl"), *await machine.sense(hwmon, "hwmon")]
    told = (folder / "e2e-output.txt").read_text(encoding="utf-8")
    theirs = re.findall(r"^node_rapl_\w+_joules_total{.*} (\S+)$", told, re.M)
    theirs_j = [float(joules) for joules in theirs]
    ours_j = [r.value for r in sound(readings) if r.kind is ReadingKind.COUNTER]
    assert sorted(ours_j) == pytest.approx(sorted(theirs_j), abs=1e-9)
    with pytest.raises(SensorGone, match="stat"):
        await machine.sense(host, "host")


def captures(folder: Path) -> Iterator[Path]:
    """Each folder of answers, down to those that hold the root of one service."""
    for inner in sorted(path for path in folder.iterdir() if any(path.rglob("*.json"))):
        yield inner
        if not any((inner / root).is_file() for root in ("index.json", "redfish/v1/index.json")):
            yield from captures(inner)


async def test_every_folder_of_answers_is_read_as_a_service(realdata: Path) -> None:
    place = realdata / "02_redfish"
    counts = {}
    for folder in await asyncio.to_thread(lambda: list(captures(place))):
        block = {"id": "f", "kind": "redfish", "url": f"file:{folder}"}
        config = settings.convert(block, redfish_driver.Config)
        async with redfish_driver.open(config, Roots(), Clock()) as sensor:
            assert isinstance(sensor, RedfishSensor)
            try:
                counts[folder.relative_to(place).as_posix()] = len(sound(await sensor.read()))
            except SensorGone as error:
                assert error.reason and error.fix
                counts[folder.relative_to(place).as_posix()] = 0
            assert all(sensor.refused.values())
    assert {name for name, count in counts.items() if not count} == SILENT
    assert len(counts) == 22


@pytest.mark.parametrize(
    ("name", "wait_s"), [("application_busy", 0.0), ("too_many_readouts", 86_400.0)]
)
def test_a_meter_that_asks_for_patience_is_left_alone(
    realdata: Path, name: str, wait_s: float
) -> None:
    path = realdata / "03_mbus/libmbus/error-frames" / f"{name}.hex"
    with pytest.raises(SensorBusy) as caught:
        decode(bytes.fromhex(path.read_text()))
    assert caught.value.wait_s == wait_s
