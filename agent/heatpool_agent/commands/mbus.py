"""`heatpool-agent mbus`: what captured telegrams of M-Bus meters say, without a meter."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from heatpool_agent.core.mbus_document import document, is_all_good

EXIT_NOTHING = 4
HEAD = ("storage", "tariff", "subunit", "function", "quantity", "value", "unit", "marked")
VALUE_WIDTH = 40
# Tens of thousands of telegrams; a device without end would take all memory.
MOST_BYTES = 16_000_000


@click.group("mbus")
def command() -> None:
    """Read what meters on the M-Bus said."""


@command.command("decode")
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def decode(*, file: Any, as_json: bool) -> None:
    """Decode FILE (- for stdin): hex text, `#` for comments, or binary; one telegram or many.

    Exit 4 if a telegram gave nothing usable; what could be read is still printed.
    """
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise click.UsageError(f"FILE is larger than {MOST_BYTES} bytes; split it")
    found = document(content)
    if as_json:
        json.dump(found, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        click.echo("\n\n".join(told(found)) or "no telegram in it")
    if not is_all_good(found):
        sys.exit(EXIT_NOTHING)


def told(found: Mapping[str, Any]) -> Iterable[str]:
    """Each telegram as text for people."""
    for number, telegram in enumerate(found["telegrams"], start=1):
        yield "\n".join(_lines(number, telegram))


def _lines(number: int, telegram: Mapping[str, Any]) -> Iterable[str]:
    if not telegram["ok"]:
        start = f"telegram {number} at byte {telegram['start']}"
        yield f"{start}: refused: {telegram['reason']} (byte {telegram['offset']})"
        return
    start = f"telegram {number} at byte {telegram['start']}: {telegram['frame']}"
    if "records" not in telegram:
        yield start
        return
    yield f"{start}, {_who(telegram['header'])}"
    yield f"  {_where(telegram['heat'])}"
    if figures := ", ".join(_figures(telegram["heat"])):
        yield f"  {figures}"
    if telegram["more_follows"]:
        yield "  another telegram of this readout follows"
    yield from (f"  {row}" for row in _rows(HEAD, map(_cells, telegram["records"])))


def _who(header: Mapping[str, Any] | None) -> str:
    if header is None:
        return "no header"
    state = f"access {header['access']}, status {header['status']:02X}"
    if header["medium"] is None:
        return f"short header, {state}"
    maker = "" if header["manufacturer"] is None else f"{header['manufacturer']} "
    version = "" if header["version"] is None else f"version {header['version']}, "
    return f"{maker}{header['id']}, {version}{header['medium_name']}, {state}"


def _where(heat: Mapping[str, Any]) -> str:
    if "not_heat" in heat["flags"]:
        return "no heat meter"
    side = heat.get("sensor_side")
    return f"flow sensor in the {side} pipe" if side else "where the flow sensor sits is not told"


def _figures(heat: Mapping[str, Any]) -> Iterable[str]:
    for name, value in heat.items():
        if name not in ("sensor_side", "meter_id", "flags"):
            shown = value if isinstance(value, int) else f"{value:.6g}"
            yield f"{name} {shown}"
    yield from (f"! {flag}" for flag in heat["flags"] if flag != "not_heat")


def _cells(record: Mapping[str, Any]) -> Sequence[str]:
    value = record["value"]
    shown = "-" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)
    places = (str(record[name]) for name in HEAD[:5])
    return (*places, _printable(shown), _printable(record["unit"]), " ".join(record["qualifiers"]))


def _printable(text: str) -> str:
    """Text of a meter as a terminal may show it: no control characters, no endless line."""
    shown = "".join(letter if letter.isprintable() else "." for letter in text)
    return shown if len(shown) <= VALUE_WIDTH else f"{shown[: VALUE_WIDTH - 3]}..."


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    every = [head, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    for row in every:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
