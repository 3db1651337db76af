"""A site is recorded and played again: same figures each time, no secret, a kill survived."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from ports.benches import modbus as modbus_bench
from ports.benches import redfish as redfish_bench
from ports.machine_bench import GPU

from heatpool.errors import ConfigError
from heatpool_agent.__main__ import cli
from heatpool_agent.commands.once import look
from heatpool_agent.commands.record import record
from heatpool_agent.commands.replay import replay
from heatpool_agent.config import Config
from heatpool_agent.tapes.play import load
from heatpool_sim.devices.sysfs_tree import MachineModel, SysfsTree, amd_card

SECRET, METER, HOST = "tr0ub4dor&3", "KAM-67731942", "198.51.100.77"


@asynccontextmanager
async def _site(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Settings of a machine with a coolant unit and a BMC, all simulated."""
    tree = SysfsTree(folder, MachineModel(gpu_addresses=(GPU,), chips=(amd_card(),)))
    stepping = asyncio.create_task(_step(tree), name="machine")
    (folder / "unit").mkdir()
    (folder / "bmc").mkdir()
    async with (
        modbus_bench.opened(folder / "unit") as unit,
        redfish_bench.opened(folder / "bmc") as bmc,
    ):
        yield {
            "sampling": {"period_s": 0.25, "report_period_s": 0.5, "message_period_s": 5.0},
            "loop": [{"id": "rack", "rejection_capacity_w": 120_000}],
            "roots": {"sys": str(tree.sys), "proc": str(tree.proc)},
            "sensor": [
                {"id": "cpu", "kind": "rapl"},
                {"id": "chips", "kind": "hwmon"},
                {"id": "load", "kind": "host"},
                {"id": "cdu", "loop": "rack", **unit.settings},
                {"id": "bmc", "loop": "rack", **bmc.settings},
            ],
        }
    stepping.cancel()


async def _step(tree: SysfsTree) -> None:
    while True:
        tree.step(130.0, 0.1, gpu_w=118.0)
        await asyncio.sleep(0.1)


def _config(tree: Mapping[str, Any]) -> Config:
    return msgspec.convert(tree, Config)


async def _program(*words: str, seed: str = "0") -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr of the agent's program."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "heatpool_agent",
        *words,
        env={**os.environ, "PYTHONHASHSEED": seed},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out, err.decode()


