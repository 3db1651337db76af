"""`heatpool-agent calibrate`: what was learnt of hosts and loops: show, learn, take over, reset."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import click

from heatpool.errors import ConfigError
from heatpool_agent import calibrations
from heatpool_agent.assembly import SystemClock, state_dir
from heatpool_agent.calibrations import CALIBRATION, LEARNED, Shelf
from heatpool_agent.commands import span
from heatpool_agent.commands.calibrate_text import document, merged, text
from heatpool_agent.config import load
from heatpool_agent.core import calibration_trace
from heatpool_agent.core.calibrate import Calibration, Learner
from heatpool_agent.core.calibration_trace import Meter
from heatpool_agent.core.coefficients import LEAST_COUNT, Coefficients

EXIT_NOTHING = 4
# A clamp meter of class 2; its certificate knows better.
_METER_U_FRAC = 0.02


_config = click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")


@click.group("calibrate")
def command() -> None:
    """Show, learn, take over or reset what is known of this site's hosts and loops.

    The agent learns by itself as it runs beside a meter of power. A meter on loan, for a day
    or a week, teaches it for the time after: calibrate fit --reference SENSOR --for 1d
    """


@command.command("show")
@_config
@_json
def show(*, path: Path | None, as_json: bool) -> None:
    """Show all coefficients: date, lessons, doubt, range, expiry, error before and after."""
    folder = state_dir(load(path, os.environ), os.environ)
    told = [
        (name, one)
        for name in (CALIBRATION, LEARNED)
        if (folder / name).exists()
        for one in _own(folder / name).coefficients
    ]
    _print(document(told, SystemClock().event_ns()), as_json=as_json)


@command.command("fit")
@_config
@_json
@click.option("--reference", metavar="SENSOR", default="", help="The meter on loan, by its id.")
@click.option(
    "--for", "span_s", callback=span.span_s, default="1d", show_default=True, help="How long."
)
@click.option(
    "--trace",
    type=click.File("rb"),
    help="A log instead: power_w, and cpu_w, gpu_w, fan_rpm, busy_frac; time if it has one.",
)
@click.option("--host", default="", help="With --trace: the host, where it is not this machine.")
@click.option(
    "--cpus",
    type=click.IntRange(1, 4096),
    default=os.cpu_count() or 1,
    help="With --trace: logical CPUs of the host; by default this machine's.",
)
@click.option(
    "--meter-u",
    type=click.FloatRange(0.001, 0.2),
    default=_METER_U_FRAC,
    show_default=True,
    help="With --trace: standard uncertainty of the meter, as a fraction.",
)
def fit(
    *,
    path: Path | None,
    as_json: bool,
    reference: str,
    span_s: float,
    trace: BinaryIO | None,
    host: str,
    cpus: int,
    meter_u: float,
) -> None:
    """Learn beside a meter on loan; Ctrl-C ends it and keeps what was learnt.

    Reads every sensor of the settings, the meter among them, as long as --for says. A running
    agent takes over the result within a minute. Exit 4 if nothing could be learnt.
    """
    if trace is not None:
        if reference:
            raise click.UsageError("--reference reads sensors, --trace a log: give one of them")
        meter = Meter(host=host, logical_cpu_count=cpus, u_frac=meter_u)
        found, learners, reasons = _from_trace(trace, meter)
    else:
        found, learners, reasons = _live(path, reference, span_s)
    _kept(path, found, learners)
    now_ns = SystemClock().event_ns()
    told = document([(CALIBRATION, one) for one in found], now_ns, reasons=list(reasons))
    _print(told, as_json=as_json)
    if not found:
        for reason in reasons:
            click.echo(reason, err=True)
        sys.exit(EXIT_NOTHING)


@command.command("import")
@_config
@_json
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def import_(*, path: Path | None, as_json: bool, file: Path) -> None:
    """Take over coefficients that `calibrate show --json` printed, here or elsewhere."""
    found = calibrations.told(file).coefficients
    _kept(path, found, ())
    told = document([(CALIBRATION, one) for one in found], SystemClock().event_ns())
    _print(told, as_json=as_json)
    if not found:
        click.echo(f"{file}: holds no coefficients", err=True)
        sys.exit(EXIT_NOTHING)


@command.command("reset")
@_config
@_json
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(*, path: Path | None, as_json: bool, yes: bool) -> None:
    """Forget everything that was learnt; a running agent forgets it too, within a minute."""
    shelf = _shelf(path, is_guest=True)
    if not yes:
        click.confirm("Forget all coefficients of this site?", abort=True, err=True)
    gone = [str(one) for one in shelf.forget()]
    if as_json:
        _print({"schema": calibrations.SCHEMA, "removed": gone}, as_json=True)
    else:
        click.echo("\n".join(f"removed {one}" for one in gone) or "nothing was learnt")


def _own(path: Path) -> Calibration:
    """What a file of this site's own holds."""
    try:
        return calibrations.told(path)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            raise
        fix = "an agent sets it aside when it starts; `heatpool-agent calibrate reset` removes it"
        raise ConfigError([*error.mistakes[:-1], fix], file=error.file) from error


def _shelf(path: Path | None, *, is_guest: bool = False) -> Shelf:
    return Shelf(state_dir(load(path, os.environ), os.environ), is_guest=is_guest)


_Found = tuple[Sequence[Coefficients], Sequence[Learner], Sequence[str]]


def _live(path: Path | None, reference: str, span_s: float) -> _Found:
    from heatpool_agent.commands import calibrate_live

    config = load(path, os.environ)
    learners = Shelf(state_dir(config, os.environ)).calibration().learners
    taught = asyncio.run(
        calibrate_live.fit(
            config, reference=reference, span_s=span_s, learners=learners, tell=_teller()
        )
    )
    return taught.coefficients, taught.learners, taught.reasons


def _teller() -> Callable[[str], None]:
    return lambda line: click.echo(line, err=True)


def _from_trace(trace: BinaryIO, meter: Meter) -> _Found:
    name = getattr(trace, "name", "trace")
    try:
        log = calibration_trace.read(TextIOWrapper(trace, encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise ConfigError([str(error)], file=str(name)) from error
    found = calibration_trace.fitted(log, meter, now_ns=SystemClock().event_ns())
    usable = [one for one in found if one.count >= LEAST_COUNT]
    if "fan_rpm" in log.columns and usable:
        click.echo(
            "fan_rpm: no sensor of the agent shows it, so the agent cannot use what needs it; "
            "leave the column out",
            err=True,
        )
    return usable, (), () if usable else tuple(_trace_reasons(str(name), log))


def _trace_reasons(name: str, log: calibration_trace.Log) -> list[str]:
    moved = calibration_trace.moved_frac(log.values(calibration_trace.POWER))
    return [
        f"{name}: {len(log.rows)} rows of use, {log.left_out} left out; power_w moves by "
        f"{100 * moved:.0f} %. Needed are {LEAST_COUNT} rows, 10 s apart, and 10 %"
    ]


def _kept(path: Path | None, found: Sequence[Coefficients], learners: Sequence[Learner]) -> None:
    """Puts what is new beside what is there already."""
    if not found and not learners:
        return
    shelf = _shelf(path)
    before = shelf.calibration()
    keys = {(one.kind, one.subject, one.basis) for one in learners}
    others = (one for one in before.learners if (one.kind, one.subject, one.basis) not in keys)
    shelf.keep_calibration(
        Calibration(coefficients=merged(before.coefficients, found), learners=(*others, *learners)),
        saved_ns=SystemClock().event_ns(),
    )


def _print(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        json.dump(told, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        click.echo(text(told))
