"""`calibrate` as a technician meets it, and a real counter learnt beside a real BMC's answers."""

import asyncio
import csv
import json
import os
import random
import shutil
import signal
import stat
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from integration import bench_site
from integration.bench_site import Done, ran
from ports.benches import ipmi as ipmi_bench

from heatpool.sample import QualityClass, SiteId
from heatpool_agent.assembly import loop_settings
from heatpool_agent.board import Board
from heatpool_agent.calibrations import CALIBRATION, Shelf
from heatpool_agent.config import Config
from heatpool_agent.core.coefficients import COMPONENTS, LOAD
from heatpool_agent.loops.learning import Learning
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.sensors import host, ipmi, rapl
from heatpool_sim.devices.sysfs_tree import MachineModel, SysfsTree

S = 1_000_000_000


@dataclass
class Clock:
    """Moved by hand."""

    second: int = 1_000_000

    def event_ns(self) -> int:
        return (1_760_000_000 + self.second) * S

    def boot_ns(self) -> int:
        return self.second * S


class Server:
    """A machine of files and its BMC, one plant behind both; the agent's drivers before them."""

    def __init__(self, folder: Path, bench: ipmi_bench.IpmiBench, stack: AsyncExitStack) -> None:
        self.clock, self.bench, self._stack = Clock(), bench, stack
        self.tree = SysfsTree(folder, MachineModel(package_count=2, has_psys=False))
        self.tree.step(60.0, 10.0)
        self.board = Board(site_id=SiteId("s1"))
        loops = loop_settings(Config())
        self.learning = Learning(loops, self.clock, shelf=Shelf(folder / "state"))
        self.sense = Sense(
            loops,
            self.board,
            self.clock,
            spooling=None,
            period_s=1.0,
            report_period_s=10.0,
            learning=self.learning,
        )
        self.driven: dict[str, Driven] = {}

    async def open(self, *names: str) -> None:
        roots = replace(self.bench.roots, sys=self.tree.sys, proc=self.tree.proc)
        blocks = {
            "rapl": (rapl, {"id": "rapl", "kind": "rapl"}),
            "host": (host, {"id": "host", "kind": "host"}),
            "bmc": (ipmi, {"id": "bmc", **self.bench.settings}),
        }
        for name in names:
            module, block = blocks[name]
            config = msgspec.convert(block, module.Config)
            opened = module.open(config, roots, self.clock)
            sensor = await self._stack.enter_async_context(opened)
            await sensor.probe()
            self.driven[name] = Driven(
                id=name, kind=name, sensor=sensor, period_s=10.0, timeout_s=5.0
            )

    async def ten_seconds(self, package_w: float) -> float:
        """Ten seconds at this power of each package; the truth at the wall, W."""
        self.clock.second += 10
        await asyncio.to_thread(self.tree.step, package_w, 10.0)
        # Memory draws 15 % of its package; the rest is the board, the fans and the supply.
        wall_w = (2 * 1.15 * package_w * 1.08 + 70.0) / 0.92
        self.bench.plant.power_w = wall_w
        for one in self.driven.values():
            readings = await one.sensor.read()
            self.board.latest[one.id] = tuple(readings)
            await self.sense.take(one, readings)
        self.sense.tick(self.clock.event_ns(), self.clock.boot_ns())
        return wall_w


