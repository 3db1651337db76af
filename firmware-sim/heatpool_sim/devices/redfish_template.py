"""Redfish resources from the package's own data files, filled with the figures of the moment.

A file maps paths below the root to resources. Short forms: `@path` is a link, `~name` a figure,
`%id` a sensor's reading with its source, `+ok` a good status, `+collection` a collection of all
resources one level below, `+like` a copy of one of the file's `+shapes` with its `<words>` put
in. A later file adds to what an earlier one says of the same path.
"""

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from heatpool_sim.devices.redfish_tree import ROOT, Resource

_SENSORS = "Chassis/1/Sensors"
_INLINE = "#LogEntryCollection."  # its members stand in it whole, not as links
_OK = {"State": "Enabled", "Health": "OK"}
Figures = Mapping[str, Any]


class Template:
    """All resources of one device, with gaps for figures."""

    def __init__(self, *names: str, sensors: str, context: str) -> None:
        raw: dict[str, dict[str, Any]] = {}
        for name in names:
            for path, resource in _shaped(_read(name)):
                raw[path] = _merged(raw.get(path, {}), resource)
        told = _read(sensors)
        readings = {sensor_id: row[3] for sensor_id, row in told.items()}
        raw |= {f"{_SENSORS}/{key}": _sensor(row, context) for key, row in told.items()}
        self._resources = {
            _full(path): _whole(path, _spelt(resource, readings), list(raw))
            for path, resource in raw.items()
        }
        for resource in self._resources.values():
            if resource["@odata.type"].startswith(_INLINE):
                held = [self._resources[link["@odata.id"]] for link in resource["Members"]]
                resource["Members"] = held

    @property
    def figure_names(self) -> frozenset[str]:
        """Every figure that a resource has a gap for."""
        return frozenset(_gaps(list(self._resources.values())))

    @property
    def paths(self) -> list[str]:
        """Where the resources are."""
        return list(self._resources)

    def filled(self, path: str, figures: Figures) -> Resource | None:
        """The resource with its figures; None where there is none."""
        resource = self._resources.get(path)
        if resource is None:
            return None
        whole: dict[str, Any] = _fill(resource, figures)
        return whole

    def has(self, path: str) -> bool:
        """Whether a resource is at this path."""
        return path in self._resources


def _read(name: str) -> dict[str, Any]:
    text = (files("heatpool_sim.devices") / "redfish" / f"{name}.json").read_text("utf-8")
    tree: dict[str, Any] = json.loads(text)
    return tree


def _shaped(told: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The resources of a file; a copy of a shape may be several, one below the other."""
    shapes = told.pop("+shapes", {})
    for path, resource in told.items():
        shape = resource.get("+like")
        parts = {"": resource} if shape is None else _worded(shapes[shape], resource)
        for below, part in parts.items():
            yield f"{path}{below}", part


def _worded(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _worded(held, words) for key, held in value.items()}
    if not isinstance(value, str):
        return value
    for name, word in words.items():
        value = value.replace(f"<{name}>", word)
    return value


def _full(path: str) -> str:
    return f"{ROOT}/{path}" if path else ROOT


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    both = {**first, **second}
    for key in first.keys() & second.keys():
        if isinstance(first[key], dict) and isinstance(second[key], dict):
            both[key] = _merged(first[key], second[key])
    return both


def _sensor(row: list[str], context: str) -> dict[str, Any]:
    name, kind, units, reading, *rest = row
    return {
        "@odata.type": "#Sensor.v1_11_1.Sensor",
        "Name": name,
        "ReadingType": kind,
        "Reading": reading,
        "ReadingUnits": units,
        "ReadingTime": "~now",
        "SensingInterval": "PT1S",
        "PhysicalContext": rest[0] if rest else context,
        "Implementation": "PhysicalSensor",
        "Status": "+ok",
    }


def _spelt(value: Any, readings: Mapping[str, str]) -> Any:
    """The value with links, excerpts and states written out; figures are still gaps."""
    if isinstance(value, dict):
        return {key: _spelt(held, readings) for key, held in value.items()}
    if isinstance(value, list):
        return [_spelt(held, readings) for held in value]
    if not isinstance(value, str):
        return value
    if value.startswith("@"):
        return {"@odata.id": _full(value[1:])}
    if value.startswith("%") and value != "%":
        source = _full(f"{_SENSORS}/{value[1:]}")
        return {"DataSourceUri": source, "Reading": readings[value[1:]]}
    return dict(_OK) if value == "+ok" else value


def _whole(path: str, resource: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """The resource with its name and place; a collection also with its members."""
    where = {"@odata.id": _full(path) if path else f"{ROOT}/"}
    kind = resource.pop("+collection", None)
    if kind is None:
        return where | {"Id": path.rpartition("/")[2]} | resource
    members = [other for other in paths if other.rpartition("/")[0] == path and other != path]
    return {
        **where,
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        **resource,
        "Members": [{"@odata.id": _full(member)} for member in members],
        "Members@odata.count": len(members),
    }


def _fill(value: Any, figures: Figures) -> Any:
    if isinstance(value, dict):
        return {key: _fill(held, figures) for key, held in value.items()}
    if isinstance(value, list):
        return [_fill(held, figures) for held in value]
    if isinstance(value, str) and value.startswith("~"):
        return figures[value[1:]]
    return value


def _gaps(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for held in value.values() if isinstance(value, dict) else value:
            yield from _gaps(held)
    elif isinstance(value, str) and value.startswith("~"):
        yield value[1:]
