"""`heatpool-sim trace`: a site's log without the wait, as CSV for `heatpool-agent estimate`.

What the sensors showed goes to `--out`, what really happened to `--truth` and nowhere else.
"""

import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import Any, TextIO

import click

from heatpool.errors import ConfigError
from heatpool_sim import scenario
from heatpool_sim.commands.spans import Planned, Span
from heatpool_sim.plant import faults, rows, site
from heatpool_sim.plant.control import Control
from heatpool_sim.plant.faults import Fault
from heatpool_sim.plant.meter import MeterState
from heatpool_sim.plant.rows import Row, Shown, Truth
from heatpool_sim.scenario import SiteSpec

SCHEMA = "heatpool.trace/1"
_NS = 10**9
_TOLD_EVERY_COUNT = 360  # rows between two moves of the progress bar
# As many as devices show and no more: a float's last digits are no part of a log.
_PLACES = {
    "power_w": 1,
    "volume_flow_m3_h": 5,
    "hot_c": 3,
    "cold_c": 3,
    "ambient_c": 2,
}
# Ten years: a week of the machine that makes them.
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
MOST_HOURS = 87_660.0
_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked for: a site, from when, how many rows, and what goes wrong."""

    spec: SiteSpec
    planned: tuple[Fault, ...]
    start_ns: int
    period_s: float
    count: int


def _finite(_: click.Context, __: click.Parameter, hours: float) -> float:
    if isnan(hours):
        raise click.BadParameter(f"nan is no span; give 0 to {MOST_HOURS:g} hours")
    return hours


@click.command("trace")
@click.option(
    "--fleet",
    metavar="FILE|NAME",
    required=True,
    help="Fleet TOML, or one of ours: demo, edge, faults.",
)
@click.option("--site", "site_id", metavar="ID", help="The site; needless where there is but one.")
@click.option(
    "--hours",
    type=click.FloatRange(0.0, MOST_HOURS, min_open=True),
    callback=_finite,
    default=24.0,
    show_default=True,
)
@click.option("--period", "period_s", type=Span(), default="10s", show_default=True)
@click.option("--start", default="2026-01-01T00:00:00Z", show_default=True, help="ISO time.")
@click.option("--seed", type=int, help="Other sites from the same nameplates; else the fleet's.")
@click.option(
    "--fault",
    "planned",
    type=Planned(),
    multiple=True,
    help="Plays a fault: its name, when, for how long (else to the end), how large. Repeatable.",
)
@click.option("--out", type=_FILE, required=True, help="CSV of what the sensors showed.")
@click.option("--truth", type=_FILE, help="CSV of what really happened.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line at the end.")
def command(
    *,
    fleet: str,
    site_id: str | None,
    hours: float,
    period_s: float,
    start: str,
    seed: int | None,
    planned: tuple[Fault, ...],
    out: Path,
    truth: Path | None,
    as_json: bool,
) -> None:
    """Write the log of a simulated site as CSV, much faster than it would take."""
    if truth is not None and truth.resolve() == out.resolve():
        raise click.UsageError("--truth must be another file than --out: no agent may see it")
    spec = _spec(scenario.load(fleet, seed=seed), site_id)
    job = Job(
        spec=spec,
        planned=_planned(spec, planned),
        start_ns=_start_ns(start),
        period_s=period_s,
        count=max(round(hours * 3600.0 / period_s), 1),
    )
    spent_s, residual_frac = _written(job, out, truth)
    summary = _summary(job, fleet=fleet, out=out, truth=truth)
    summary |= {"cpu_s": round(spent_s, 3), "balance_residual_frac": residual_frac}
    click.echo(json.dumps(summary) if as_json else _text(summary))


def _spec(fleet: scenario.Scenario, site_id: str | None) -> SiteSpec:
    known = {spec.site_id: spec for spec in fleet.sites}
    if site_id is None and len(known) == 1:
        return fleet.sites[0]
    if site_id not in known:
        told = "is missing" if site_id is None else f"is {site_id!r}"
        raise ConfigError([f"--site: {told}; this fleet has {', '.join(known)}"])
    return known[site_id]


def _planned(spec: SiteSpec, more: Sequence[Fault]) -> tuple[Fault, ...]:
    """The file's faults of the plant, then those of the command line; a log hears no speech."""
    named = tuple(replace(fault, site_id=spec.site_id) for fault in more)
    wrong = [mistake for fault in named for mistake in faults.mistakes(fault)]
    wrong += [
        f"fault {fault.id!r} is one of speech or happens to devices; a trace plays "
        f"{', '.join(sorted(faults.PLANT))}"
        for fault in named
        if fault.id in faults.ALL - faults.PLANT
    ]
    if wrong:
        raise ConfigError([f"--fault: {mistake}" for mistake in wrong])
    return (*(fault for fault in spec.faults if fault.id in faults.PLANT), *named)