@pytest.mark.skipif(shutil.which("ipmitool") is None, reason="ipmitool is not installed")
async def test_a_bmc_on_loan_makes_class_c_of_counters_and_of_load(tmp_path: Path) -> None:
    r = random.Random(4)
    async with AsyncExitStack() as stack:
        (tmp_path / "bmc").mkdir()
        bench = await stack.enter_async_context(ipmi_bench.opened(tmp_path / "bmc"))
        server = Server(tmp_path, bench, stack)
        await server.open("rapl", "host", "bmc")
        for _ in range(24):
            await server.ten_seconds(r.uniform(45, 240))
        await server.learning.keep()
        found = {one.kind: one for one in server.learning.coefficients}
        assert found[COMPONENTS].basis == ("dram", "package")
        assert found[COMPONENTS].count >= 18 and found[LOAD].count >= 18
        before, after = found[COMPONENTS].before_mape_frac, found[COMPONENTS].after_mape_frac
        assert before is not None and after is not None and after < 0.02 < before
    async with AsyncExitStack() as stack:
        for names, most in ((("rapl", "host"), 0.03), (("host",), 0.10)):
            later = Server(tmp_path, bench, stack)
            later.clock.second = server.clock.second + 100
            await later.open(*names)
            walls_w = [await later.ten_seconds(w) for w in (100.0, 180.0, 180.0)]
            told = later.board.electric
            assert told is not None and told.quality is QualityClass.C
            assert told.value == pytest.approx(walls_w[-1], rel=most)
            assert abs(told.value - walls_w[-1]) < 1.96 * told.u


def trace(folder: Path, count: int = 40, *, moved: float = 1.0) -> str:
    path, r = folder / "trace.csv", random.Random(8)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "cpu_w", "gpu_w", "fan_rpm", "power_w", "busy_frac"])
        for at in range(count):
            busy = 0.5 + moved * (r.random() - 0.5)
            cpu_w = 40 + 160 * busy
            wall_w = 90 + 1.15 * cpu_w + 1.2 * 300 * busy
            rows.writerow([f"{60 * at}", cpu_w, 300 * busy, 4000 + 4000 * busy, wall_w, busy])
    return str(path)


async def calibrate(folder: Path, *arguments: str) -> Done:
    return await ran("calibrate", *arguments, folder=folder)


def without_fans(path: str) -> str:
    lines = [line.split(",") for line in Path(path).read_text(encoding="utf-8").splitlines()]
    kept = [",".join(cell for at, cell in enumerate(line) if at != 3) for line in lines]
    Path(path).write_text("\n".join(kept), encoding="utf-8")
    return path


async def test_a_log_is_learnt_shown_carried_elsewhere_and_forgotten(tmp_path: Path) -> None:
    path = await asyncio.to_thread(lambda: without_fans(trace(tmp_path)))
    done = await calibrate(tmp_path, "fit", "--trace", path, "--cpus", "32", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.document["schema"] == "heatpool.calibration/1"
    found = {one["kind"]: one for one in done.document["coefficients"]}
    assert found["components"]["basis"] == ["gpu", "package"]
    assert found["components"]["count"] == 40
    named = found["components"]["named"]
    assert named["cpu_frac"]["value_u"] > 0
    assert found["components"]["range"]["cpu_w"][0] >= 40
    assert found["load"]["after_mape_frac"] < found["load"]["before_mape_frac"]
    kept = tmp_path / "state" / "heatpool" / "agent" / CALIBRATION
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    shown = await calibrate(tmp_path, "show", "--json")
    assert {one["kind"]: one["is_used"] for one in shown.document["coefficients"]} == {
        "components": True,
        "load": True,
    }
    text = (await calibrate(tmp_path, "show")).out
    assert "in use; expires" in text and "before" in text and "after" in text

    other = tmp_path / "other"
    await asyncio.to_thread(other.mkdir)
    (other / "got.json").write_text(shown.out, encoding="utf-8")
    taken = await calibrate(other, "import", "got.json", "--json")
    assert taken.code == 0 and len(taken.document["coefficients"]) == 2

    assert (await calibrate(other, "reset", "--yes", "--json")).document["removed"] != []
    assert "nothing was learnt yet" in (await calibrate(other, "show")).out


async def test_fans_that_the_agent_cannot_see_are_learnt_and_told(tmp_path: Path) -> None:
    path = await asyncio.to_thread(trace, tmp_path)
    done = await calibrate(tmp_path, "fit", "--trace", path, "--json")
    assert "leave the column out" in done.err
    found = {one["kind"]: one for one in done.document["coefficients"]}
    assert found["components"]["fan_full_rpm"] == pytest.approx(8000, rel=0.05)


async def test_a_log_in_which_nothing_moves_ends_with_code_4_and_says_so(tmp_path: Path) -> None:
    path = await asyncio.to_thread(lambda: trace(tmp_path, moved=0.01))
    done = await calibrate(tmp_path, "fit", "--trace", path, "--json")
    assert done.code == 4
    assert done.document["coefficients"] == [] and "moves by" in done.document["reasons"][0]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no line"),
        ("a,b\n1,2\n", "needed are power_w"),
        ("power_w,cpu_w\nx,y\n,\n", "0 rows of use, 2 left out"),
    ],
)
async def test_a_log_of_no_use_says_what_is_wrong(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "bad.csv").write_text(content, encoding="utf-8")
    done = await calibrate(tmp_path, "fit", "--trace", "bad.csv")
    assert done.code in (2, 4)
    assert told in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "x", "saved_ns": 1}'])
