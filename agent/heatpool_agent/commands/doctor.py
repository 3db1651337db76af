"""`heatpool-agent doctor`: what on this site works, what does not, and what mends it."""

import asyncio
import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from heatpool_agent.assembly import SystemClock, inhabited_dir
from heatpool_agent.config import load
from heatpool_agent.doctor.examine import Report, examine
from heatpool_agent.doctor.place import Place
from heatpool_agent.doctor.verdict import Status, Verdict

SCHEMA = "heatpool.doctor/1"
EXIT_FAIL = 1
_MOST_COLUMNS = 100
_LABEL_WIDTH = 6
_COLOURS = {
    Status.OK: "green",
    Status.WARN: "yellow",
    Status.FAIL: "red",
    Status.SKIP: "bright_black",
}


@click.command("doctor")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
def command(*, path: Path | None, as_json: bool) -> None:
    """Check this machine, its sensors and its settings; exit 1 if something fails.

    Each finding says what mends it. Nothing is written, no sleeping card is woken.
    """
    config = load(path, os.environ)
    folder = inhabited_dir(config, os.environ)
    place = Place(config=config, path=path, environ=os.environ, folder=folder, clock=SystemClock())
    report = asyncio.run(examine(place, _progress if sys.stderr.isatty() else lambda _: None))
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        json.dump(document(report), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        columns = min(shutil.get_terminal_size((_MOST_COLUMNS, 24)).columns, _MOST_COLUMNS)
        click.echo("\n".join(text(report, columns=columns)))
    if report.has_failed:
        sys.exit(EXIT_FAIL)


def _progress(name: str) -> None:
    click.echo(f"\r\x1b[Klooked at {name}", nl=False, err=True)


def document(report: Report) -> dict[str, Any]:
    """The report as one JSON document."""
    return {
        "schema": SCHEMA,
        "checks": [
            {
                "id": verdict.id,
                "status": verdict.status.value,
                "found": verdict.found,
                "why": verdict.why,
                "fix": verdict.fix,
            }
            for verdict in report.verdicts
        ],
    }


def text(report: Report, *, columns: int) -> Iterator[str]:
    """The report for people: what fails on top, the rest one line each."""
    width = max(len(verdict.id) for verdict in report.verdicts)
    for verdict in report.worst_first():
        yield from _lines(verdict, width=width, columns=columns)
    counts = Counter(verdict.status for verdict in report.verdicts)
    shown = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    yield ""
    yield f"{len(report.verdicts)} checks: {shown}"


def _lines(verdict: Verdict, *, width: int, columns: int) -> Sequence[str]:
    status = click.style(verdict.status.value.ljust(4), fg=_COLOURS[verdict.status])
    indent = " " * (_LABEL_WIDTH + width + 1)
    told = [*_wrapped(verdict.found, columns - len(indent))]
    lines = [f"{status}  {verdict.id.ljust(width)} {told[0] if told else ''}".rstrip()]
    lines += [f"{indent}{line}" for line in told[1:]]
    for label, said in (("why", verdict.why), ("fix", verdict.fix)):
        head = f"      {label}: "
        rest = " " * len(head)
        # A command is not broken within a word, so that it can be copied.
        for number, line in enumerate(_wrapped(said, columns - len(head))):
            lines.append(f"{rest if number else head}{line}")
    return lines


def _wrapped(said: str, columns: int) -> list[str]:
    """Lines of at most so many columns; those that were told apart, such as TOML, stay apart."""
    wrapper = textwrap.TextWrapper(
        max(columns, 40), break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    return [line for part in said.split("\n") for line in wrapper.wrap(part)]
