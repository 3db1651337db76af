"""Servers and load of bench/ingest.py as processes, and one server under one load."""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from ingest_load import site_of

from heatpool_aggregator.rpc import GRPC_POLLING
from heatpool_sim.load.figures import CHANNELS

HERE = Path(__file__).parent
SETTLE_S = 1.0
NAMES = ("echo", "tuned", "ours")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One server under one load: CPU in us a message, memory in kB a stream, times in ms.

    `others_cores` is what the rest of the machine took meanwhile.
    """

    cpu_us: float
    values_core_s: float
    core_frac: float
    rss_stream_kb: float
    wire_bytes_value: float
    p50_ms: float
    p99_ms: float
    left: int
    others_cores: float


def settings(streams: int, folder: Path) -> str:
    """An aggregator whose one virtual source has every site of the bench."""
    members = "\n".join(
        f'[[virtual_source.member]]\nsite_id = "{site_of(number)}"' for number in range(streams)
    )
    return (
        f'[listen]\ngrpc = "127.0.0.1:0"\nhttp = "127.0.0.1:0"\n[state]\ndir = "{folder}"\n'
        '[[virtual_source]]\nid = "bench"\nkind = "district_loop"\n'
        f'[virtual_source.agreement]\nid = "HPA-1"\nprice_eur_mwh = "30"\n{members}\n'
    )


def started(name: str, folder: Path, streams: int) -> subprocess.Popen[bytes]:
    """The server, on its way."""
    ready = folder / f"{name}.json"
    if name == "ours":
        config = folder / "ours.toml"
        config.write_text(settings(streams, folder / "state"))
        command = [sys.executable, "-m", "heatpool_aggregator", "run"]
        command += ["--config", str(config), "--ready-file", str(ready)]
    else:
        # Neither this nor the load is a script of its own: `make bench` would run it alone.
        command = [sys.executable, "-c", "from ingest_echo import start; start()", name, str(ready)]
    # Of the bare echo nothing is asked; the aggregator asks for it itself.
    environ = os.environ | ({"GRPC_EXPERIMENTS": GRPC_POLLING} if name == "tuned" else {})
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stderr=log, stdout=log, cwd=HERE, env=environ)


def address_of(name: str, folder: Path) -> str:
    """Where the server listens, once it does."""
    ready, limit_s = folder / f"{name}.json", time.monotonic() + 60
    while not (ready.exists() and ready.read_text()):
        if time.monotonic() > limit_s:
            raise TimeoutError(f"{name} did not get ready: {(folder / f'{name}.log').read_text()}")
        time.sleep(0.1)
    address: str = json.loads(ready.read_text())["grpc"]
    return address


def cpu_s(process: psutil.Process) -> float:
    """CPU of a process so far, all its threads, s."""
    spent = process.cpu_times()
    return float(spent.user + spent.system)


def _spent_s(server: psutil.Process, sender: psutil.Process) -> tuple[float, float]:
    """CPU so far of the server, and of all that is neither it nor its sender, s.

    What the host keeps from this machine is the others' too.
    """
    of_all = psutil.cpu_times()
    busy_s = sum(of_all) - of_all.idle - of_all.iowait - of_all.guest - of_all.guest_nice
    spent_s = cpu_s(server)
    return spent_s, float(busy_s) - spent_s - cpu_s(sender)


def turn(name: str, address: str, pid: int, asked: argparse.Namespace) -> Turn:
    """One server under one load."""
    server = psutil.Process(pid)
    empty_rss = server.memory_info().rss
    kind = "ours" if name == "ours" else "echo"
    command = [sys.executable, "-c", "from ingest_load import start; start()", kind, address]
    for option in ("streams", "rate", "rows", "seconds"):
        command += [f"--{option}", str(getattr(asked, option))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
    ) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        expect(load.stdout.readline(), "ready")
        time.sleep(SETTLE_S)
        rss = server.memory_info().rss - empty_rss
        load.stdin.write("go\n")
        load.stdin.flush()
        expect(load.stdout.readline(), "start")
        sender = psutil.Process(load.pid)
        began, began_s = _spent_s(server, sender), time.monotonic()
        expect(load.stdout.readline(), "stop")
        ended, wall_s = _spent_s(server, sender), time.monotonic() - began_s
        spent_s, others_s = ended[0] - began[0], ended[1] - began[1]
        found = json.loads(load.stdout.readline())
    values = found["sent"] * asked.rows * len(CHANNELS)
    return Turn(
        cpu_us=spent_s / max(found["acked"], 1) * 1e6,
        values_core_s=values / spent_s,
        core_frac=spent_s / wall_s,
        rss_stream_kb=rss / asked.streams / 1e3,
        wire_bytes_value=found["wire_bytes"] / values,
        p50_ms=found["latencies_ms"]["p50"],
        p99_ms=found["latencies_ms"]["p99"],
        left=found["left"],
        others_cores=max(0.0, others_s) / wall_s,
    )


def expect(line: str, word: str) -> None:
    """Ends the bench if the load says something else."""
    if line.strip() != word:
        raise RuntimeError(f"the load said {line!r} where {word!r} was due")


def cores_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
