"""RSS and CPU share of one agent at 1 Hz: 2 RAPL domains, 6 Modbus points, stream open.

    .venv/bin/python bench/agent_footprint.py [--seconds 60]

Gates of the design: RSS 70 MB (target 64), CPU 0.5 % of a core. The CPU share is printed beside a
bare Python loop of the same run, since a shared machine has no fixed speed.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from heatpool_sim import app as simulator
from heatpool_sim import scenario

RSS_GATE_MB = 70.0
CPU_GATE_FRAC = 0.005
FLEET = """
name = "bench"
seed = 1
[[virtual_source]]
id = "loop"
kind = "district_loop"
hot_c = 60.0
cold_c = 48.0
price_eur_mwh = "44.75"
[[site]]
id = "bench"
virtual_source = "loop"
it_w = 30_000
"""


def sysfs_tree(folder: Path) -> None:
    """Two packages that count; the values stand still, reading them costs the same."""
    for index in (0, 1):
        zone = folder / "class" / "powercap" / f"intel-rapl:{index}"
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"package-{index}\n")
        (zone / "energy_uj").write_text("123456789\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")


def agent_toml(folder: Path, door: simulator.SiteDoor, grpc: str) -> str:
    """The settings that the design's figure is for."""
    return f"""
[site]
id = "bench"
state_dir = "{folder / "state"}"
[roots]
sys = "{folder / "sys"}"
[[loop]]
id = "rack"
[[sensor]]
id = "rapl"
kind = "rapl"
[[sensor]]
id = "cdu"
kind = "modbus"
url = "{door.cdu.url}"
unit_id = 1
map = "generic-cdu"
loop = "rack"
[aggregator]
url = "http://{grpc}"
[http]
listen = "127.0.0.1:0"
"""


def aggregator_toml(folder: Path) -> str:
    """An aggregator that knows the site."""
    return f"""
[listen]
grpc = "127.0.0.1:0"
http = "127.0.0.1:0"
[state]
dir = "{folder / "aggregator"}"
[[virtual_source]]
id = "loop"
kind = "district_loop"
agreement = {{ id = "hpa", price_eur_mwh = "44.75" }}
[[virtual_source.member]]
site_id = "bench"
"""


async def started(
    folder: Path, module: str, settings: str
) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """A program and what it said when it was ready."""
    config, ready = folder / f"{module}.toml", folder / f"{module}.json"
    config.write_text(settings)
    command = [sys.executable, "-m", module, "run", "--config", str(config)]
    command += ["--ready-file", str(ready)]
    child = await asyncio.to_thread(subprocess.Popen, command, stderr=subprocess.DEVNULL)
    async with asyncio.timeout(30):
        while not ready.exists():  # noqa: ASYNC110  # another process's file
            await asyncio.sleep(0.05)
    return child, json.loads(ready.read_text())


def bare_loop_s() -> float:
    """CPU seconds of a million additions here and now."""
    began, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return time.process_time() - began


async def measured(seconds_s: float, settle_s: float) -> dict[str, float]:
    """One agent beside its aggregator and its coolant unit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sysfs_tree(folder / "sys")
        (folder / "fleet.toml").write_text(FLEET)
        async with simulator.serve(scenario.parse(folder / "fleet.toml")) as fleet:
            aggregator, told = await started(folder, "heatpool_aggregator", aggregator_toml(folder))
            agent, _ = await started(
                folder, "heatpool_agent", agent_toml(folder, fleet.doors["bench"], told["grpc"])
            )
            try:
                return await watched(agent.pid, seconds_s, settle_s)
            finally:
                for child in (agent, aggregator):
                    child.terminate()
                    await asyncio.to_thread(child.wait)


async def watched(pid: int, seconds_s: float, settle_s: float) -> dict[str, float]:
    """CPU and RSS of a process after it has settled."""
    process = psutil.Process(pid)
    await asyncio.sleep(settle_s)
    before, began = process.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds_s)
    after, passed_s = process.cpu_times(), time.monotonic() - began
    cpu_s = after.user + after.system - before.user - before.system
    return {
        "rss_mb": process.memory_info().rss / 1e6,
        "threads": process.num_threads(),
        "cpu_frac": cpu_s / passed_s,
        "cpu_ms_per_tick": 1e3 * cpu_s / passed_s,
        "bare_million_additions_ms": 1e3 * bare_loop_s(),
        "seconds": passed_s,
    }


def main() -> int:
    """Prints the figures as JSON; 1 if a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=10.0)
    options = parser.parse_args()
    found = asyncio.run(measured(options.seconds, options.settle))
    is_within = found["rss_mb"] <= RSS_GATE_MB and found["cpu_frac"] <= CPU_GATE_FRAC
    sys.stdout.write(json.dumps(found | {"is_within_gates": is_within}, indent=2) + "\n")
    return 0 if is_within else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
