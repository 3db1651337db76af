"""CPU per message of durable ingest beside a bare grpc.aio echo of the same bytes.

    make bench-ingest ARGS="--streams 2000 --rate 4000 --rows 6 --seconds 10 --pairs 3 --json"

Aggregator, echo and senders are processes of their own; echo and aggregator take turns, so that
what else the machine does meets both. The aggregator does all of its work: log, decode, live state,
history, page. Only the ratios are figures; absolutes are for orientation (aggregator.md 12).
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
from ingest_load import site_of

from heatpool_sim.load.figures import CHANNELS

COMMIT_MS = 50.0
HERE = Path(__file__).parent
SETTLE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One server under one load: CPU in us a message, memory in kB a stream, times in ms."""

    cpu_us: float
    values_core_s: float
    core_frac: float
    rss_stream_kb: float
    wire_bytes_value: float
    p50_ms: float
    p99_ms: float
    left: int


# The bare server


async def _echo(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for data in requests:
        yield data


async def serve_echo(ready: Path) -> None:
    """Sends back what comes, until it is killed."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler: Any = grpc.stream_stream_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Stream": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)
    told = json.dumps({"grpc": f"127.0.0.1:{port}"})
    await asyncio.to_thread(ready.write_text, told)
    await server.wait_for_termination()


# Processes


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
    if name == "echo":
        command = [sys.executable, str(Path(__file__)), "--serve-echo", str(ready)]
    else:
        config = folder / "ours.toml"
        config.write_text(settings(streams, folder / "state"))
        command = [sys.executable, "-m", "heatpool_aggregator", "run"]
        command += ["--config", str(config), "--ready-file", str(ready)]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stderr=log, stdout=log)


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


def turn(name: str, address: str, pid: int, asked: argparse.Namespace) -> Turn:
    """One server under one load."""
    server = psutil.Process(pid)
    empty_rss = server.memory_info().rss
    # Not a script of its own: `make bench` would run it alone.
    command = [sys.executable, "-c", "from ingest_load import start; start()", name, address]
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
        began, began_s = cpu_s(server), time.monotonic()
        expect(load.stdout.readline(), "stop")
        spent_s, wall_s = cpu_s(server) - began, time.monotonic() - began_s
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
    )


def expect(line: str, word: str) -> None:
    """Ends the bench if the load says something else."""
    if line.strip() != word:
        raise RuntimeError(f"the load said {line!r} where {word!r} was due")


# Report


def measured(asked: argparse.Namespace) -> list[dict[str, Turn]]:
    """Pairs of turns, echo and aggregator."""
    with tempfile.TemporaryDirectory(dir=asked.directory) as text:
        folder, servers = Path(text), {}
        try:
            for name in ("echo", "ours"):
                servers[name] = started(name, folder, asked.streams)
            pairs = []
            for _ in range(asked.pairs):
                pair = {}
                for name, server in servers.items():
                    pair[name] = turn(name, address_of(name, folder), server.pid, asked)
                    sys.stderr.write(f"{name}: {pair[name]}\n")
                pairs.append(pair)
            return pairs
        finally:
            for server in servers.values():
                server.kill()
                server.wait()


def report(pairs: list[dict[str, Turn]]) -> dict[str, Any]:
    """Medians over the pairs; each ratio is of one pair."""

    def median(name: str, field: str) -> float:
        return float(statistics.median(getattr(pair[name], field) for pair in pairs))

    ratios = [pair["ours"].cpu_us / pair["echo"].cpu_us for pair in pairs]
    # Memory of the first pair alone: what a storm leaves behind is in the later ones.
    first = pairs[0]
    return {
        "cpu_ratio": statistics.median(ratios),
        "cpu_ratios": ratios,
        "cpu_us": {name: median(name, "cpu_us") for name in ("echo", "ours")},
        "core_frac": {name: median(name, "core_frac") for name in ("echo", "ours")},
        "values_core_s": median("ours", "values_core_s"),
        "ack_p50_commits": median("ours", "p50_ms") / COMMIT_MS,
        "ack_p99_commits": median("ours", "p99_ms") / COMMIT_MS,
        "wire_bytes_value": first["ours"].wire_bytes_value,
        "rss_stream_kb": {name: first[name].rss_stream_kb for name in ("echo", "ours")},
        "rss_ratio": first["ours"].rss_stream_kb / max(first["echo"].rss_stream_kb, 1e-9),
        "left": sum(pair["ours"].left for pair in pairs),
        "turns": [{name: asdict(one) for name, one in pair.items()} for pair in pairs],
    }


ROWS = (
    ("CPU a message, durable ingest / bare echo", "cpu_ratio", "<= 1.15"),
    ("values per core-second", "values_core_s", ">= 0.6 M at 6 rows, 5 M at 60"),
    ("ack p50 / commit interval", "ack_p50_commits", ""),
    ("ack p99 / commit interval", "ack_p99_commits", "<= 2.5 at 70 % of a core"),
    ("bytes on the wire a value", "wire_bytes_value", "<= 2.0 at 6 rows, 1.1 at 60"),
    ("memory of a stream / empty one", "rss_ratio", "<= 1.25"),
    ("sent and not acked 3 s later", "left", "0"),
)


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{told:<44}{found[name]:>14,.3f}  {aim}" for told, name, aim in ROWS]
    cpu, kb = found["cpu_us"], found["rss_stream_kb"]
    lines.append(f"{'us a message, echo and ours':<44}{cpu['echo']:>8.1f}{cpu['ours']:>8.1f}")
    lines.append(f"{'kB a stream, echo and ours':<44}{kb['echo']:>8.1f}{kb['ours']:>8.1f}")
    return "\n".join(lines) + "\n"


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=2_000.0, help="messages per second in all")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--directory", help="where the log lies, a folder on a real disk")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve-echo", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Runs the bench, or the bare server."""
    asked = parsed()
    if asked.serve_echo:
        asyncio.run(serve_echo(asked.serve_echo))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    found = report(measured(asked))
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if asked.json else table(found))


if __name__ == "__main__":
    main()
