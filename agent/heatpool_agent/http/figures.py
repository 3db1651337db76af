"""Numbers for people: scaled units, no more digits than the doubt supports, absent as a dash."""

from datetime import UTC, datetime
from math import floor, isfinite, log10

from heatpool.units import NS_PER_S

ABSENT = "–"
GAP = "\N{NO-BREAK SPACE}"
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
J_PER_WH = 3600
_MAX_DECIMALS = 3


def with_doubt(value_w: float | None, half_w: float | None) -> tuple[str, str]:
    """A rate and half of its 95 % interval, both in the rate's unit; absent is a dash."""
    if value_w is None or not isfinite(value_w):
        return ABSENT, ABSENT
    scale, prefix = _scaled(value_w)
    unit = f"{GAP}{prefix}W"
    if half_w is None or not isfinite(half_w) or half_w <= 0:
        return f"{_rounded(value_w / scale, _decimals(value_w / scale, 3))}{unit}", ABSENT
    decimals = _decimals(half_w / scale, 2)
    value, half = (_rounded(each / scale, decimals) for each in (value_w, half_w))
    return f"{value}{unit}", f"±{GAP}{half}{unit}"


def rate(value_w: float | None) -> str:
    """A rate whose doubt is not known, to three digits."""
    return with_doubt(value_w, None)[0]


def share(frac: float, half_frac: float) -> str:
    """A share in percent with half of its 95 % interval."""
    if not isfinite(frac) or not isfinite(half_frac):
        return ABSENT
    decimals = _decimals(100 * half_frac, 2) if half_frac > 0 else 1
    value, half = (_rounded(100 * each, decimals) for each in (frac, half_frac))
    return f"{value}{GAP}± {half}{GAP}%"


def energy(energy_j: float) -> str:
    """Energy in watt-hours, to four digits."""
    return _metric(energy_j / J_PER_WH, "Wh", 4)


def size(size_bytes: float) -> str:
    """Bytes in decimal units."""
    return _metric(size_bytes, "B", 3)


def measure(value: float | None, unit: str, decimals: int) -> str:
    """A device's value with the digits that such devices have."""
    if value is None or not isfinite(value):
        return ABSENT
    return f"{_rounded(value, decimals)}{GAP}{unit}"


def span(length_s: float | None) -> str:
    """A length of time."""
    if length_s is None or not isfinite(length_s):
        return ABSENT
    if abs(length_s) < 1:
        return f"{_rounded(length_s * 1000, 0)}{GAP}ms"
    return f"{_rounded(length_s, 0)}{GAP}s" if length_s < 600 else f"{length_s / 60:.0f}{GAP}min"


def stamp(event_ns: int) -> str:
    """An instant, UTC, to the second."""
    return datetime.fromtimestamp(event_ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def due(left_s: float, event_ns: int) -> str:
    """How long until an instant, and its time of day, UTC."""
    if left_s <= 0:
        return "now"
    at = datetime.fromtimestamp(event_ns // NS_PER_S, UTC).strftime("%H:%M:%S")
    return f"in {left_s:.0f} s, {at} UTC"


def _metric(value: float, unit: str, digits: int) -> str:
    if not isfinite(value):
        return ABSENT
    scale, prefix = _scaled(value)
    decimals = _decimals(value / scale, digits) if prefix else 0
    return f"{_rounded(value / scale, decimals)}{GAP}{prefix}{unit}"


def _scaled(value: float) -> tuple[float, str]:
    # 999.6 W is shown as 1.00 kW, not as 1,000 W.
    return next(((s, p) for s, p in _STEPS if abs(value) >= s * 0.9995), (1.0, ""))


def _decimals(value: float, digits: int) -> int:
    """Places after the point that keep so many digits; negative ones round before it."""
    if value == 0:
        return 0
    return min(_MAX_DECIMALS, digits - 1 - floor(log10(abs(value))))


def _rounded(value: float, decimals: int) -> str:
    cut = round(value, decimals) + 0.0  # + 0.0: no minus zero
    return f"{cut:,.{max(0, decimals)}f}".replace("-", "−")
