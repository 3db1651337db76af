"""`heatpool-agent sources`: which kinds of sensor there are, and how those in use fare now."""

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from heatpool.sample import QualityClass
from heatpool_agent import sensors
from heatpool_agent.assembly import SystemClock
from heatpool_agent.commands.waiting import told_waiting
from heatpool_agent.config import Config, load
from heatpool_agent.core.attribution import INPUTS
from heatpool_agent.core.marks import words
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.looks import ONE_SHOT_S, Look, Seen, look_at_all

SCHEMA = "heatpool.sources/1"
_NS = 1_000_000_000
# What each kind is for, and what it needs from the machine or from people.
NEEDS: Mapping[str, tuple[str, str]] = {
    "rapl": ("energy of CPU and memory", "group read on energy_uj, or CAP_PERFMON"),
    "hwmon": ("rails, supplies, AMD GPUs, temperatures", "nothing; the chips' kernel drivers"),
    "nvml": ("energy of NVIDIA GPUs", "NVIDIA's driver; access to /dev/nvidia*"),
    "host": ("load, from which power is modelled", "nothing"),
    "ipmi": ("power of a server by its BMC", "/dev/ipmi0, or url, user and password_file"),
    "redfish": ("BMCs, power shelves, cooling units", "url, and mostly user and password_file"),
    "modbus": ("cooling units, meters, heat pumps", "url and map; serial lines: group dialout"),
    "mbus": ("heat meters", "url and address; serial lines: group dialout"),
    "mqtt": ("whatever a broker passes on", "url and a [[sensor.point]] per topic"),
    "replay": ("a recording, as a sensor", "dir: made by heatpool-agent record"),
}


@click.command("sources")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def command(*, path: Path | None, as_json: bool) -> None:
    """List kinds of sensor, and read those in use: age, quality, cost, and what mends them."""
    config = load(path, os.environ)
    found = document(config, asyncio.run(_seen(config)))
    if as_json:
        json.dump(found, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        click.echo("\n".join(table(found)))


async def _seen(config: Config) -> Seen:
    waited: set[str] = set()
    with told_waiting(waited):
        return await look_at_all(config, SystemClock(), most_s=ONE_SHOT_S, waited=waited)


def document(config: Config, seen: Seen) -> dict[str, Any]:
    """All sources as one JSON document."""
    states = {look.kind: look.state for look in seen.looks}
    used = {look.kind for look in seen.looks}
    known = (*sensors.OWN, sensors.PLAYED)
    kinds = [*known, *sorted(used - set(known))]
    judged: dict[str, list[Reading]] = {}
    for reading in seen.board.judged:
        judged.setdefault(reading.sensor, []).append(reading)
    return {
        "schema": SCHEMA,
        "kinds": [_kind(kind, states.get(kind, "not used")) for kind in kinds],
        "sensors": [_sensor(look, judged.get(look.id, ()), seen.at_ns) for look in seen.looks],
    }


def _kind(kind: str, state: str) -> dict[str, str]:
    measures, needs = NEEDS.get(kind, ("a driver of another package", "see its manual"))
    return {"kind": kind, "state": state, "measures": measures, "needs": needs}


def _sensor(look: Look, judged: Sequence[Reading], at_ns: int) -> dict[str, Any]:
    newest_ns = max((reading.event_ns for reading in judged), default=None)
    quality = quality_class(look, judged)
    cost_s = look.read_s if look.read_s is not None else look.first_s
    return {
        "id": look.id,
        "kind": look.kind,
        "state": look.state,
        "detail": look.detail,
        "fix": look.fix,
        "readings_count": len(judged),
        "age_s": None if newest_ns is None else round(max(0, at_ns - newest_ns) / _NS, 3),
        "quality_class": quality.name if quality else None,
        "flags": sorted({flag for reading in judged for flag in reading.flags}),
        # Connecting is paid once, so a second read tells the cost of every further one.
        "read_s": None if cost_s is None else round(cost_s, 6),
        "is_first_read": look.read_s is None,
    }


def quality_class(look: Look, readings: Iterable[Reading]) -> QualityClass | None:
    """The best class that a figure from this sensor alone could have; None without readings."""
    found = [_class_of(reading.node, is_billing=look.is_billing) for reading in readings]
    return min(found, default=None)


def _class_of(node: Node, *, is_billing: bool) -> QualityClass:
    if node is Node.HEAT_METER and is_billing:
        return QualityClass.A
    if node in (*INPUTS, Node.HEAT_METER, Node.CDU):
        return QualityClass.B
    if node is Node.PSU_OUT:
        return QualityClass.C
    return QualityClass.E if node is Node.HOST else QualityClass.D


def table(found: Mapping[str, Any]) -> Iterable[str]:
    """The sources as text for people."""
    head = ("sensor", "kind", "state", "age", "class", "read", "readings")
    yield from _rows(head, [_row(sensor) for sensor in found["sensors"]])
    for sensor in found["sensors"]:
        yield from _remarks(sensor)
    yield ""
    yield from _rows(
        ("kind", "state", "measures", "needs"),
        [
            tuple(kind[key] for key in ("kind", "state", "measures", "needs"))
            for kind in found["kinds"]
        ],
    )


def _row(sensor: Mapping[str, Any]) -> Sequence[str]:
    age_s, read_s = sensor["age_s"], sensor["read_s"]
    return (
        sensor["id"],
        sensor["kind"],
        sensor["state"],
        "" if age_s is None else f"{age_s:.1f} s",
        sensor["quality_class"] or "",
        "" if read_s is None else f"{1000 * read_s:.1f} ms",
        str(sensor["readings_count"] or ""),
    )


def _remarks(sensor: Mapping[str, Any]) -> Iterable[str]:
    if sensor["state"] in ("gone", "busy") or sensor["fix"]:
        yield f"  {sensor['id']}: {sensor['detail']}"
    if sensor["fix"]:
        yield f"    fix: {sensor['fix']}"
    if sensor["flags"]:
        yield f"  {sensor['id']}: marked"
        yield from (f"    {flag}: {words(flag)}" for flag in sensor["flags"])


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    every = [head, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    for row in every:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
