"""The look of `once` as text: what is estimated, from what, and which readings are believed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from heatpool_agent.core.verdict import is_yes_or_no

# 95 % of a normal distribution lie within this many standard uncertainties.
BAND = 1.96
_HERE = "this machine"
_COOLANT = ("cdu", "heat_meter")
_LEGEND = (
    "* carries the estimate of its loop",
    "+ carries its host's figure alone: a meter of all hosts comes before it",
)
# Covers of a host that no meter of a single level shows, in words.
_COVERS = {"host": "modelled from load", "last": "silent: what it drew last"}


def table(document: Mapping[str, Any]) -> str:
    """The look as text for people."""
    blocks = [
        _rows(("estimate", "W", "± 95 %", "class", "from", "flags"), _told(document)),
        _rows(("host", "W", "± 95 %", "class", "as"), _hosts(document)),
        _rows(("these disagree", "by", ""), _quarrels(document)),
        _rows(("sensor", "state", "what is wrong", "what mends it"), _sensors(document)),
        _rows(("not simply believed", "value", "unit", "", "channel"), _doubts(document)),
        _rows(
            ("  reading", "value", "± 95 %", "unit", "node", "class", "", "channel"),
            _readings(document),
        ),
    ]
    tables = [lines for lines in map(list, blocks) if len(lines) > 1]
    tables.append(list(_legend(document)))
    top = ([f"site {document['site_id']}"], [*_warnings(document)])
    return "\n\n".join("\n".join(lines) for lines in (*top, *tables) if lines)


def _warnings(document: Mapping[str, Any]) -> Iterator[str]:
    """What a person must not have to look for."""
    for loop in document.get("heat", ()):
        if loop.get("leak"):
            yield f"LEAK in loop {loop['loop_id']}"
        for fault in loop.get("faults", ()):
            if fault["end_ns"] is None:
                yield f"FAULT in loop {loop['loop_id']}: {fault['meaning']}. {fault['evidence']}"
    readings = document["readings"]
    if any(reading.get("loop") for reading in readings):
        return
    for name in sorted({r["sensor"] for r in readings if r["node"] in _COOLANT}):
        yield (
            f"coolant of {name} belongs to no [[loop]], so no heat is computed of it: name one in "
            "the settings, and it in the sensor"
        )


def _told(document: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for figure in document["estimates"]:
        yield (
            figure["channel"],
            f"{figure['value_w']:.0f}",
            f"{BAND * figure['value_w_u']:.0f}",
            figure["quality_class"],
            figure["provenance"],
            " ".join(figure["flags"]),
        )
    for loop in document.get("heat", ()):
        for name, whose in (("reported_heat", "the unit"), ("delivered_heat", "the heat meter")):
            if (power_w := loop.get(f"{name}_w")) is not None:
                u_w = loop.get(f"{name}_w_u")
                band = f"{BAND * u_w:.0f}" if u_w is not None else ""
                how = "± is assumed" if band else ""
                channel = f"{loop['loop_id']}/{name}"
                yield channel, f"{power_w:.0f}", band, "", f"{whose} itself", how
        if (share := loop.get("capture_frac")) is not None:
            half = BAND * loop["capture_frac_u"]
            yield f"{loop['loop_id']}/capture", f"{share:.3f}", f"{half:.3f}", "", "the filter", ""


def _hosts(document: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for host in document.get("hosts", ()):
        yield (
            host["host"] or _HERE,
            f"{host['power_w']:.0f}",
            f"{BAND * host['power_w_u']:.0f}",
            host["quality_class"],
            _cover(host),
        )
        for part in host["parts"]:
            band_w = f"{BAND * part['power_w_u']:.0f}"
            yield f"  {part['name']}", f"{part['power_w']:.0f}", band_w, "", _how(part)


def _cover(host: Mapping[str, Any]) -> str:
    if host["level"] in _COVERS:
        return _COVERS[host["level"]]
    return f"read at {host['level']}{_by(one['sensor'] for one in host['counted'])}"


def _how(part: Mapping[str, Any]) -> str:
    if part["is_measured"]:
        return f"measured{_by(part['sensors'])}"
    return _COVERS.get(part["name"], "not measured")


def _by(sensors: Iterable[str]) -> str:
    names = ", ".join(dict.fromkeys(sensors))
    return f" by {names}" if names else ""


def _quarrels(document: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for one in document.get("disagreements", ()):
        lasts = "for long" if one["is_lasting"] else "now"
        yield f"{one['loop_id']}: {one['pair']}", f"{one['size_frac']:+.0%}", lasts


def _sensors(document: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for view in document["sensors"]:
        yield view["id"], view["state"], view["detail"], view["fix"]


def _doubts(document: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """What a person should look at; what another reading says better is in order."""
    for reading in document["readings"]:
        if reading["quality"] in ("refused", "doubted"):
            yield (
                f"{reading['sensor']} {reading['quantity']} {reading.get('label', '')}".rstrip(),
                *_value(reading),
                _fate(reading),
                reading["channel"],
            )


def _value(reading: Mapping[str, Any]) -> tuple[str, str]:
    value = reading.get("value")
    if is_yes_or_no(reading["quantity"]) and value in (0, 1):
        return ("yes" if value else "no"), ""
    return "" if value is None else _number(value), reading["unit"].replace("1", "")


def _band(reading: Mapping[str, Any]) -> str:
    """In the reading's unit; of a counter as a share, which holds for its differences too."""
    if "u" not in reading or "value" not in reading:
        return ""
    half = BAND * reading["u"]
    if reading["kind"] == "counter":
        return f"{half / abs(reading['value']):.0%}" if reading["value"] else ""
    return f"{half:.0f}" if half >= 10 else f"{half:.2g}"


def _number(value: float) -> str:
    """Six digits; a register is compared with a display, so its whole units are all there."""
    return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:.6g}"


def _readings(document: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """By sensor, those of one loop or host together."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for reading in document["readings"]:
        groups.setdefault((_where(reading), reading["sensor"]), []).append(reading)
    for (where, sensor), readings in sorted(groups.items(), key=lambda group: group[0]):
        refused = sum(not reading["believed"] for reading in readings)
        told = f"{refused} of {len(readings)} refused" if refused else ""
        yield f"{where}: {sensor}", "", "", "", "", "", told, ""
        for reading in readings:
            value, unit = _value(reading)
            yield (
                f"{_sign(reading)} {reading['quantity']} {reading.get('label', '')}".rstrip(),
                value,
                _band(reading),
                unit,
                reading["node"],
                reading.get("quality_class", ""),
                _fate(reading),
                reading["channel"],
            )


def _sign(reading: Mapping[str, Any]) -> str:
    counted_for = reading.get("counted_for", ())
    return "*" if "loop" in counted_for else "+" if "host" in counted_for else " "


def _legend(document: Mapping[str, Any]) -> Iterator[str]:
    signs = {_sign(reading) for reading in document["readings"]}
    return (line for line in _LEGEND if line[0] in signs)


def _where(reading: Mapping[str, Any]) -> str:
    if loop := reading.get("loop"):
        return f"loop {loop}"
    is_coolant = reading["node"] in _COOLANT
    return reading.get("host") or ("no loop" if is_coolant else _HERE)


def _fate(reading: Mapping[str, Any]) -> str:
    """Short for what is believed: the eye shall find what is not."""
    if reading["quality"] == "believed":
        return "ok"
    word = reading["quality"].upper() if reading["quality"] == "refused" else reading["quality"]
    return f"{word}: {'; '.join(reading['reasons'])}"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    every = [head, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    for row in every:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
