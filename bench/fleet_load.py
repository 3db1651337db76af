"""A fleet against one aggregator: memory a stream, storms, overload, a week to catch up on.

    make bench-fleet ARGS="--part storm --json"        # full size, one part
    python bench/fleet_load.py --scale 0.05            # small, in a few minutes

`streams`: agents that say hello and no more, memory beside a bare grpc.aio server that answers it;
then live ones, and what they cost. `tls`: the same over mTLS, each agent enrolled by one token of
a fleet, and how soon a revoked one is cut off. `storm`: all but a fifth lose their streams at once.
`overload`: ten times the rate for a while. `outage`: a week of history from each of many sites
while they also send live. Only ratios are figures; absolutes are for orientation (aggregator.md
12). In all of them nothing that was acked may be denied, nothing left behind, and the aggregator's
own sums must be those of the generator.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fleet_rig as rig
import fleet_tls
from fleet_rig import whole

PARTS = ("streams", "tls", "storm", "overload", "outage")
SETTLE_S = 5.0
STREAMS, STORM, OVERLOADED, OUTAGE_SITES = 10_000, 8_000, 2_000, 1_000
CONNECT_S = 0.003  # of a shared processor, both ends
# Of the overloaded in rest: a thousand messages a second of two thousand agents.
OVERLOAD_PERIOD_S, OVERLOAD_REST_S = 2.0, 20.0


def streams(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Memory of a stream beside one of a bare server, and what live agents cost."""
    agents = _scaled(STREAMS, asked)
    quiet = ("--quiet", "--seconds", f"{8.0 + agents * CONNECT_S:.1f}s")
    live = ("--period", f"{asked.period}s", "--seconds", f"{asked.seconds}s", "--drain", "30s")
    with rig.bare(folder) as server:
        bare = rig.turn(server, agents, *quiet, is_verified=False)
    with rig.aggregator(folder, agents, f"{asked.period}s") as server:
        quiet_turn = rig.turn(server, agents, *quiet)
    with rig.aggregator(folder, agents, f"{asked.period}s") as server:
        ours = rig.turn(server, agents, *live)
        rss_end = statistics.median(server.rss_between(ours.last_s - SETTLE_S, ours.last_s))
    kb = {
        name: ((one.rss_all_in or 0) - one.rss_before) / agents / 1e3
        for name, one in (("bare", bare), ("ours", quiet_turn))
    }
    wall_s = ours.last_s - (ours.all_in_s or ours.first_s)
    sent = ours.report["sent"]
    return {
        "agents": agents,
        "kb_stream": kb,
        "memory_ratio": kb["ours"] / max(kb["bare"], 1e-9),
        "kb_stream_live": (rss_end - ours.rss_before) / agents / 1e3,
        "core_frac": (ours.cpu_all_in_s or 0.0) / wall_s,
        "messages_s": (sent["batches"] + sent["register_batches"]) / ours.report["lasted_s"],
        "ack_p99_ms": ours.report["latency_ms"]["live"]["p99"],
        "generator": ours.report["own"],
        "whole": whole(ours.report),
    }


