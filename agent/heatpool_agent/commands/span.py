"""A span of time as a person writes it, for options of commands."""

import math

import click

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def span_s(_: click.Context, __: click.Parameter, told: str) -> float:
    """A span, s: seconds, or a number with its unit as in 60s, 10m, 2h, 1d."""
    unit_s = _UNITS_S.get(told[-1:])
    try:
        found_s = float(told[:-1] if unit_s else told) * (unit_s or 1.0)
    except ValueError:
        found_s = 0.0
    if not 0 < found_s < math.inf:
        raise click.BadParameter(f"{told!r} is no span; write 60s, 10m, 2h or 1d")
    return found_s
