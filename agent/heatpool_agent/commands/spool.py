"""`heatpool-agent spool`: what waits on this disk, what was lost, and how a backlog drains."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from heatpool.sample import SpoolKind
from heatpool_agent.assembly import SystemClock, inhabited_dir
from heatpool_agent.commands.spool_text import lines
from heatpool_agent.config import Config, load
from heatpool_agent.doctor import beside
from heatpool_agent.doctor.place import is_agent_running
from heatpool_agent.ports import QueueStat
from heatpool_agent.spool.reserve import Reserve, free_bytes
from heatpool_agent.spool.state import look

SCHEMA = "heatpool.spool/1"
_NS = 1_000_000_000


@click.group("spool")
def command() -> None:
    """Look at the queue on this disk."""


@command.command("stat")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
def stat(*, path: Path | None, as_json: bool) -> None:
    """Say what waits, what was lost and how much room is left; changes nothing.

    May run beside the agent, which is asked how far a backlog has come.
    """
    config = load(path, os.environ)
    folder = inhabited_dir(config, os.environ)
    found = document(config, folder, now_ns=SystemClock().event_ns())
    if as_json:
        json.dump(found, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        click.echo("\n".join(lines(found)))


def document(config: Config, folder: Path, *, now_ns: int) -> dict[str, Any]:
    """Both queues as one JSON document.

    Raises:
        StoreError: a file cannot be read.
    """
    seen = [(kind, look(folder, kind)) for kind in SpoolKind]
    queues = [_queue(kind, found, now_ns) for kind, found in seen if found is not None]
    is_running = is_agent_running(folder)
    return {
        "schema": SCHEMA,
        "folder": str(folder),
        "is_running": is_running,
        "room": _room(config, folder, queues),
        "queues": queues,
        "line": _line(config) if is_running else None,
    }


def _queue(kind: SpoolKind, found: QueueStat, now_ns: int) -> dict[str, Any]:
    mark, start_ns = found.mark, found.backlog_start_ns
    return {
        "kind": kind.name.lower(),
        "boot_id": mark.boot_id,
        "first_seq": mark.first_seq,
        "next_seq": mark.next_seq,
        "durable_seq": mark.durable_seq,
        "frames_count": found.frames_count,
        "size_bytes": found.size_bytes,
        "backlog": {
            "frames_count": found.backlog_frames_count,
            "rows_count": found.backlog_rows_count,
            "size_bytes": found.backlog_bytes,
            "start_ns": start_ns,
            "age_s": None if start_ns is None else (now_ns - start_ns) / _NS,
        },
        "lost": {reason.name.lower(): count for reason, count in found.lost_frames_count.items()},
        "untold_count": found.untold_count,
        "rows_by_step_s": {str(step): count for step, count in found.rows_by_step_s.items()},
    }


def _room(config: Config, folder: Path, queues: list[dict[str, Any]]) -> dict[str, Any]:
    held = sum(queue["size_bytes"] for queue in queues if queue["kind"] == "telemetry")
    return {
        "max_bytes": config.spool.max_bytes,
        "left_bytes": max(0, config.spool.max_bytes - held),
        "disk_free_bytes": free_bytes(folder) if folder.exists() else None,
        "is_reserve_held": Reserve(folder).is_held,
    }


def _line(config: Config) -> Mapping[str, Any] | None:
    """What the running agent says of its line; None: it cannot be asked."""
    line = beside.uplink(config.http.listen)
    return None if line is None else dict(_known(line))


def _known(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("state", "detail", "next_try_s", "next_try_ns", "backlog"):
        yield name, line.get(name)
