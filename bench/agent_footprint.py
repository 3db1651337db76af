"""RSS and CPU of one agent at 1 Hz in three profiles, beside a bare interpreter.

    .venv/bin/python bench/agent_footprint.py [--seconds 60] [--profile edge ...]

minimal: two RAPL domains, hwmon, spool. edge: also four GPUs, six Modbus registers, a page; its
announcement is counted by what zeroconf adds to a process, as nothing here leaves loopback. full:
also a stream to an aggregator. Bytecode is compiled beforehand, as an installed package has it:
compiling at the start leaves 6 MB behind for good. CPU is printed beside a bare Python loop of the
same run, since a shared machine has no fixed speed.

RSS is what has a gate: it is what top shows and systemd's MemoryMax nearly counts, and it does not
depend on who else runs. Beside it stand the private pages, what the machine gets back when the
agent ends, and the proportional share (PSS), smaller here as others map the same libraries.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from footprint_site import AGGREGATOR, lay_out, settings_of

from heatpool_sim import app as simulator
from heatpool_sim import scenario
from heatpool_sim.devices.nvml import Gpu, GpuModel, NvmlLibrary

GPUS_COUNT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Target and gate of one profile: RSS, MB, and share of a core (agent.md 15)."""

    rss_mb: float
    rss_gate_mb: float
    cpu_frac: float
    cpu_gate_frac: float


BUDGETS = {
    "minimal": Budget(rss_mb=24, rss_gate_mb=28, cpu_frac=0.0010, cpu_gate_frac=0.002),
    "edge": Budget(rss_mb=48, rss_gate_mb=54, cpu_frac=0.0010, cpu_gate_frac=0.002),
    "full": Budget(rss_mb=64, rss_gate_mb=70, cpu_frac=0.0025, cpu_gate_frac=0.005),
}
# What a served page has loaded before it is announced, and what the announcement adds.
BESIDE = """
from heatpool_agent.commands import without_tls
without_tls.leave_out(has_page=True)
import heatpool_agent.app, heatpool_agent.http, pymodbus.client, ctypes
"""
ANNOUNCING = "import zeroconf.asyncio"
START_CPU_S = 0.5
START_GATE_CPU_S = 0.8


def environment(folder: Path) -> dict[str, str]:
    """As an installed program has it: bytecode is written and found again."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def started(folder: Path, module: str, settings: str) -> subprocess.Popen[bytes]:
    """The program, on its way."""
    config = folder / f"{module}.toml"
    config.write_text(settings)
    command = [sys.executable, "-m", module, "run", "--config", str(config)]
    command += ["--ready-file", str(folder / f"{module}.json")]
    environ = environment(folder) | {"NOTIFY_SOCKET": str(folder / "notify")}
    return subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)


def told(folder: Path, module: str) -> dict[str, str]:
    """What a program said when it was ready."""
    path = folder / f"{module}.json"
    limit_s = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > limit_s:
            raise TimeoutError(f"{module} did not get ready")
        time.sleep(0.05)
    answer: dict[str, str] = json.loads(path.read_text())
    path.unlink()
    return answer


def bare_loop_s() -> float:
    """CPU seconds of a million additions here and now."""
    began, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return time.process_time() - began


def child_mb(code: str, folder: Path) -> float:
    """RSS of an interpreter that ran some code, MB."""
    read = "print(int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6)"
    command = [sys.executable, "-c", f"{code}\n{read}"]
    subprocess.run(command, env=environment(folder), capture_output=True, check=True)
    done = subprocess.run(
        command, env=environment(folder), capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def start_cpu_s(agent: subprocess.Popen[bytes], door: socket.socket) -> float:
    """CPU seconds until the first admitted tick, as systemd is told of it."""
    while b"READY=1" not in door.recv(4096):
        pass
    spent = psutil.Process(agent.pid).cpu_times()
    return float(spent.user + spent.system)


def memory_mb(pid: int) -> dict[str, float]:
    """RSS of a process, its proportional share of what it shares, and its own pages, MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {name: int(told.split()[0]) for name, _, told in (line.partition(":") for line in lines)}
    private = kb["Private_Dirty"] + kb["Private_Clean"]
    return {
        name: size * 1024 / 1e6
        for name, size in (("rss_mb", kb["Rss"]), ("pss_mb", kb["Pss"]), ("private_mb", private))
    }


