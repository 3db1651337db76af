"""A folder of Redfish documents as a service: trees, files side by side, and broken ones."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from heatpool.errors import ConfigError, SensorGone
from heatpool.process import settings
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import redfish
from heatpool_agent.sensors.redfish import RedfishSensor
from heatpool_agent.sensors.redfish.files import FileTree

ROOT = "/redfish/v1"
SHELF = "lambda_gb300/powershelf_delta"


class _Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return 7


def chassis(name: str, power_w: float) -> dict[str, dict[str, Any]]:
    path = f"{ROOT}/Chassis/{name}"
    metrics = {"@odata.id": f"{path}/EnvironmentMetrics"}
    kind = "#EnvironmentMetrics.v1_0_0.EnvironmentMetrics"
    return {
        path: {
            "@odata.id": path,
            "@odata.type": "#Chassis.v1_0_0.Chassis",
            "Id": name,
            "EnvironmentMetrics": metrics,
        },
        metrics["@odata.id"]: {**metrics, "@odata.type": kind, "PowerWatts": {"Reading": power_w}},
    }


def service(*names: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        ROOT: {"@odata.id": ROOT, "Chassis": {"@odata.id": f"{ROOT}/Chassis"}},
        f"{ROOT}/Chassis": {"Members": [{"@odata.id": f"{ROOT}/Chassis/{n}"} for n in names]},
    }
    for name in names:
        found |= chassis(name, 374.0)
    return found


def write_tree(folder: Path, resources: dict[str, dict[str, Any]]) -> None:
    for path, resource in resources.items():
        place = folder / path.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "index.json").write_text(json.dumps(resource))


async def read(folder: Path) -> tuple[list[Reading], dict[str, str]]:
    config = settings.convert({"id": "f", "kind": "redfish", "url": f"file:{folder}"}, _kind())
    async with redfish.open(config, Roots(), _Clock()) as sensor:
        assert isinstance(sensor, RedfishSensor)
        return list(await sensor.read()), dict(sensor.refused)


def _kind() -> type[redfish.Config]:
    return redfish.Config


def powers(readings: list[Reading]) -> list[float]:
    return [reading.value for reading in readings if reading.quantity == "power_w"]


@pytest.mark.parametrize("top", ["", "redfish/v1"])
async def test_a_tree_is_walked_from_its_root(tmp_path: Path, top: str) -> None:
    write_tree(tmp_path, service("1") | chassis("unlinked", 1.0))
    readings, refused = await read(tmp_path / top)
    assert powers(readings) == [374.0]
    assert refused == {}


async def test_files_side_by_side_say_themselves_where_they_belong(tmp_path: Path) -> None:
    for number, resource in enumerate(chassis("1", 374.0).values()):
        (tmp_path / f"caught_{number}.json").write_text(json.dumps(resource))
    readings, _ = await read(tmp_path)
    assert powers(readings) == [374.0]
    assert readings[0].channel.startswith(f"{ROOT}/Chassis/1/EnvironmentMetrics")


async def test_of_two_files_for_one_path_the_first_counts(tmp_path: Path) -> None:
    for name, power_w in (("a", 374.0), ("b", 900.0)):
        for number, resource in enumerate(chassis("1", power_w).values()):
            (tmp_path / f"{name}{number}.json").write_text(json.dumps(resource))
    readings, _ = await read(tmp_path)
    assert powers(readings) == [374.0]


@pytest.mark.parametrize("told", ["", "#x", "//[", f"{ROOT}/Chassis/1/Power#/PowerControl/0"])
async def test_a_file_is_read_whatever_it_is_called(tmp_path: Path, told: str) -> None:
    power = {"@odata.id": told, "PowerControl": [{"PowerConsumedWatts": 429}]}
    (tmp_path / "my capture #1 ü?.json").write_text(json.dumps(power))
    readings, refused = await read(tmp_path)
    assert powers(readings) == [429]
    assert refused == {}


async def test_a_broken_file_is_missed_alone(tmp_path: Path) -> None:
    write_tree(tmp_path, service("1", "2"))
    path = f"{ROOT}/Chassis/2/EnvironmentMetrics"
    (tmp_path / path.lstrip("/") / "index.json").write_text('{"PowerWatts": {"Rea')
    readings, refused = await read(tmp_path)
    assert powers(readings) == [374.0]
    assert list(refused) == [path]


async def test_a_folder_of_broken_files_is_gone_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("<html>")
    with pytest.raises(SensorGone, match="HTML"):
        await read(tmp_path)


async def test_files_are_read_anew_at_each_pass(tmp_path: Path) -> None:
    write_tree(tmp_path, service("1"))
    config = settings.convert({"id": "f", "kind": "redfish", "url": f"file:{tmp_path}"}, _kind())
    async with redfish.open(config, Roots(), _Clock()) as sensor:
        await sensor.read()
        write_tree(tmp_path, chassis("1", 500.0))
        assert powers(list(await sensor.read())) == [500.0]


async def test_no_folder_is_gone_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(SensorGone) as caught:
        await read(tmp_path / "nowhere")
    assert caught.value.fix


async def test_a_file_outside_the_folder_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "in").mkdir()
    tree = FileTree(f"file:{tmp_path}/in", Roots().tape)
    await tree.starts()
    for path in ("/../secret.json", "/secret.json", f"{tmp_path}/secret.json"):
        assert (await tree.get(path)).status == 404


async def test_a_whole_disk_is_no_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heatpool_agent.sensors.redfish.files.MAX_FILES", 3)
    write_tree(tmp_path, service("1"))
    with pytest.raises(SensorGone, match="more than 3"):
        await read(tmp_path)


async def test_a_folder_has_no_login() -> None:
    block = {"id": "f", "kind": "redfish", "url": "file:", "user": "u", "fingerprint": "x"}
    with pytest.raises(ConfigError) as caught:
        async with redfish.open(settings.convert(block, _kind()), Roots(), _Clock()):
            pass
    assert len(caught.value.mistakes) == 3


@pytest.mark.realdata
async def test_of_all_captures_seven_are_no_json_and_some_are_error_messages(
    realdata: Path,
) -> None:
    readings, refused = await read(realdata / "02_redfish")
    assert readings
    broken = {path for path, reason in refused.items() if "an error instead" not in reason}
    assert len(broken) == 7
    assert all("invalid" in path for path in broken)


@pytest.mark.realdata
@pytest.mark.parametrize(
    "folder",
    [
        "dmtf/public-rackmount1",
        "dmtf_publications/DSP2046-examples",
        "dmtf_publications/public-cooling-unit",
        "hpe_cray_ex235a_liquidcooled",
        "lambda_gb300",
        SHELF,
        "ocp_cdu_examples",
        "telegraf_dell_hp/dell",
        "telegraf_dell_hp/hp",
    ],
)
async def test_every_capture_gives_readings(realdata: Path, folder: str) -> None:
    readings, _ = await read(realdata / "02_redfish" / folder)
    assert readings
    assert len({(r.channel, r.quantity) for r in readings}) == len(readings)


async def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    write_tree(tmp_path, service("1"))
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    async with asyncio.timeout(60):
        readings, refused = await read(tmp_path)
    assert (powers(readings), refused) == ([374.0], {})
