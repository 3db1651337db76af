"""The documents of one pass as resources that know their owners, told by links."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heatpool_agent.core.redfish.document import Document
from heatpool_agent.core.redfish.links import followed, resources_in
from heatpool_agent.core.redfish.shapes import inside, kind_of, nested, plain, rows, table

_MAX_STEPS = 8
COOLING = ("CoolingUnit", "HeatExchanger", "ImmersionUnit")
_LISTS = ("Members", "LeakDetectors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource, and the document in which it stands."""

    path: str
    kind: str
    body: Document
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """All resources by path and by kind; who links to whom, and by which property."""

    resources: Mapping[str, Resource]
    by_kind: Mapping[str, tuple[Resource, ...]]
    owners: Mapping[str, tuple[str, str]]
    # Collections that say another number of members than they hold.
    miscounted: frozenset[str]
    # Chassis that are cooling units: their power is no server's.
    cooling: frozenset[str]

    def of_kind(self, *kinds: str) -> Iterable[Resource]:
        """The resources of these kinds, in the order of the documents."""
        for kind in kinds:
            yield from self.by_kind.get(kind, ())

    def ancestry(self, path: str) -> list[tuple[Resource, str]]:
        """Owners from the nearest up, each with the property by which it leads here."""
        found: list[tuple[Resource, str]] = []
        seen = {path}
        while len(found) < _MAX_STEPS and (step := self.owners.get(path)):
            path, name = step
            if path in seen or path not in self.resources:
                break
            seen.add(path)
            found.append((self.resources[path], name))
        return found

    def owner(self, path: str, *kinds: str) -> Resource | None:
        """The nearest owner of one of the kinds."""
        return next((above for above, _ in self.ancestry(path) if above.kind in kinds), None)

    def chassis_of(self, path: str) -> str:
        """Path of the chassis in which a resource is; by its own path where no link tells."""
        if owner := self.owner(path, "Chassis"):
            return owner.path
        before, chassis, after = plain(path).partition("/Chassis/")
        return f"{before}{chassis}{after.partition('/')[0]}" if chassis else ""

    def is_miscounted(self, path: str) -> bool:
        """Whether a list on the way to the resource holds another number than it says."""
        return any(above.path in self.miscounted for above, _ in self.ancestry(path))


def service_of(documents: Mapping[str, Document]) -> Service:
    """The documents' resources; what stands in several documents is taken from its own."""
    resources: dict[str, Resource] = {}
    for source in documents:
        for path, body in resources_in(plain(source), documents[source]):
            if path not in resources or path == plain(source):
                resources[path] = Resource(
                    path=path, kind=kind_of(body), body=body, source=plain(source)
                )
    by_kind: dict[str, list[Resource]] = {}
    for resource in resources.values():
        by_kind.setdefault(resource.kind, []).append(resource)
    return Service(
        resources=resources,
        by_kind={kind: tuple(found) for kind, found in by_kind.items()},
        owners=_owners(resources),
        miscounted=frozenset(path for path, held in resources.items() if _miscounts(held.body)),
        cooling=frozenset(
            path
            for unit in resources.values()
            if unit.kind in COOLING
            for path in linked_paths(unit.body, "Chassis")
        ),
    )


def _owners(resources: Mapping[str, Resource]) -> dict[str, tuple[str, str]]:
    owners: dict[str, tuple[str, str]] = {}
    for path, resource in resources.items():
        body = resource.body
        for name in followed(body):
            if isinstance(body[name], list) and name not in _LISTS:
                continue
            for pointer, inner in nested(body, name):
                target = inside(inner.get("@odata.id")) or f"{path}#{pointer}"
                if target != path:
                    owners.setdefault(target, (path, name))
    return owners


def _miscounts(body: Document) -> bool:
    told: Any = body.get("Members@odata.count")
    if not isinstance(told, int) or isinstance(told, bool) or "Members@odata.nextLink" in body:
        return False
    return isinstance(body.get("Members"), list) and told != len(body["Members"])


def linked_paths(body: Document, name: str) -> tuple[str, ...]:
    """Where the links of a resource's `Links` property of this name lead."""
    found = (inside(row.get("@odata.id")) for row in rows(table(body, "Links"), name))
    return tuple(path for path in found if path)