def watched(pid: int, *, seconds_s: float, settle_s: float) -> dict[str, float]:
    """CPU and RSS of a process after it has settled."""
    process = psutil.Process(pid)
    time.sleep(settle_s)
    before, began = process.cpu_times(), time.monotonic()
    time.sleep(seconds_s)
    after, passed_s = process.cpu_times(), time.monotonic() - began
    cpu_s = after.user + after.system - before.user - before.system
    return {
        **memory_mb(pid),
        "threads": process.num_threads(),
        "cpu_frac": cpu_s / passed_s,
        "seconds": passed_s,
    }


def profile_figures(
    name: str, folder: Path, settings: str, *, seconds_s: float, settle_s: float
) -> dict[str, Any]:
    """One profile: a first life that compiles, then one that is measured."""
    for life_s in (0.0, seconds_s):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            (folder / "notify").unlink(missing_ok=True)
            door.bind(str(folder / "notify"))
            door.settimeout(30)
            began_s = time.monotonic()
            agent = started(folder, "heatpool_agent", settings)
            try:
                cpu_s = start_cpu_s(agent, door)
                start_s = time.monotonic() - began_s
                if life_s:
                    found = watched(agent.pid, seconds_s=life_s, settle_s=settle_s)
            finally:
                stop_s = ended_s(agent)
    if name != "minimal":
        found["announcing_mb"] = child_mb(BESIDE + ANNOUNCING, folder) - child_mb(BESIDE, folder)
        found["rss_mb"] += found["announcing_mb"]
    lives = {"start_cpu_s": cpu_s, "start_s": start_s, "stop_s": stop_s}
    return judged(BUDGETS[name], found | lives)


def ended_s(agent: subprocess.Popen[bytes]) -> float:
    """Ends a program as systemd does; how long that took, s."""
    began_s = time.monotonic()
    agent.terminate()
    agent.wait(20)
    return time.monotonic() - began_s


def judged(budget: Budget, found: dict[str, Any]) -> dict[str, Any]:
    """The figures with what they should be."""
    is_within = (
        found["rss_mb"] <= budget.rss_gate_mb
        and found["cpu_frac"] <= budget.cpu_gate_frac
        and found["start_cpu_s"] <= START_GATE_CPU_S
    )
    is_met = (
        found["rss_mb"] <= budget.rss_mb
        and found["cpu_frac"] <= budget.cpu_frac
        and found["start_cpu_s"] <= START_CPU_S
    )
    targets = {"rss_target_mb": budget.rss_mb, "cpu_target_frac": budget.cpu_frac}
    return found | targets | {"meets_targets": is_met, "is_within_gates": is_within}


async def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Every profile wanted, beside a coolant unit, four cards and an aggregator."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await asyncio.to_thread(lay_out, folder)
        nvml = await asyncio.to_thread(_cards, folder / "nvml")
        plan = scenario.parse(folder / "fleet.toml")
        async with simulator.serve(plan) as fleet:
            cdu = fleet.doors["bench"].cdu.url
            return await asyncio.to_thread(_profiles, folder, options, cdu, nvml)


def _cards(folder: Path) -> str:
    folder.mkdir()
    library = NvmlLibrary(folder)
    model = GpuModel(name="bench", idle_w=60.0, most_w=700.0)
    library.show([Gpu(model, f"0000:{bus:02x}:00.0").card() for bus in range(1, GPUS_COUNT + 1)])
    return str(library.path)


def _profiles(folder: Path, options: argparse.Namespace, cdu: str, nvml: str) -> dict[str, Any]:
    found: dict[str, Any] = {"bare_mb": child_mb("", folder)}
    aggregator = started(folder, "heatpool_aggregator", AGGREGATOR.format(folder=folder))
    try:
        grpc = told(folder, "heatpool_aggregator")["grpc"]
        for profile in options.profile or BUDGETS:
            settings = settings_of(profile, folder, cdu=cdu, grpc=grpc, nvml=nvml)
            found[profile] = profile_figures(
                profile, folder, settings, seconds_s=options.seconds, settle_s=options.settle
            )
            sys.stderr.write(f"{profile}: {json.dumps(found[profile])}\n")
    finally:
        aggregator.terminate()
        aggregator.wait(20)
    return found | {"bare_million_additions_ms": 1e3 * bare_loop_s()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures as JSON; 1 if a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=10.0)
    parser.add_argument("--profile", action="append", choices=list(BUDGETS))
    options = parser.parse_args(arguments)
    found = asyncio.run(measured(options))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    profiles = [figures for figures in found.values() if isinstance(figures, dict)]
    return 0 if all(figures["is_within_gates"] for figures in profiles) else 1


if __name__ == "__main__":
    sys.exit(main())
