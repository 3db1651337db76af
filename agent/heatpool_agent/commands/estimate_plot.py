"""The picture of `estimate`: heat with its band, both heats beside it, faults, and gaps left open.

The only file that loads matplotlib, and only where a picture is asked for.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from io import BytesIO
from math import nan
from pathlib import Path
from typing import Any, BinaryIO

from heatpool.errors import ConfigError
from heatpool_agent.commands import whole_file
from heatpool_agent.core.trace_curve import Curve
from heatpool_agent.core.trace_time import TIME_FROM_ZERO

KINDS = (".png", ".svg")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Told apart by people of every colour vision, and in print. Source: Okabe and Ito 2008.
_HEAT, _ELECTRIC, _COMPUTED, _FAULT = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_SCALES = ((1e6, "MW"), (1e3, "kW"), (1.0, "W"))


def check(path: Path) -> None:
    """Whether a picture can be made there, before any work is done.

    Raises:
        ConfigError: another kind of file, no such folder, or matplotlib is missing.
    """
    if path.suffix.lower() not in KINDS:
        raise ConfigError([f"--plot: {path.name} is neither .png nor .svg"])
    if not path.parent.is_dir():
        raise ConfigError([f"--plot: {path.parent} is no folder"])
    if find_spec("matplotlib") is None:
        raise ConfigError(
            ["--plot: matplotlib is missing; install it by: pip install 'heatpool[plot]'"]
        )


def draw(path: Path, curve: Curve, rest: Mapping[str, Any], *, title: str) -> None:
    """Writes the picture."""
    # It tells of its fonts as if that were news.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # Figures without pyplot: no display is sought, and nothing global is left behind.
    from matplotlib import dates, rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "heatpool", "font.size": 10.0, "svg.fonttype": "path"}):
        figure = Figure(figsize=(11.0, 5.2), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        _lines(axes, curve, rest["method"])
        _faults(axes, rest["faults"])
        locator = dates.AutoDateLocator(minticks=4, maxticks=10, tz=UTC)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        shape = dates.ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(shape)
        is_bare = TIME_FROM_ZERO in rest["flags"]
        axes.set_xlabel("time from 0: the log names no date" if is_bare else "time, UTC")
        axes.set_title(f"{title}: {_total(rest['total'])}", loc="left", fontsize=11)
        axes.grid(visible=True, color="0.9", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=6, frameon=False)
        kind = path.suffix.lower().removeprefix(".")
        picture = BytesIO()
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(picture, format=kind, metadata=metadata)
    with whole_file.written(path) as out:
        _put(out.buffer, picture.getvalue(), path)


def _put(out: BinaryIO, data: bytes, path: Path) -> None:
    try:
        out.write(data)
        out.flush()
    except OSError as error:
        raise whole_file.refused(path, error) from error


def _lines(axes: Any, curve: Curve, method: str) -> None:
    points = curve.points()
    seen = [abs(value) for value in points.high_w if value is not None]
    size, unit = _scale(max(seen, default=1.0))
    at = [_moment(at_ns) for at_ns in points.at_ns]

    def scaled(values: Sequence[float | None]) -> list[float]:
        return [nan if value is None else value / size for value in values]

    # Alone it is the heat itself, and would only be drawn under it.
    is_two = any(map(_is_number, points.electric_w)) and any(map(_is_number, points.computed_w))
    for values, colour, name, style in (
        (points.electric_w, _ELECTRIC, "electric", (0, (4, 1.5))),
        (points.computed_w, _COMPUTED, "computed", (0, (1, 1))),
    ):
        if is_two:
            axes.plot(
                at, scaled(values), color=colour, linewidth=1.0, linestyle=style,
                label=f"{name} heat", zorder=2,
            )  # fmt: skip
    axes.fill_between(
        at, scaled(points.low_w), scaled(points.high_w), color=_HEAT, alpha=0.22, linewidth=0,
        label="95 % band", zorder=1,
    )  # fmt: skip
    is_dotted = len(at) < 40
    axes.plot(
        at, scaled(points.heat_w), color=_HEAT, linewidth=1.3, marker="o" if is_dotted else None,
        markersize=3, label=f"heat ({method})", zorder=3,
    )  # fmt: skip
    axes.set_ylabel(f"heat rate, {unit}")
    lowest = min((value for value in points.low_w if value is not None), default=0.0)
    axes.set_ylim(bottom=0.0 if lowest >= 0.0 else None)
    axes.margins(x=0.01)


def _is_number(value: float | None) -> bool:
    return value is not None


def _faults(axes: Any, faults: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.dates import num2date

    last = num2date(axes.get_xlim()[1], tz=UTC)  # type: ignore[no-untyped-call]
    label: str | None = "fault"
    for number, fault in enumerate(faults):
        start = _moment(fault["start_ns"])
        end = last if fault["end_ns"] is None else _moment(fault["end_ns"])
        axes.axvspan(
            start, end, facecolor=_FAULT, alpha=0.12, edgecolor=_FAULT, hatch="//", linewidth=0.0,
            label=label, zorder=0,
        )  # fmt: skip
        axes.annotate(
            fault["fault"].replace("_", " "), (start, 1.0 - 0.05 * (number % 4)),
            xycoords=("data", "axes fraction"), xytext=(4, -4), textcoords="offset points",
            va="top", fontsize=8.5, color="#7A3300",
        )  # fmt: skip
        label = None


def _total(total: Mapping[str, Any]) -> str:
    if total["heat_wh"] is None:
        return "no energy known"
    size, unit = _scale(total["heat_wh"])
    half_wh = total["hi95_wh"] - total["heat_wh"]
    covered = 100 * total["coverage_frac"]
    return f"{total['heat_wh'] / size:.4g} ± {half_wh / size:.2g} {unit}h, {covered:.0f} % covered"


def _scale(value: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in _SCALES if abs(value) >= size), (1.0, "W"))


def _moment(at_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_ns // 1000)
