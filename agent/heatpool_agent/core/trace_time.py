"""Stamps of a trace as ns since 1970: which kind a file writes, and each stamp read as that kind.

ISO 8601 with or without a zone, seconds, milliseconds, microseconds or nanoseconds since 1970,
seconds from 0, and the two orders of day and month that building automation exports.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite

from heatpool_agent.core.median import median

ZONE_ASSUMED = "zone_assumed"
TIME_FROM_ZERO = "time_from_zero"
DAY_FIRST, MONTH_FIRST = "day_first", "month_first"
ISO = "iso"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
# ns in one of the stamp's units, by the size of the stamps: from 1973 to 5138 none is another's.
_SCALES: tuple[tuple[float, str, int], ...] = (
    (1e8, "seconds_from_0", 1_000_000_000),
    (1e11, "epoch_s", 1_000_000_000),
    (1e14, "epoch_ms", 1_000_000),
    (1e17, "epoch_us", 1_000),
    (float("inf"), "epoch_ns", 1),
)
# The years 2000 to 2100, in days of a spreadsheet.
_DAYS = (36_526.0, 73_051.0)
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?")
_CIVIL = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})"
    r"(?:[ T,]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,6})\d*)?)?(?:\s*([AaPp])\.?[Mm]\.?)?)?"
)
# Beyond it int64 columns of ns end (2262); no log of heat is from there.
_MOST_NS = 9_000_000_000_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeKind:
    """How a file writes time; `flags` are what had to be assumed of all of its stamps."""

    name: str
    ns: int = 1
    flags: tuple[str, ...] = ()


def time_kind(stamps: Sequence[str], *, decimal: str = ".") -> TimeKind | None:
    """The kind that these stamps are written in; None: in none that can be told for certain."""
    told = [stamp.strip() for stamp in stamps if stamp.strip()]
    numbers = [number for stamp in told if (number := _number(stamp, decimal)) is not None]
    if _are_days(numbers):
        return None
    if numbers and 2 * len(numbers) >= len(told):
        return _scale(median(abs(number) for number in numbers))
    if any(_iso_ns(stamp) is not None for stamp in told):
        return TimeKind(name=ISO)
    return _civil_kind(told)


def is_in_days(stamps: Sequence[str], *, decimal: str = ".") -> bool:
    """Whether these are a spreadsheet's days since 1900, of which seconds would make nothing."""
    told = (_number(stamp.strip(), decimal) for stamp in stamps)
    return _are_days([number for number in told if number is not None])


def _are_days(numbers: Sequence[float]) -> bool:
    if len(numbers) < 2 or all(number == number // 1 for number in numbers):
        return False
    least, most = min(numbers), max(numbers)
    return _DAYS[0] <= least and most <= _DAYS[1] and most - least < 0.5 * len(numbers)


def is_ambiguous(stamps: Sequence[str]) -> bool:
    """Whether these are dates of which nothing tells the day from the month."""
    return _civil_kind(stamps) is None and any(_CIVIL.fullmatch(stamp.strip()) for stamp in stamps)


def is_time_of_day(stamps: Sequence[str]) -> bool:
    """Whether these are hours and minutes whose date stands elsewhere."""
    told = [stamp.strip() for stamp in stamps if stamp.strip()]
    return bool(told) and all(_TIME_OF_DAY.fullmatch(stamp) for stamp in told)


def event_ns(stamp: str, kind: TimeKind, *, decimal: str = ".") -> tuple[int, bool] | None:
    """The stamp as ns since 1970, and whether its zone had to be assumed; None: it is none.

    A stamp without zone is read as UTC.
    """
    if kind.name == ISO:
        return _iso_ns(stamp.strip())
    if kind.name in (DAY_FIRST, MONTH_FIRST):
        at_ns = _civil_ns(stamp.strip(), is_day_first=kind.name == DAY_FIRST)
        return None if at_ns is None else (at_ns, True)
    at_ns = _scaled_ns(stamp.strip(), kind.ns, decimal)
    return None if at_ns is None else (at_ns, False)


def _number(stamp: str, decimal: str) -> float | None:
    try:
        number = float(stamp.replace(decimal, "."))
    except ValueError:
        return None
    return number if isfinite(number) else None


def _scale(size: float) -> TimeKind:
    for limit, name, ns in _SCALES:
        if size < limit:
            flags = (TIME_FROM_ZERO,) if name == "seconds_from_0" else ()
            return TimeKind(name=name, ns=ns, flags=flags)
    raise AssertionError(size)


def _scaled_ns(stamp: str, ns: int, decimal: str) -> int | None:
    try:
        # A float holds no ns of today: whole numbers stay whole.
        at_ns = int(stamp) * ns
    except ValueError:
        number = _number(stamp, decimal)
        if number is None:
            return None
        whole = int(number // 1)
        at_ns = whole * ns + round((number - whole) * ns)
    return at_ns if abs(at_ns) <= _MOST_NS else None


def _iso_ns(stamp: str) -> tuple[int, bool] | None:
    try:
        moment = datetime.fromisoformat(stamp)
        is_assumed = moment.tzinfo is None
        if is_assumed:
            moment = moment.replace(tzinfo=UTC)
        at_ns = (moment - _EPOCH) // _US * 1000
    except (ValueError, OverflowError):
        return None
    return (at_ns, is_assumed) if abs(at_ns) <= _MOST_NS else None


def _civil_kind(stamps: Sequence[str]) -> TimeKind | None:
    """Day or month first, by a number above 12 in one of both places, or by its dots."""
    found = [match for stamp in stamps if (match := _CIVIL.fullmatch(stamp))]
    if not found:
        return None
    is_day_first = any(match[2] == "." or int(match[1]) > 12 for match in found)
    is_month_first = any(match[2] != "." and int(match[3]) > 12 for match in found)
    if is_day_first == is_month_first:
        return None
    return TimeKind(name=DAY_FIRST if is_day_first else MONTH_FIRST, flags=(ZONE_ASSUMED,))


def _civil_ns(stamp: str, *, is_day_first: bool) -> int | None:
    match = _CIVIL.fullmatch(stamp)
    if match is None:
        return None
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    day, month = (first, second) if is_day_first else (second, first)
    hour, minute, second_s = (int(match[index] or 0) for index in (5, 6, 7))
    if match[9]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match[9] in "Pp" else 0)
    try:
        moment = datetime(year, month, day, hour, minute, second_s, tzinfo=UTC)
    except ValueError:
        return None
    micros = int((match[8] or "0").ljust(6, "0"))
    return ((moment - _EPOCH) // _US + micros) * 1000
