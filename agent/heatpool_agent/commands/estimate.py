"""`heatpool-agent estimate`: heat with its doubt from a recorded trace; no agent, no device."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, get_args

import click

from heatpool.errors import ConfigError
from heatpool.water import FLUIDS
from heatpool_agent.commands import estimate_plot, estimate_text, whole_file
from heatpool_agent.config import Loop, loop_model, loop_priors
from heatpool_agent.core import trace as traces
from heatpool_agent.core import trace_document as document
from heatpool_agent.core import trace_time
from heatpool_agent.core.trace import Trace
from heatpool_agent.core.trace_check import Check, Fit, fitted
from heatpool_agent.core.trace_columns import REFERENCE, Mapped, mapped
from heatpool_agent.core.trace_curve import Curve
from heatpool_agent.core.trace_estimate import Row, TraceEstimate
from heatpool_agent.core.trace_inputs import Asked, Inputs, inputs

EXIT_NOTHING = 4
Cooling = Literal["dlc", "dlc_full", "immersion", "air_coil", "air"]
Side = Literal["hot", "cold", "unknown"]
# Enough to tell the encoding: a longer line is cut and cannot be read.
_LOOK_BYTES = 65_536
_LINE_CHARACTERS = 65_536
_TOLD_EVERY_COUNT = 2_000
_UNITS_S = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+)\s*([a-z]*)")
# Finer than the estimator's own steps there is nothing to tell.
_LEAST_PERIOD_S = 10


class Grid(click.ParamType[int]):
    """Whole seconds of a period, as `900`, `15min`, `1h` or `1d`."""

    name = "span"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The period, s."""
        match = _SPAN.fullmatch(str(value).strip())
        if match is None or match[2] not in _UNITS_S:
            self.fail(f"{value!r} is no period; write it as 15min, 1h or 1d", param, ctx)
        period_s = int(match[1]) * _UNITS_S[match[2]]
        if not _LEAST_PERIOD_S <= period_s <= 366 * 86_400:
            self.fail(f"{value!r} is not from 10s to 366d", param, ctx)
        return period_s


class Instant(click.ParamType[int]):
    """A moment as the trace writes it: ISO 8601, or seconds."""

    name = "time"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The moment, ns since 1970."""
        kind = trace_time.time_kind([str(value)])
        found = None if kind is None else trace_time.event_ns(str(value), kind)
        return self.fail(f"{value!r} is no time", param, ctx) if found is None else found[0]


class NamedColumn(click.ParamType[Mapped]):
    """A column under another name, as `it_w=IT_kW*1000`."""

    name = "name=Header*factor"

    def convert(
        self, value: str | Mapped, param: click.Parameter | None, ctx: click.Context | None
    ) -> Mapped:
        """What it says."""
        if isinstance(value, Mapped):
            return value
        try:
            return mapped(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked for."""

    name: str
    asked: Asked
    period_s: int
    mapping: tuple[Mapped, ...]
    fit_until_ns: int | None
    plot: Path | None
    rows_file: Path | None
    as_json: bool


