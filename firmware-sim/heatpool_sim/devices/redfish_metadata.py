"""The two documents of OData that a tree need not write itself: $metadata and the service list."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from heatpool_sim.devices.redfish_tree import METADATA, ROOT, Find, Resource, reachable

_TYPE = re.compile(r"#((\w+)(?:\.v\w+)?)\.\w+")
_SCHEMAS = "http://redfish.dmtf.org/schemas/v1"
_PROLOG = '<?xml version="1.0" encoding="UTF-8"?>'


def schema_of(resource: Resource) -> str | None:
    """Address of the JSON schema that describes a resource."""
    match = _TYPE.fullmatch(str(resource.get("@odata.type", "")))
    return None if match is None else f"{_SCHEMAS}/{match[1]}.json"


def metadata(find: Find) -> bytes:
    """The $metadata document: a reference for each type that links lead to."""
    spaces: dict[str, set[str]] = {}
    for resource in reachable(find).values():
        for versioned, name in types(resource):
            spaces.setdefault(name, {name}).add(versioned)
    root = max(spaces.get("ServiceRoot", {"ServiceRoot"}), key=len)
    references = "".join(_reference(name, sorted(spaces[name])) for name in sorted(spaces))
    edmx = "http://docs.oasis-open.org/odata/ns/edmx"
    edm = "http://docs.oasis-open.org/odata/ns/edm"
    return (
        f'{_PROLOG}\n<edmx:Edmx xmlns:edmx="{edmx}" Version="4.0">\n{references}'
        f'  <edmx:Reference Uri="{_SCHEMAS}/RedfishExtensions_v1.xml">\n'
        '    <edmx:Include Namespace="RedfishExtensions.v1_0_0" Alias="Redfish"/>\n'
        "  </edmx:Reference>\n"
        f'  <edmx:DataServices>\n    <Schema xmlns="{edm}" Namespace="Service">\n'
        f'      <EntityContainer Name="Service" Extends="{root}.ServiceContainer"/>\n'
        "    </Schema>\n  </edmx:DataServices>\n</edmx:Edmx>\n"
    ).encode()


def service_list(root: Resource | None) -> dict[str, Any]:
    """The odata document: the root and all that it names."""
    named = [
        {"name": key, "kind": "Singleton", "url": held["@odata.id"]}
        for key, held in (root or {}).items()
        if isinstance(held, Mapping) and isinstance(held.get("@odata.id"), str)
    ]
    own = {"name": "Service", "kind": "Singleton", "url": f"{ROOT}/"}
    return {"@odata.context": METADATA, "value": [own, *named]}


def types(value: Any) -> Iterator[tuple[str, str]]:
    """Every type in a resource: its namespace with version, and without."""
    if isinstance(value, Mapping):
        match = _TYPE.fullmatch(str(value.get("@odata.type", "")))
        if match is not None:
            yield match[1], match[2]
    held: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list | tuple):
        for part in held:
            yield from types(part)


def _reference(name: str, spaces: Iterable[str]) -> str:
    includes = "".join(f'    <edmx:Include Namespace="{space}"/>\n' for space in spaces)
    uri = f"{_SCHEMAS}/{name}_v1.xml"
    return f'  <edmx:Reference Uri="{uri}">\n{includes}  </edmx:Reference>\n'
