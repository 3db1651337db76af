"""Reading JSON that may be anything: what is not of the shape asked for is absent, never an error.

Also the kind of a resource and links that stay inside the service.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heatpool_agent.core.redfish.document import Document

_NOTHING: Document = {}
# What a resource without type is, told by a property that no other kind has.
_TOLD_BY = {
    "PowerControl": "Power",
    "DetectorState": "LeakDetector",
    "LeakDetectorGroups": "LeakDetection",
    "ReadingType": "Sensor",
    "InputPowerWatts": "PowerSupplyMetrics",
    "FlowLitersPerMinute": "CoolantConnector",
    "PumpSpeedPercent": "Pump",
    "ChassisType": "Chassis",
}
_DURATION = re.compile(
    r"P(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
# Dots may hide behind their escapes; a backslash is a slash to some servers.
_CLIMBS = re.compile(r"(/|%2f)(\.|%2e){1,2}(/|%2f|$)", re.IGNORECASE)
_ROOT = "/redfish/"


def text(body: Document, name: str) -> str:
    """The property if it is text, else nothing; half a surrogate pair becomes a question mark."""
    value = body.get(name)
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode(errors="replace").decode()


def table(body: Document, name: str) -> Document:
    """The property if it is an object, else an empty one."""
    value = body.get(name)
    return value if isinstance(value, Mapping) else _NOTHING


def rows(body: Document, name: str) -> list[Document]:
    """The objects in a property that is a list, or the one object that stands in its place."""
    value = body.get(name)
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, Mapping)]


def kind_of(body: Document) -> str:
    """What the resource is (`Sensor`, `ChassisCollection`), without namespace and version."""
    told = text(body, "@odata.type").rpartition(".")[2].lstrip("#")
    return told or next((kind for name, kind in _TOLD_BY.items() if name in body), "")


def has_content(body: Document) -> bool:
    """Whether an object is a resource itself, not only a link to one."""
    return any(not name.startswith("@") for name in body)


def inside(link: Any) -> str:
    """The link's document path, without fragment and closing slash; nothing if it leads outside."""
    if not isinstance(link, str) or not f"{link}/".startswith(_ROOT):
        return ""
    path = link.partition("#")[0]
    if "\\" in path or _CLIMBS.search(path.partition("?")[0]):
        return ""
    if not path.isascii() or any(character <= " " for character in path):
        return ""
    return path.rstrip("/") if "?" not in path else path


def plain(path: str) -> str:
    """A path as documents are kept under: without fragment and closing slash."""
    return path.partition("#")[0].rstrip("/")


def duration_s(value: Any) -> float | None:
    """An ISO 8601 duration such as `PT0.25S` in s; absent if it is none or is zero."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) and len(value) < 40 else None
    if match is None:
        return None
    span_s = sum(_SECONDS[unit] * float(told) for unit, told in match.groupdict("0").items())
    return span_s or None


def words_of(name: str) -> tuple[str, ...]:
    """The words of an identifier, `PS1InputPower` and `ps1_input_power` alike, in small letters."""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name[:200])
    return tuple(word.lower() for word in found)


def nested(body: Document, name: str) -> Iterator[tuple[str, Document]]:
    """Objects in a property, each with its JSON pointer inside the document."""
    value = body.get(name)
    if isinstance(value, Mapping):
        yield f"/{name}", value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                yield f"/{name}/{index}", item
