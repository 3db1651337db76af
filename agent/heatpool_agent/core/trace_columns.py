"""Columns of a trace: the names that are known with their unit, and how others are mapped to them.

`it_w=IT_kW*1000` takes header `IT_kW` times 1000 for `it_w`; `/`, and then `+` or `-`, go too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

TIME = "time"
REFERENCE = "heat_rate_w"
# Each with what it is, for people.
COLUMNS: Mapping[str, str] = {
    "power_w": "electric power that warms the loop",
    "it_w": "electric power into the IT",
    "facility_w": "electric power of the whole site, cooling and losses included",
    "cpu_w": "power of the processors, as their own counters tell it",
    "gpu_w": "power of the accelerators, as their driver tells it",
    "volume_flow_m3_h": "volume flow of the coolant",
    "hot_c": "temperature of the hot pipe, behind the IT",
    "cold_c": "temperature of the cold pipe, before the IT",
    "ambient_c": "temperature of the room",
    REFERENCE: "heat by another meter: compared, not used",
}
_HEADERS_COUNT, _HEADER_LETTERS = 20, 40
_MAPPING = re.compile(r"\s*(?P<name>\w+)\s*=\s*(?P<told>.+?)\s*")
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SCALED = re.compile(
    rf"(?P<header>.+?)\s*(?:(?P<scale>[*/])\s*(?P<by>-?{_NUMBER}))?"
    rf"\s*(?:(?P<sign>[+-])\s*(?P<shift>{_NUMBER}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What the user said of one column: its name, and the text after the `=`."""

    name: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column that was found: our name, the file's header, its place, and its scale."""

    name: str
    header: str
    index: int
    factor: float = 1.0
    offset: float = 0.0


def mapped(text: str) -> Mapped:
    """What one `--column` says.

    Raises:
        ValueError: it is none, or of a name that is not known.
    """
    match = _MAPPING.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no name=Header, such as it_w=IT_kW*1000")
    if match["name"] != TIME and match["name"] not in COLUMNS:
        raise ValueError(f"{match['name']!r} is not known; use {', '.join((TIME, *COLUMNS))}")
    return Mapped(name=match["name"], told=match["told"])


def resolved(one: Mapped, headers: Sequence[str]) -> Column:
    """The column that was meant; a header that reads like a sum is taken as it stands first.

    Raises:
        ValueError: no header is called so, or its factor makes no sense.
    """
    if (index := place(one.told, headers)) is not None:
        return Column(name=one.name, header=headers[index], index=index)
    match = _SCALED.fullmatch(one.told)
    index = None if match is None else place(match["header"], headers)
    if match is None or index is None:
        raise ValueError(f"{one.name}={one.told}: no such column; the file has {shown(headers)}")
    by = float(match["by"] or 1.0)
    factor = 1.0 / by if match["scale"] == "/" and by else by
    offset = float(match["shift"] or 0.0) * (-1.0 if match["sign"] == "-" else 1.0)
    if not by or not isfinite(factor) or not isfinite(offset):
        raise ValueError(f"{one.name}={one.told}: the factor is {by:g}; give a finite one, not 0")
    if one.name == TIME and (factor, offset) != (1.0, 0.0):
        raise ValueError(f"{one.name}={one.told}: time takes no factor; epoch units are told apart")
    return Column(name=one.name, header=headers[index], index=index, factor=factor, offset=offset)


def place(name: str, headers: Sequence[str]) -> int | None:
    """Where the header of that name stands, by its exact letters first; None: nowhere."""
    if name in headers:
        return headers.index(name)
    lowered = [header.lower() for header in headers]
    return lowered.index(name.lower()) if name.lower() in lowered else None


def shown(headers: Sequence[str]) -> str:
    """The headers as a message can hold them, whatever was taken for a header."""
    told = [repr(header[:_HEADER_LETTERS]) for header in headers if header]
    more = f" and {len(told) - _HEADERS_COUNT} more" if len(told) > _HEADERS_COUNT else ""
    return ", ".join(told[:_HEADERS_COUNT]) + more


def found(headers: Sequence[str], mapping: Sequence[Mapped]) -> dict[str, Column]:
    """Every column that the file offers under a known name, or that the user named.

    Raises:
        ValueError: a column that the user named is not there.
    """
    columns = {one.name: resolved(one, headers) for one in mapping}
    for name in (TIME, *COLUMNS):
        index = place(name, headers)
        if name not in columns and index is not None:
            columns[name] = Column(name=name, header=headers[index], index=index)
    return columns


def likely_time(headers: Sequence[str]) -> str | None:
    """A header that sounds like time, to be offered to the user; it is not taken unasked."""
    words = ("time", "date", "zeit", "datum", "stamp")
    return next((h for h in headers if any(word in h.lower() for word in words)), None)