@click.command("estimate")
@click.argument("file", metavar="TRACE.csv", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a summary.")
@click.option(
    "--period",
    "period_s",
    type=Grid(),
    default="1h",
    show_default=True,
    help="Energies on the UTC grid of this length.",
)
@click.option("--fluid", type=click.Choice(list(FLUIDS)), default="water", show_default=True)
@click.option(
    "--cooling",
    type=click.Choice(get_args(Cooling)),
    help="The share in this coolant; without it, all heat that leaves the IT.",
)
@click.option(
    "--sensor-side",
    type=click.Choice(get_args(Side)),
    default="unknown",
    show_default=True,
    help="The pipe with the flow sensor.",
)
@click.option(
    "--column",
    "mapping",
    type=NamedColumn(),
    multiple=True,
    help="Another header for a column; *, / and then + or - a number. Repeatable.",
)
@click.option(
    "--fit-until",
    "fit_until_ns",
    type=Instant(),
    help="Learns from heat_rate_w before this time, and checks against it after.",
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="A .png or .svg.")
@click.option(
    "--rows", "rows_file", type=click.Path(path_type=Path, dir_okay=False), help="Every row as CSV."
)
def command(
    *,
    file: BinaryIO,
    as_json: bool,
    period_s: int,
    fluid: str,
    cooling: Cooling | None,
    sensor_side: Side,
    mapping: tuple[Mapped, ...],
    fit_until_ns: int | None,
    plot: Path | None,
    rows_file: Path | None,
) -> None:  # fmt: skip
    """Heat with its doubt from a log of power, or of flow and temperatures, or of both.

    Columns by name and unit: time, power_w, it_w, facility_w, cpu_w, gpu_w, volume_flow_m3_h,
    hot_c, cold_c, ambient_c, heat_rate_w (another meter, to compare with). Exit 4 if the file
    gives nothing usable; the document still says why.
    """
    if plot is not None:
        estimate_plot.check(plot)
    if rows_file is not None and not rows_file.parent.is_dir():
        raise ConfigError([f"--rows: {rows_file.parent} is no folder"])
    names = [one.name for one in mapping]
    if twice := {name for name in names if names.count(name) > 1}:
        raise click.UsageError(f"--column: {', '.join(sorted(twice))} is named twice")
    asked = asked_of(fluid=fluid, cooling=cooling, sensor_side=sensor_side)
    job = Job(
        name=getattr(file, "name", "-"),
        asked=asked,
        period_s=period_s,
        mapping=mapping,
        fit_until_ns=fit_until_ns,
        plot=plot,
        rows_file=rows_file,
        as_json=as_json,
    )
    if not _estimated(job, _read(file, job)):
        sys.exit(EXIT_NOTHING)


def asked_of(*, fluid: str, cooling: Cooling | None, sensor_side: Side) -> Asked:
    """What is assumed of such a loop, as an agent would that has it in its settings."""
    loop = Loop(id="trace", fluid=fluid, cooling=cooling or "air", sensor_side=sensor_side)
    priors, _ = loop_priors(loop.cooling)
    return Asked(priors=priors, model=loop_model(loop), cooling=cooling)


def _read(file: BinaryIO, job: Job) -> Trace:
    """The trace; a column that is not there is a mistake on the command line."""
    try:
        return traces.read(_lines(file), job.mapping, fluid=job.asked.model.fluid)
    except ValueError as error:
        raise ConfigError([f"{job.name}: {error}"]) from error


def _lines(file: BinaryIO) -> Iterator[str]:
    """Lines of bounded length in the file's own encoding; what cannot be decoded stands out."""
    look = file.peek(_LOOK_BYTES)[:_LOOK_BYTES] if hasattr(file, "peek") else b""
    text = TextIOWrapper(file, encoding=traces.encoding(look), errors="replace", newline=None)
    while line := text.readline(_LINE_CHARACTERS):
        yield line


def _estimated(job: Job, trace: Trace) -> bool:
    """Whether there is heat; the document is printed."""
    found = inputs(trace, job.asked) if trace.reason is None else None
    told = document.inputs_told(trace, found, job.asked, name=job.name, period_s=job.period_s)
    if found is None or found.reason is not None:
        _print_nothing(job, trace, told)
        return False
    fit = None
    if job.fit_until_ns is not None:
        found, fit = _fit(trace, found, job.fit_until_ns)
    return _run(job, trace, found, fit)


def _fit(trace: Trace, found: Inputs, until_ns: int) -> tuple[Inputs, Fit]:
    if REFERENCE not in trace.values:
        raise ConfigError([f"--fit-until: there is no column {REFERENCE} to learn from"])
    return fitted(trace, found, until_ns=until_ns)


def _print_nothing(job: Job, trace: Trace, told: dict[str, Any]) -> None:
    if not job.as_json:
        click.echo(f"{job.name}: nothing usable: {told['reason']}")
        return
    found = {
        "schema": document.SCHEMA,
        "inputs": told,
        "method": None,
        "capture": None,
        "rows": [],
        "total": None,
        "periods": [],
        "flags": document.flags_told(trace, None, None),
        "faults": [],
        "check": None,
    }
    click.echo(json.dumps(found, indent=1))


def _run(job: Job, trace: Trace, found: Inputs, fit: Fit | None) -> bool:
    done = TraceEstimate(trace, found, period_s=job.period_s)
    check = Check(trace, from_ns=job.fit_until_ns) if REFERENCE in trace.values else None
    curve = Curve(len(trace)) if job.plot else None
    told = document.inputs_told(trace, found, job.asked, name=job.name, period_s=job.period_s)
    with ExitStack() as stack:
        takers = _takers(job, stack, told)
        bar = stack.enter_context(
            click.progressbar(
                length=len(trace), label=job.name, file=sys.stderr, hidden=not sys.stderr.isatty()
            )
        )
        for index, row in enumerate(done.rows()):
            if check is not None:
                check.add(index, row.event_ns, row.heat)
            if curve is not None:
                curve.add(row)
            for take in takers:
                take(row)
            if (index + 1) % _TOLD_EVERY_COUNT == 0:
                bar.update(_TOLD_EVERY_COUNT)
    rest = {
        "method": done.method,
        "capture": None if done.capture is None else asdict(done.capture),
        "total": document.span_told(done.total),
        "periods": [document.span_told(span) for span in done.periods],
        "flags": document.flags_told(trace, found, done.total),
        "faults": [document.fault_told(fault) for fault in done.faults],
        "check": document.check_told(check, fit),
    }
    if job.as_json:
        _print_rest(rest)
    else:
        click.echo("\n".join(estimate_text.told(told, rest)))
    if job.plot is not None and curve is not None:
        estimate_plot.draw(job.plot, curve, rest, title=Path(job.name).name)
    return done.has_heat


def _takers(job: Job, stack: ExitStack, told: dict[str, Any]) -> list[Callable[[Row], None]]:
    """Who wants each row as it comes: so many are not kept."""
    takers: list[Callable[[Row], None]] = []
    if job.rows_file is not None:
        out = stack.enter_context(whole_file.written(job.rows_file))
        takers.append(_csv_rows(out, job.rows_file))
    if job.as_json:
        takers.append(_json_rows(sys.stdout, told))
    return takers


def _json_rows(out: TextIO, told: dict[str, Any]) -> Callable[[Row], None]:
    """Begins the document; rows follow one by one, and `_print_rest` ends it."""
    head = json.dumps({"schema": document.SCHEMA, "inputs": told}, indent=1)
    out.write(f'{head.removesuffix("}").rstrip()},\n "rows": [')
    encode = json.JSONEncoder(check_circular=False).encode
    lead = "\n  "

    def take(row: Row) -> None:
        nonlocal lead
        out.write(lead + encode(document.row_told(row)))
        lead = ",\n  "

    return take


def _print_rest(rest: dict[str, Any]) -> None:
    text = json.dumps(rest, indent=1)
    sys.stdout.write(f"\n ],{text.removeprefix('{')}\n")


def _csv_rows(out: TextIO, path: Path) -> Callable[[Row], None]:
    writer = csv.writer(out)
    is_begun = False

    def take(row: Row) -> None:
        nonlocal is_begun
        told = document.row_told(row)
        try:
            if not is_begun:
                writer.writerow(told)
                is_begun = True
            writer.writerow([*list(told.values())[:-1], " ".join(told["flags"])])
        except OSError as error:
            raise whole_file.refused(path, error) from error

    return take