def storm(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Streams that are lost at once and come back at once."""
    hit = _scaled(STORM, asked)
    agents = hit + hit // 4
    at_s = 10.0 + agents * 0.0013
    options = (
        *("--period", f"{asked.period}s", "--seconds", f"{at_s + asked.seconds}s"),
        *("--storm", f"{hit}@{at_s:.1f}s"),
    )
    with rig.aggregator(folder, agents, f"{asked.period}s") as server:
        ours = rig.turn(server, agents, *options)
        rss_end = statistics.median(server.rss_between(ours.last_s - SETTLE_S, ours.last_s))
    found = ours.report["storms"][0]
    return {
        "agents": agents,
        "hit": hit,
        "back": found["back"],
        "back_all_s": found["back_all_s"],
        "back_p99_s": found["back_p99_s"],
        "refused_for_good": sum(ours.report["agents"]["refused_for_good"].values()),
        "ends": ours.report["ends"],
        "memory_after_ratio": (rss_end - ours.rss_before)
        / max((ours.rss_all_in or 0) - ours.rss_before, 1),
        "whole": whole(ours.report),
    }


def overload(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ten times the rate, then what was left behind."""
    agents = _scaled(OVERLOADED, asked)
    rest_s, burst_s = OVERLOAD_REST_S, asked.overload_seconds
    options = (
        *("--period", f"{OVERLOAD_PERIOD_S}s", "--seconds", f"{2 * rest_s + burst_s}s"),
        *("--burst", f"10@{rest_s}s:{burst_s}s", "--drain", "600s"),
    )
    with rig.aggregator(folder, agents, f"{OVERLOAD_PERIOD_S}s") as server:
        ours = rig.turn(server, agents, *options)
        is_alive = server.process.poll() is None
        begin_s = ours.first_s + rest_s
        before = max(server.rss_between(ours.first_s, begin_s))
        during = max(server.rss_between(begin_s, ours.last_s))
    return {
        "agents": agents,
        "burst_s": burst_s,
        "is_alive": is_alive,
        "memory_ratio": during / before,
        "rss_mb": {"before": before / 1e6, "most": during / 1e6},
        "messages": ours.report["sent"]["batches"],
        "told": ours.report["told"],
        "ack_p99_ms": ours.report["latency_ms"]["live"]["p99"],
        "drained_after_s": ours.report["lasted_s"] - 2 * rest_s - burst_s,
        "whole": whole(ours.report),
    }


def outage(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """How many times faster than it was made a history comes in, with live data beside it."""
    agents = _scaled(OUTAGE_SITES, asked)
    options = (
        *("--period", f"{asked.period}s", "--seconds", f"{asked.outage_seconds}s"),
        *("--backlog", f"{asked.days}d", "--drain", "1800s"),
    )
    with rig.aggregator(folder, agents, f"{asked.period}s") as server:
        ours = rig.turn(server, agents, *options)
        most = max(server.rss_between(ours.first_s, ours.last_s))
    report = ours.report
    return {
        "agents": agents,
        "days": asked.days,
        **{name: report["backlog"][name] for name in ("drain_all_s", "times_real", "open")},
        "live_p99_ms": report["latency_ms"]["live_while_backlog"]["p99"],
        "live_counted": report["latency_ms"]["live_while_backlog"]["count"],
        "rows": report["sent"]["rows"],
        "bytes_per_value": report["bytes_per_value"],
        "told": report["told"],
        "generator": report["own"],
        "rss_most_mb": most / 1e6,
        "applied_after_s": (report["witness"] or {}).get("waited_s"),
        "whole": whole(report),
    }


def tls(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """As `streams`, with a certificate of its own for each agent; and how soon one is cut off."""
    return fleet_tls.tls(folder, _scaled(STREAMS, asked), asked.period, asked.seconds)


def _scaled(count: int, asked: argparse.Namespace) -> int:
    return max(20, round(count * float(asked.scale)))


# part, figure, what it is called, aim
ROWS = (
    ("streams", "memory_ratio", "memory of a stream / bare one", "<= 1.25"),
    ("streams", "core_frac", "share of a core, live", ""),
    ("streams", "messages_s", "messages a second", ""),
    ("streams", "ack_p99_ms", "ack p99, ms", ""),
    ("tls", "joins_s", "certificates a second", ""),
    ("tls", "connected", "connected over mTLS", "all"),
    ("tls", "memory_ratio", "memory of a stream / bare TLS one", "<= 1.25"),
    ("tls", "handshakes_core_s", "handshakes and hellos a second of a core", ""),
    ("tls", "handshake_ratio", "CPU of one / bare TLS one", ""),
    ("tls", "core_frac", "share of a core, live", ""),
    ("tls", "ack_p99_ms", "ack p99, ms", ""),
    ("tls", "cut_off_most_s", "s from `site revoke` to the end, most", "<= 60"),
    ("storm", "back_all_s", "s until all are back", "<= 120 of 40,000"),
    ("storm", "refused_for_good", "refused for good", "0"),
    ("storm", "memory_after_ratio", "memory of a stream after / before", "<= 1.6"),
    ("overload", "memory_ratio", "memory, most / before", "<= 2"),
    ("overload", "drained_after_s", "s until drained", ""),
    ("outage", "times_real", "times as fast as it was made", ">= 48"),
    ("outage", "live_p99_ms", "live ack p99 meanwhile, ms", "<= 1000"),
    ("outage", "bytes_per_value", "bytes a value", "<= 1.1"),
)


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = []
    for part, name, told, aim in ROWS:
        if part in found:
            value = found[part][name]
            shown = "-" if value is None else f"{value:,.3f}"
            lines.append(f"{part:<10}{told:<40}{shown:>14}  {aim}")
    lines += [f"{part:<10}{one['whole']}" for part, one in found.items()]
    return "\n".join(lines) + "\n"


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="one or more; else all")
    parser.add_argument("--scale", type=float, default=0.02, help="of the full number of agents")
    parser.add_argument("--period", type=float, default=10.0, help="of live messages, s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of live sending")
    parser.add_argument("--overload-seconds", type=float, default=10.0, help="of the overload")
    parser.add_argument("--outage-seconds", type=float, default=20.0, help="then it is drained")
    parser.add_argument("--days", type=float, default=1.0, help="of the outage")
    parser.add_argument("--directory", help="where the log lies, a folder on a real disk")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare-identity", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve-bare", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Runs the parts, or the bare server."""
    asked = parsed()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if asked.serve_bare:
        asyncio.run(rig.serve_bare(asked.serve_bare, asked.bare_identity))
        return
    every: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
        "streams": streams,
        "tls": tls,
        "storm": storm,
        "overload": overload,
        "outage": outage,
    }
    found = {}
    for part in asked.part or PARTS:
        with tempfile.TemporaryDirectory(dir=asked.directory) as text:
            found[part] = every[part](asked, Path(text))
        sys.stderr.write(f"{part}: {json.dumps(found[part])}\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if asked.json else table(found))


if __name__ == "__main__":
    main()
