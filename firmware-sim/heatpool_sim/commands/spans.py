"""How spans of time and planned faults are written on the command line."""

import re
from math import inf
from typing import get_args

import click

from heatpool_sim.plant.faults import Fault, Pipe

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[a-z]*)")
_FAULT = re.compile(
    r"(?P<id>\w+)(/(?P<pipe>\w+))?@(?P<at>[^:]+)(:(?P<length>[^:]*))?(:(?P<size>[^:]+))?"
)


class Span(click.ParamType[float]):
    """Seconds, as `10`, `10s`, `15min`, `6h` or `2d`; above zero."""

    name = "span"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The span, s."""
        try:
            span_s = seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return span_s if span_s > 0.0 else self.fail(f"{value!r} is no time", param, ctx)


class Planned(click.ParamType[Fault]):
    """A fault, as `fouling@2h`, `leak@30min:1h`, `pair_offset/cold@1h::0.5`."""

    name = "id[/pipe]@t[:len[:size]]"

    def convert(
        self, value: str | Fault, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fault:
        """The fault, of no site yet; without a length it lasts to the end."""
        if isinstance(value, Fault):
            return value
        try:
            return planned(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def seconds(text: str) -> float:
    """Seconds of a span with its unit.

    Raises:
        ValueError: it is none.
    """
    found = _SPAN.fullmatch(text.strip())
    if not found or found["unit"] not in _UNITS_S:
        raise ValueError(f"{text!r} is no span; write it as 10s, 15min, 6h or 2d")
    return float(found["number"]) * _UNITS_S[found["unit"]]


def planned(text: str) -> Fault:
    """A planned fault of no site yet.

    Raises:
        ValueError: it is not written as one.
    """
    found = _FAULT.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no fault; write it as fouling@2h, leak@30min:1h or ...:size")
    if found["pipe"] not in (None, *get_args(Pipe)):
        raise ValueError(f"{text!r}: the pipe is hot or cold, not {found['pipe']!r}")
    try:
        size = float(found["size"]) if found["size"] else None
    except ValueError:
        raise ValueError(f"{text!r}: size {found['size']!r} is no number") from None
    return Fault(
        id=found["id"],
        site_id="",
        at_s=seconds(found["at"]),
        length_s=seconds(found["length"]) if found["length"] else inf,
        size=size,
        pipe="cold" if found["pipe"] == "cold" else "hot",
    )