async def test_a_recorded_site_plays_twice_the_same_to_the_last_bit(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    async with _site(tmp_path) as tree:
        manifest = await record(_config(tree), folder, span_s=4.0)
    assert manifest.ended_ns is not None
    assert all(counts.passes > 1 for counts in manifest.counts.values())
    code, first, err = await _program("replay", str(folder), "--json", seed="1")
    assert code == 0, err
    assert (await _program("replay", str(folder), "--json", seed="2"))[1] == first
    found = json.loads(first)
    assert found["schema"] == "heatpool.replay/1"
    assert {view["state"] for view in found["sensors"]} == {"up"}
    assert {figure["channel"] for figure in found["estimates"]} >= {"electric", "rack/heat_rate"}
    # Reports of half a second; some may be lost by a machine that stands still.
    assert len(found["rows"]) >= 3
    assert found["rows"][-1]["figures"]["rack/volume_flow_m3_h"] == pytest.approx(5.123)
    assert all(row["event_ns"] % 500_000_000 == 0 for row in found["rows"])
    shown = (await _program("replay", str(folder)))[1].decode().partition("\n\n")[0]
    assert re.search(r"^  rack: .*heat_rate_w=\S+ .*class [A-E] (fused|computed)", shown, re.M)
    assert "quality=" not in shown
    assert set(found["rows"][-1]["flags_by_loop"]) == {"", "rack"}


async def test_readings_of_a_replay_carry_the_time_at_which_they_were_taken(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "recording"
    async with _site(tmp_path) as tree:
        begun_ns = time.time_ns()
        await record(_config(tree), folder, span_s=2.0)
        ended_ns = time.time_ns()
    found = await replay(await asyncio.to_thread(load, folder), folder)
    assert found["readings"]
    assert all(begun_ns <= reading["event_ns"] <= ended_ns for reading in found["readings"])


async def test_nothing_private_gets_into_a_recording(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "chips").mkdir()
    async with _site(tmp_path) as tree:
        tree["sensor"] += [
            {
                "id": "far",
                "kind": "modbus",
                "map": "generic-cdu",
                "url": f"tcp://{HOST}:502",
                "timeout_s": 0.3,
                "meter_id": METER,
            },
            {
                "id": "shelf",
                "kind": "redfish",
                "url": f"https://{HOST}",
                "user": "karla",
                "password_file": str(tmp_path / "secret"),
                "timeout_s": 0.3,
            },
        ]
        # A device that shows its own password, in a label that a driver keeps.
        (name,) = tuple((Path(tree["roots"]["sys"]) / "class/hwmon").glob("*/name"))[:1]
        await asyncio.to_thread(name.write_text, f"{SECRET}\n")
        folder = tmp_path / "recording"
        await record(_config(tree), folder, span_s=2.0)
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for private in (SECRET, METER, HOST, "karla", str(tmp_path / "secret"), redfish_bench.PASSWORD):
        assert private.encode() not in written, private
    assert b"***" in written
    assert await replay(await asyncio.to_thread(load, folder), folder)


async def test_a_map_of_ones_own_comes_along(tmp_path: Path) -> None:
    maps = Path(sys.modules[Config.__module__].__file__ or "").parent / "sensors" / "maps"
    own = tmp_path / "own.toml"
    own.write_bytes((maps / "generic-cdu.toml").read_bytes())
    async with _site(tmp_path) as tree:
        tree["sensor"] = [{**tree["sensor"][3], "map": str(own)}]
        await record(_config(tree), tmp_path / "recording", span_s=2.0)
    own.unlink()
    (tmp_path / "recording").rename(tmp_path / "moved")
    folder = tmp_path / "moved"
    found = await replay(await asyncio.to_thread(load, folder), folder)
    assert [view["state"] for view in found["sensors"]] == ["up"]


async def test_a_killed_recording_plays_as_far_as_it_came(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "heatpool_agent",
        "record",
        str(folder),
        env={**os.environ, "HEATPOOL__SAMPLING__PERIOD_S": "0.1"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.to_thread(_wait_for_passes, folder / "host.jsonl", 4)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    with (folder / "host.jsonl").open("ab") as file:
        file.write(b'{"line":"begin","do":"re')
    recording = await asyncio.to_thread(load, folder)
    assert recording.manifest.ended_ns is None
    assert len(recording.passes["host"]) >= 4
    assert "host" in recording.damaged
    assert (await replay(recording, folder))["readings"]


def _wait_for_passes(path: Path, count: int) -> None:
    until_s = time.monotonic() + 90.0
    while not path.exists() or path.read_bytes().count(b'"line":"end"') < count:
        assert time.monotonic() < until_s, f"no {count} passes in {path.name}"
        time.sleep(0.05)


async def test_ctrl_c_ends_a_recording_well(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "heatpool_agent",
        "record",
        str(folder),
        stderr=asyncio.subprocess.PIPE,
    )
    await asyncio.to_thread(_wait_for_passes, folder / "host.jsonl", 3)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"passes" in err
    assert (await asyncio.to_thread(load, folder)).manifest.ended_ns is not None
    # This very machine, with the agent's own seconds, which are those of no other run.
    runs = [await _program("replay", str(folder), "--json", seed=seed) for seed in "12"]
    assert runs[0] == runs[1]
    assert b"busy_frac" in runs[0][1]


async def test_what_finds_no_room_is_counted_and_leaves_no_hole(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    async with _site(tmp_path) as tree:
        tree["sensor"] = tree["sensor"][2:3]
        manifest = await record(_config(tree), folder, span_s=1.5, max_bytes=2500)
    counts = manifest.counts["load"]
    assert counts.dropped_passes
    assert counts.bytes <= 2500
    assert (folder / "load.jsonl").stat().st_size == counts.bytes
    passes = (await asyncio.to_thread(load, folder)).passes["load"]
    assert len(passes) == counts.passes


async def test_speed_plays_in_proportion_to_the_time_that_passed(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    async with _site(tmp_path) as tree:
        tree["sensor"] = tree["sensor"][:1]
        await record(_config(tree), folder, span_s=2.5)
    recording = await asyncio.to_thread(load, folder)
    begun_s = time.monotonic()
    found = await replay(recording, folder, speed=2.0)
    first, *_, last = recording.passes["cpu"]
    lasted_s = (last.end.boot_ns - first.end.boot_ns) / 1e9
    assert time.monotonic() - begun_s >= lasted_s / 2
    assert found == await replay(recording, folder)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    for more in ([], ["--force"]):
        told = CliRunner().invoke(cli, ["record", str(tmp_path), "--for", "1s", *more])
        assert told.exit_code == 2
    assert (tmp_path / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize("span", ["0", "-1s", "soon", "nan", "inf", "1w"])
def test_a_span_that_is_none_is_refused(tmp_path: Path, span: str) -> None:
    told = CliRunner().invoke(cli, ["record", str(tmp_path / "r"), f"--for={span}"])
    assert told.exit_code == 2
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"schema": "heatpool.recording/9"}'])
def test_what_is_no_recording_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        load(tmp_path)


def _captures(realdata: Path) -> list[Path]:
    """Folders of documents of one service each: those with a tree in them, and flat ones."""
    folder = realdata / "02_redfish"
    trees = [path.parents[2] for path in folder.glob("*/*/redfish/v1/index.json")]
    flat = [path for path in folder.iterdir() if path.is_dir() and any(path.glob("**/*.json"))]
    parents = {tree.parent for tree in trees}
    return sorted({*trees, *flat} - parents)


def _values(document: Mapping[str, Any]) -> dict[tuple[str, str, str], float]:
    return {
        (reading["sensor"], reading["channel"], reading["quantity"]): reading["value"]
        for reading in document["readings"]
    }


@pytest.mark.realdata
async def test_real_captures_play_as_they_are_read(realdata: Path, tmp_path: Path) -> None:
    captures = await asyncio.to_thread(_captures, realdata)
    blocks = [
        {"id": f"bmc-{at}", "kind": "redfish", "url": f"file:{folder}", "host": f"h{at}"}
        for at, folder in enumerate(captures)
    ]
    config = _config({"sensor": blocks})
    await record(config, tmp_path / "r", span_s=12.0)
    played = await replay(await asyncio.to_thread(load, tmp_path / "r"), tmp_path / "r")
    looked = await look(config, {}, span_s=0.01)
    assert _values(played) == _values(looked)
    assert len({sensor for sensor, _, _ in _values(played)}) >= 3
    assert str(realdata).encode() not in (tmp_path / "r" / "manifest.json").read_bytes()


@pytest.mark.realdata
async def test_a_real_machine_s_files_play_as_they_are_read(realdata: Path, tmp_path: Path) -> None:
    blocks = [{"id": kind, "kind": kind} for kind in ("rapl", "hwmon")]
    roots = {"sys": str(realdata / "01_sysfs/kepler/sys"), "proc": str(tmp_path)}
    config = _config({"sensor": blocks, "roots": roots})
    await record(config, tmp_path / "r", span_s=3.0)
    played = await replay(await asyncio.to_thread(load, tmp_path / "r"), tmp_path / "r")
    looked = await look(config, {}, span_s=0.01)
    assert _values(played) == _values(looked)
    assert {sensor for sensor, _, _ in _values(played)} == {"rapl", "hwmon"}
