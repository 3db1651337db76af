"""CPU per message of durable ingest beside a bare grpc.aio echo of the same bytes.

    make bench-ingest ARGS="--streams 2000 --rate 4000 --rows 6 --seconds 10 --pairs 3 --json"

Aggregator, echoes and senders are processes of their own; the servers take turns, so that what else
the machine does meets all of them. The aggregator does all of its work: log, decode, live state,
history, page. Only the ratios are figures; absolutes are for orientation (aggregator.md 12).

There are two echoes (bench/ingest_echo.py). The bare one is what a ratio is asked of. The tuned one
has all that the aggregator asks of gRPC, and short answers: beside it no setting of gRPC counts.
Times of an ack are taken at a pace that loads the aggregator to `--core-frac` of a core; the bare
echo at the same pace tells how much of them is the machine, the senders and gRPC.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingest_rig import NAMES, Turn, address_of, cores_count, started, turn

COMMIT_MS = 50.0
BUSY_CORES = 0.15  # of others: beyond it, times are of the machine and not of the server
MORE_MOST = 1.5  # the more there is at once, the less a message costs

Pair = dict[str, Turn]


def measured(asked: argparse.Namespace) -> tuple[list[Pair], list[Pair]]:
    """Turns of all servers at the pace that was asked for, and of two at a part of a core."""
    with tempfile.TemporaryDirectory(dir=asked.directory) as text:
        folder, servers = Path(text), {}
        try:
            for name in NAMES:
                servers[name] = started(name, folder, asked.streams)

            def taken(name: str, rate: float) -> Turn:
                given = argparse.Namespace(**vars(asked) | {"rate": rate})
                found = turn(name, address_of(name, folder), servers[name].pid, given)
                sys.stderr.write(f"{name} at {rate:.0f}/s: {found}\n")
                return found

            pairs = [{name: taken(name, asked.rate) for name in NAMES} for _ in range(asked.pairs)]
            return pairs, loaded(asked, taken, pairs) if asked.core_frac else []
        finally:
            for server in servers.values():
                server.kill()
                server.wait()


def loaded(
    asked: argparse.Namespace, taken: Callable[[str, float], Turn], pairs: Sequence[Pair]
) -> list[Pair]:
    """Turns at the pace that takes a part of a core: guessed, tried, and then held."""
    rate = asked.core_frac / statistics.median(pair["ours"].cpu_us for pair in pairs) * 1e6
    # On a machine that keeps the servers waiting a pace that would load them is not to be had.
    rate *= min(MORE_MOST, asked.core_frac / taken("ours", rate).core_frac)
    return [{name: taken(name, rate) for name in ("echo", "ours")} for _ in range(asked.pairs)]


# Report


def median(pairs: Sequence[Pair], name: str, field: str) -> float:
    """Of one server over all pairs; NaN without any."""
    return float(
        statistics.median([getattr(pair[name], field) for pair in pairs] or [float("nan")])
    )


def ratio(pairs: Sequence[Pair], name: str) -> list[float]:
    """CPU a message of ours over another's, pair by pair."""
    return [pair["ours"].cpu_us / pair[name].cpu_us for pair in pairs]


def report(pairs: list[Pair], held: list[Pair]) -> dict[str, Any]:
    """Medians over the pairs; each ratio is of one pair. `held` are those at a part of a core."""
    # Memory of the first pair alone: what a storm leaves behind is in the later ones.
    first = pairs[0]
    turns = [one for pair in (*pairs, *held) for one in pair.values()]
    return {
        "cpu_ratio": statistics.median(ratio(pairs, "echo")),
        "cpu_ratios": ratio(pairs, "echo"),
        "cpu_ratio_tuned": statistics.median(ratio(pairs, "tuned")),
        "cpu_us": {name: median(pairs, name, "cpu_us") for name in NAMES},
        "core_frac": {name: median(pairs, name, "core_frac") for name in NAMES},
        "values_core_s": median(pairs, "ours", "values_core_s"),
        "held_core_frac": median(held, "ours", "core_frac"),
        "ack_p50_commits": median(held or pairs, "ours", "p50_ms") / COMMIT_MS,
        "ack_p99_commits": median(held or pairs, "ours", "p99_ms") / COMMIT_MS,
        "echo_p99_commits": median(held or pairs, "echo", "p99_ms") / COMMIT_MS,
        "wire_bytes_value": first["ours"].wire_bytes_value,
        "rss_stream_kb": {name: first[name].rss_stream_kb for name in NAMES},
        "rss_ratio": first["ours"].rss_stream_kb / max(first["echo"].rss_stream_kb, 1e-9),
        "left": sum(pair["ours"].left for pair in (*pairs, *held)),
        "others_cores": max(one.others_cores for one in turns),
        "cores": cores_count(),
        "turns": [{name: asdict(one) for name, one in pair.items()} for pair in pairs],
        "held_turns": [{name: asdict(one) for name, one in pair.items()} for pair in held],
    }


ROWS = (
    ("CPU a message, durable ingest / bare echo", "cpu_ratio", "<= 1.15"),
    ("the same / echo with our settings of gRPC", "cpu_ratio_tuned", ""),
    ("values per core-second", "values_core_s", ">= 0.6 M at 6 rows, 5 M at 60"),
    ("part of a core while acks are timed", "held_core_frac", "0.7"),
    ("ack p50 / commit interval", "ack_p50_commits", ""),
    ("ack p99 / commit interval", "ack_p99_commits", "<= 2.5 at 70 % of a core"),
    ("p99 of the bare echo / commit interval", "echo_p99_commits", "is in the ack's as well"),
    ("bytes on the wire a value", "wire_bytes_value", "<= 2.0 at 6 rows, 1.1 at 60"),
    ("memory of a stream / empty one", "rss_ratio", "<= 1.25"),
    ("sent and not acked 3 s later", "left", "0"),
    ("cores that others used, worst turn", "others_cores", ""),
)


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{told:<44}{found[name]:>14,.3f}  {aim}" for told, name, aim in ROWS]
    for told, name in (("us a message", "cpu_us"), ("kB a stream", "rss_stream_kb")):
        figures = "".join(f"{found[name][server]:>8.1f}" for server in NAMES)
        lines.append(f"{f'{told}: echo, tuned, ours':<44}{figures}")
    lines.append(verdict(found))
    return "\n".join(lines) + "\n"


def verdict(found: dict[str, Any]) -> str:
    """Whether the figures are the server's, or those of a machine that had other things to do."""
    others, cores = found["others_cores"], found["cores"]
    if others > BUSY_CORES:
        return (
            f"THE MACHINE WAS BUSY: others used up to {others:.2f} of its {cores} cores. Ratios "
            "hold within their pair; times of acks and values per core do not: run it again alone"
        )
    return f"the machine was quiet: others used {others:.2f} of its {cores} cores at the most"


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=2_000.0, help="messages per second in all")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--core-frac", type=float, default=0.7, help="load while acks are timed; 0: no such turns"
    )
    parser.add_argument("--directory", help="where the log lies, a folder on a real disk")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Runs the bench."""
    asked = parsed()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    found = report(*measured(asked))
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if asked.json else table(found))


if __name__ == "__main__":
    main()
