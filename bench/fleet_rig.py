"""Processes of bench/fleet_load.py: a server, the generator beside it, and what both took.

The bare server is grpc.aio with one handler that answers hello and reads on: what a stream costs
before anybody does anything with it.
"""

import asyncio
import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc.aio
import psutil

from heatpool.v1 import telemetry_pb2 as pb

LOOK_S = 0.25
READY_S = 120.0
PENDING = 20_000
HERE = Path(__file__).parent


async def _bare(requests: AsyncIterator[bytes], context: Any) -> None:
    reply = pb.HelloReply(limits=pb.Limits(unacked_batches_count=1_000_000))
    answer = pb.TelemetryServiceStreamResponse(hello_reply=reply).SerializeToString()
    is_first = True
    async for _ in requests:
        if is_first:
            await context.write(answer)
            is_first = False


async def serve_bare(ready: Path, identity: Path | None) -> None:
    """Answers hello and nothing else, until it is killed; with certificates, over mTLS."""
    options = (
        ("grpc.so_reuseport", 0),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
    )
    server = grpc.aio.server(options=options)
    handler: Any = grpc.stream_stream_rpc_method_handler(_bare)
    name = "heatpool.v1.TelemetryService"
    generic = grpc.method_handlers_generic_handler(name, {"Stream": handler})
    server.add_generic_rpc_handlers((generic,))
    if identity is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", await asyncio.to_thread(_demanding, identity))
    await server.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)
    await asyncio.to_thread(ready.write_text, json.dumps({"grpc": f"127.0.0.1:{port}"}))
    await server.wait_for_termination()


def _demanding(identity: Path) -> grpc.ServerCredentials:
    """Every client shows a certificate, as with the aggregator."""
    key, chain, ca = (
        (identity / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")
    )
    return grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)


@dataclass(slots=True)
class Server:
    """A running server, watched; `rss` are pairs of s since its start and bytes."""

    process: subprocess.Popen[bytes]
    grpc: str
    http: str | None
    rss: list[tuple[float, int]] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    @property
    def watched(self) -> psutil.Process:
        """The process as psutil sees it."""
        return psutil.Process(self.process.pid)

    def look(self) -> None:
        """Takes down the memory of now."""
        seen = self.watched.memory_info().rss
        self.rss.append((time.monotonic() - self.began_s, seen))

    def cpu_s(self) -> float:
        """CPU so far, all threads, s."""
        spent = self.watched.cpu_times()
        return float(spent.user + spent.system)

    def rss_between(self, first_s: float, last_s: float) -> list[int]:
        """Memory seen between two times since its start."""
        return [seen for at_s, seen in self.rss if first_s <= at_s <= last_s]


@contextmanager
def aggregator(folder: Path, agents: int, period: str) -> Iterator[Server]:
    """A real aggregator whose members are the sites of the generator."""
    config = written_config(folder, agents, period)
    command = [sys.executable, "-m", "heatpool_aggregator", "run", "--config", str(config)]
    with _started("ours", folder, command) as server:
        yield server


def written_config(folder: Path, agents: int, period: str) -> Path:
    """Its settings; what it keeps lies beside them."""
    config = folder / "ours.toml"
    doors = ("--address", "127.0.0.1:0", "--http", "127.0.0.1:0")
    write = [*load(agents, *doors, "--period", period), "--write-config", str(config)]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    return config


@contextmanager
def bare(folder: Path, identity: Path | None = None) -> Iterator[Server]:
    """An empty server of the same kind; with the certificates in a folder, over mTLS."""
    command = [sys.executable, str(HERE / "fleet_load.py")]
    if identity is not None:
        command += ["--bare-identity", str(identity)]
    command += ["--serve-bare"]
    with _started("bare", folder, command) as server:
        yield server


@contextmanager
def _started(name: str, folder: Path, command: Sequence[str]) -> Iterator[Server]:
    ready = folder / f"{name}.ready"
    ready.unlink(missing_ok=True)
    option = [str(ready)] if name == "bare" else ["--ready-file", str(ready)]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*command, *option], stdout=log, stderr=log)
    try:
        ends_s = time.monotonic() + READY_S
        while not (ready.exists() and ready.read_text()):
            if process.poll() is not None or time.monotonic() > ends_s:
                raise RuntimeError(f"{name}: {(folder / f'{name}.log').read_text()[-2000:]}")
            time.sleep(0.1)
        said = json.loads(ready.read_text())
        yield Server(process=process, grpc=said["grpc"], http=said.get("http"))
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def load(agents: int, *options: str) -> list[str]:
    """The command line of the generator."""
    return [sys.executable, "-m", "heatpool_sim", "load", "--agents", str(agents), *options]


@dataclass(slots=True)
class Turn:
    """One run of the generator against a server; times are s since the server's start."""

    report: dict[str, Any]
    first_s: float
    all_in_s: float | None
    last_s: float
    rss_before: int
    rss_all_in: int | None
    cpu_s: float
    cpu_all_in_s: float | None

    @property
    def cpu_connecting_s(self) -> float | None:
        """Of the server, until all were in, s."""
        return None if self.cpu_all_in_s is None else self.cpu_s - self.cpu_all_in_s


def turn(
    server: Server,
    agents: int,
    *options: str,
    is_verified: bool = True,
    once_in: Callable[[], None] = lambda: None,
) -> Turn:
    """Runs the generator against a server and watches it; `once_in` runs beside it, then."""
    doors = ["--address", server.grpc, "--progress", "0.5s", "--json"]
    if is_verified and server.http:
        doors += ["--http", server.http, "--verify"]
    server.look()
    first_s, rss_before = server.rss[-1]
    began_cpu_s = server.cpu_s()
    environ = os.environ | {"GRPC_VERBOSITY": "ERROR"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        load(agents, *doors, *options), stdout=pipe, stderr=pipe, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = _Seen(agents, process.stderr)
        answer, out = list[str](), process.stdout
        reader = threading.Thread(target=lambda: answer.append(out.read()))
        reader.start()
        all_in: tuple[float, int, float] | None = None
        beside = threading.Thread(target=once_in)
        while process.poll() is None:
            server.look()
            if all_in is None and seen.is_all_in:
                all_in = (*server.rss[-1], server.cpu_s())
                beside.start()
            time.sleep(LOOK_S)
        reader.join()
        if all_in is not None:
            beside.join()
    if not answer or not answer[0].strip():
        raise RuntimeError(f"the generator ended with {process.returncode}: {seen.last}")
    server.look()
    return Turn(
        report=json.loads(answer[0]),
        first_s=first_s,
        all_in_s=all_in[0] if all_in else None,
        last_s=server.rss[-1][0],
        rss_before=rss_before,
        rss_all_in=all_in[1] if all_in else None,
        cpu_s=server.cpu_s() - began_cpu_s,
        cpu_all_in_s=server.cpu_s() - all_in[2] if all_in else None,
    )


def whole(report: dict[str, Any]) -> dict[str, Any]:
    """Nothing lost, nothing left, nobody kept out, and the other side says the same."""
    witness = report["witness"]
    return {
        "lost": report["lost"],
        "left": report["left"],
        "never_connected": report["agents"]["never_connected"],
        "witness": None if witness is None else witness["is_right"],
    }


class _Seen:
    """What the generator says while it runs."""

    def __init__(self, agents: int, lines: IO[str]) -> None:
        self.is_all_in = False
        self.last = ""
        self._wanted = agents
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self.last = line.strip()
            found = re.search(r"connected=(\d+)", line)
            self.is_all_in |= found is not None and int(found[1]) >= self._wanted
