"""The TLS part of bench/fleet_load.py: a fleet that enrols itself, and is cut off one by one."""

import json
import queue
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet_rig as rig
import grpc

from heatpool.v1 import telemetry_pb2 as pb

REVOKED_COUNT = 5
CONNECT_S = 0.012  # of a shared processor, both ends
CUT_OFF_S = 90.0
SETTLE_S = 5.0
METHOD = "/heatpool.v1.TelemetryService/Stream"


@dataclass(slots=True)
class Office:
    """Whoever runs the aggregator."""

    state: Path
    identity: Path = field(init=False)

    def __post_init__(self) -> None:
        self.identity = self.state / "identity"

    def said(self, *words: str) -> Any:
        """What a command answers."""
        command = (sys.executable, "-m", "heatpool_aggregator", *words)
        out = subprocess.run(
            [*command, "--dir", str(self.state), "--json"], check=True, capture_output=True
        )
        return json.loads(out.stdout)


def tls(folder: Path, agents: int, period_s: float, seconds: float) -> dict[str, Any]:
    """Enrols, sends live, then stands still beside a bare server with the same certificates."""
    config = rig.written_config(folder, agents, f"{period_s}s")
    office, papers = Office(config.with_suffix(".state")), folder / "agents"
    office.said("init", "--host", "127.0.0.1")
    all_in_s = 10.0 + agents * CONNECT_S
    live = ("--period", f"{period_s}s", "--seconds", f"{all_in_s + seconds}s", "--drain", "60s")
    quiet = ("--quiet", "--seconds", f"{all_in_s + SETTLE_S}s", "--tls-dir", str(papers))
    with rig.aggregator(folder, agents, f"{period_s}s") as server:
        joins_s = _enrolled(office, server, papers, agents)
    with rig.aggregator(folder, agents, f"{period_s}s") as server:
        ours = rig.turn(server, agents, *live, *_papers(office, papers), is_verified=False)
    with rig.bare(folder, office.identity) as server:
        bare = rig.turn(server, agents, *quiet, is_verified=False)
    with rig.aggregator(folder, agents, f"{period_s}s") as server:
        spans_s: list[float] = []
        extra = [f"load-{agents + number:05d}" for number in range(REVOKED_COUNT)]

        def cut_off() -> None:
            spans_s.extend(_cut_off(office, server.grpc, papers, site_id) for site_id in extra)

        still = (*quiet[:2], f"{all_in_s + SETTLE_S + 10 * REVOKED_COUNT}s", *quiet[3:])
        quiet_turn = rig.turn(server, agents, *still, is_verified=False, once_in=cut_off)
    return {
        "agents": agents,
        "joins_s": joins_s,
        "connected": ours.report["agents"]["connected_most"],
        **_memory(agents, bare, quiet_turn),
        **_handshakes(agents, bare, quiet_turn),
        "core_frac": (ours.cpu_all_in_s or 0.0) / (ours.last_s - (ours.all_in_s or ours.first_s)),
        "ack_p99_ms": ours.report["latency_ms"]["live"]["p99"],
        "cut_off_s": spans_s,
        "cut_off_most_s": max(spans_s, default=None),
        "cut_off_p50_s": statistics.median(spans_s) if spans_s else None,
        "generator": ours.report["own"],
        "whole": rig.whole(ours.report),
    }


def _papers(office: Office, papers: Path) -> Sequence[str]:
    operator = office.identity / "admin.pem"
    return ("--tls-dir", str(papers), "--verify", "--operator", str(operator))


def _enrolled(office: Office, server: rig.Server, papers: Path, agents: int) -> float:
    """Certificates a second, of all agents and some more; each runs once for a moment."""
    count = agents + REVOKED_COUNT
    uses = ("--uses", str(max(count, 2)), "--expires", "24h")
    token = office.said("token", "new", "--site-id", "load-*", *uses)
    command = rig.load(count, "--address", server.grpc, "--join", f"https://{server.http}")
    command += ["--token", token["token"], "--ca-hash", token["ca_hash"]]
    command += ["--tls-dir", str(papers), "--quiet", "--seconds", "1s", "--ramp", "60s"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(re.findall(r"joins_per_s=([\d.]+)", done.stderr)[-1])


def _memory(agents: int, bare: rig.Turn, ours: rig.Turn) -> dict[str, Any]:
    kb = {
        name: ((one.rss_all_in or 0) - one.rss_before) / agents / 1e3
        for name, one in (("bare", bare), ("ours", ours))
    }
    return {"kb_stream": kb, "memory_ratio": kb["ours"] / max(kb["bare"], 1e-9)}


def _handshakes(agents: int, bare: rig.Turn, ours: rig.Turn) -> dict[str, Any]:
    spent_s = {"bare": bare.cpu_connecting_s, "ours": ours.cpu_connecting_s}
    if not spent_s["bare"] or not spent_s["ours"]:
        return {"handshakes_core_s": None, "handshake_ratio": None}
    return {
        "handshakes_core_s": agents / spent_s["ours"],
        "handshakes_core_s_bare": agents / spent_s["bare"],
        "handshake_ratio": spent_s["ours"] / spent_s["bare"],
    }


def _cut_off(office: Office, address: str, papers: Path, site_id: str) -> float:
    """Time from the start of `site revoke` until the site's open stream has ended, s."""
    both, root = (papers / f"{site_id}.pem").read_bytes(), (papers / "ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(root, both, both)
    said: queue.Queue[bytes | None] = queue.Queue()
    site = pb.HelloSite(site_id=site_id)
    said.put(
        pb.TelemetryServiceStreamRequest(
            hello=pb.Hello(wire_version=1, agent_version="bench", sites=[site])
        ).SerializeToString()
    )
    with grpc.secure_channel(address, credentials) as channel:
        open_call: Any = channel.stream_stream(METHOD)
        heard: Iterator[bytes] = open_call(iter(said.get, None), timeout=CUT_OFF_S)
        next(heard)
        began_s = time.monotonic()
        office.said("site", "revoke", site_id, "--reason", "bench")
        try:
            for _ in heard:
                pass
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
        return time.monotonic() - began_s