async def test_what_is_no_calibration_is_not_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "no.json").write_text(content, encoding="utf-8")
    done = await calibrate(tmp_path, "import", "no.json")
    assert done.code == 2
    assert "no.json" in done.err and "show --json" in done.err and "Traceback" not in done.err


async def test_a_meter_and_a_log_at_once_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("power_w,cpu_w\n1,2\n", encoding="utf-8")
    done = await calibrate(tmp_path, "fit", "--trace", "log.csv", "--reference", "clamp")
    assert done.code == 2
    assert "give one of them" in done.err


async def test_a_damaged_file_of_ones_own_says_how_to_go_on(tmp_path: Path) -> None:
    path = await asyncio.to_thread(lambda: without_fans(trace(tmp_path)))
    await calibrate(tmp_path, "fit", "--trace", path)
    own = await asyncio.to_thread(lambda: next(tmp_path.rglob("calibration.json")))
    await asyncio.to_thread(own.write_text, "{", "utf-8")
    done = await calibrate(tmp_path, "show")
    assert done.code == 2
    assert "calibration.json" in done.err and "calibrate reset" in done.err


async def test_without_a_yes_nothing_is_forgotten(tmp_path: Path) -> None:
    path = await asyncio.to_thread(lambda: without_fans(trace(tmp_path)))
    await calibrate(tmp_path, "fit", "--trace", path)
    done = await calibrate(tmp_path, "reset")
    assert done.code == 1
    assert len((await calibrate(tmp_path, "show", "--json")).document["coefficients"]) == 2


async def test_a_meter_that_is_not_in_the_settings_is_a_mistake(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "rapl") as site:
        path = await asyncio.to_thread(site.write)
        done = await calibrate(
            tmp_path, "fit", "--config", path, "--reference", "clamp", "--for", "2s"
        )
    assert done.code == 2
    assert "--reference: is 'clamp'; sensors are rapl" in done.err


async def test_too_short_a_time_beside_no_meter_says_why(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "rapl") as site:
        path = await asyncio.to_thread(site.write)
        done = await calibrate(tmp_path, "fit", "--config", path, "--for", "2s", "--json")
    assert done.code == 4
    assert done.document["reasons"] and "Traceback" not in done.err


def _wait_for_handler(pid: int) -> None:
    """Returns once a program has a handler of its own for TERM, and thus for Ctrl-C before it."""
    deadline = time.monotonic() + 60
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        assert time.monotonic() < deadline, "it never came to its loop"
        time.sleep(0.05)
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)


async def test_ctrl_c_ends_a_fit_at_once_and_in_order(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "rapl") as site:
        path = await asyncio.to_thread(site.write)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "heatpool_agent", "calibrate", "fit", "--config", path, "--json",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
        )  # fmt: skip
        await asyncio.to_thread(_wait_for_handler, child.pid)
        child.send_signal(signal.SIGINT)
        async with asyncio.timeout(90):
            out, err = await child.communicate()
    assert child.returncode == 4
    assert json.loads(out)["coefficients"] == [] and b"Traceback" not in err