def _start_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError([f"--start: {error}; write it as 2026-01-01T00:00:00Z"]) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        span = f"{_FIRST_YEAR} to {_LAST_YEAR}"
        raise ConfigError([f"--start: is {text}, must be of the years {span}"])
    return round(moment.timestamp()) * _NS


def _written(job: Job, out: Path, truth: Path | None) -> tuple[float, float]:
    """CPU seconds spent, and the worst share of a row's heat that went astray; files are written.

    Raises:
        OSError: a file cannot be written.
    """
    begun_s, worst_frac = time.process_time(), 0.0
    with ExitStack() as stack:
        shown = _table(stack.enter_context(_opened(out)), Shown)
        true = _table(stack.enter_context(_opened(truth)), Truth) if truth else None
        bar = stack.enter_context(
            click.progressbar(
                length=job.count,
                label=job.spec.site_id,
                file=sys.stderr,
                hidden=not sys.stderr.isatty(),
            )
        )
        for number, row in enumerate(_rows(job), start=1):
            at = _iso(row.at_ns)
            shown.writerow([at, *(round(getattr(row.shown, n), p) for n, p in _PLACES.items())])
            if true:
                true.writerow([at, *_cells(row.truth)])
            worst_frac = max(worst_frac, _residual_frac(row.truth))
            if number % _TOLD_EVERY_COUNT == 0 or number == job.count:
                bar.update(number - bar.pos)
    return time.process_time() - begun_s, worst_frac


def _opened(path: Path) -> TextIO:
    return path.open("w", newline="", encoding="utf-8")


def _table(file: TextIO, kind: type[Any]) -> Any:  # csv's writer has no public type
    writer = csv.writer(file)
    writer.writerow(["time", *(field.name for field in fields(kind))])
    return writer


def _rows(job: Job) -> Iterator[Row]:
    spec = job.spec
    first = site.steady(
        spec.plant,
        at_ns=job.start_ns,
        meter=spec.meter,
        metered=MeterState(register_wh=spec.register_wh, register_l=spec.register_l),
    )
    return rows.rows(
        spec.plant,
        replace(first, control=Control(mode=spec.mode)),
        spec.errors,
        planned=job.planned,
        period_s=job.period_s,
        count=job.count,
    )


def _cells(truth: Truth) -> list[object]:
    figures = [getattr(truth, field.name) for field in fields(truth) if field.name != "faults"]
    return [*(round(figure, 5) for figure in figures), " ".join(truth.faults)]


def _residual_frac(truth: Truth) -> float:
    astray_w = truth.liquid_w - truth.heat_rate_w - truth.lost_w - truth.stored_w
    return abs(astray_w) / max(abs(truth.liquid_w), 1.0)


def _iso(at_ns: int) -> str:
    """UTC with milliseconds where the period needs them."""
    moment = datetime.fromtimestamp(at_ns // _NS, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    rest_ms = at_ns % _NS // 10**6
    return f"{moment}.{rest_ms:03d}Z" if rest_ms else f"{moment}Z"


def _summary(job: Job, *, fleet: str, out: Path, truth: Path | None) -> dict[str, Any]:
    """What was written; nothing of the truth is told here."""
    length_s = job.count * job.period_s
    return {
        "schema": SCHEMA,
        "fleet": fleet,
        "site_id": job.spec.site_id,
        "cooling": job.spec.cooling,
        "rows": job.count,
        "period_s": job.period_s,
        "start_ns": job.start_ns,
        "end_ns": job.start_ns + round(length_s * _NS),
        "faults": [
            {
                "id": fault.id,
                "at_s": fault.at_s,
                "length_s": max(min(fault.length_s, length_s - fault.at_s), 0.0),
                "size": faults.size(fault),
                "pipe": fault.pipe if fault.id in faults.PIPED else None,
            }
            for fault in job.planned
        ],
        "out": str(out),
        "truth": None if truth is None else str(truth),
    }


def _text(summary: dict[str, Any]) -> str:
    names = ", ".join(fault["id"] for fault in summary["faults"]) or "none"
    return (
        f"{summary['out']}: {summary['rows']} rows of {summary['site_id']}, "
        f"{summary['period_s']:g} s each, faults: {names}; {summary['cpu_s']:.1f} s of CPU"
    )
