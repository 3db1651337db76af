"""The middle of some values: the standard library's own loads chance, which no core may."""

from collections.abc import Iterable


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle; 0 where there is none."""
    ordered = sorted(values)
    half, is_odd = divmod(len(ordered), 2)
    if not ordered:
        return 0.0
    return ordered[half] if is_odd else (ordered[half - 1] + ordered[half]) / 2.0
