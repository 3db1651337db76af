"""What a Redfish service serves: resources by path. How they come to be is the tree's affair."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote

from heatpool.errors import HeatpoolError

ROOT = "/redfish/v1"
METADATA = f"{ROOT}/$metadata"
ODATA = f"{ROOT}/odata"
JSON_TYPE = "application/json;charset=utf-8"

# Other resources are also named by bare words: the sensor of a reading, the rules of an action.
_LINKS = ("@odata.id", "@odata.nextLink", "@Redfish.ActionInfo", "DataSourceUri")

Resource = Mapping[str, Any]
Find = Callable[[str], Resource | None]


class Tree(Protocol):
    """Resources by their path; a slash at its end makes no difference."""

    def get(self, path: str) -> Resource | None:
        """The resource as it is now; None where there is none."""
        ...

    def patch(self, path: str, change: Resource) -> Resource | None:
        """The resource after the change; None where it cannot be changed at all.

        An empty change alters nothing: the service asks by it whether PATCH is allowed.

        Raises:
            ChangeRefused: a property or its value is not accepted.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A body with its content type, byte for byte as a client gets it."""

    body: bytes
    content_type: str = JSON_TYPE


@runtime_checkable
class Captured(Protocol):
    """A tree that also holds pages as a device once sent them, broken ones among them."""

    def captured(self, path: str) -> Page | None:
        """The page as it was caught; None where there is none."""
        ...


class ChangeRefused(HeatpoolError):
    """A change that the tree does not take: `key` of the Base registry, its arguments, where."""

    def __init__(self, key: str, *args: str, where: str = "") -> None:
        self.key = key
        self.arguments = args
        self.where = where
        super().__init__(f"{key} {' '.join(args)}".strip())


def normal(path: str) -> str:
    """The path as trees know it: decoded, without a slash at its end."""
    return unquote(path).rstrip("/") or "/"


def links(value: Any) -> Iterator[str]:
    """Every link in a resource and the page that comes after it, its own path among them."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            if isinstance(held, str) and key.endswith(_LINKS):
                yield held
            else:
                yield from links(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from links(held)


def reachable(find: Find, start: str = ROOT) -> dict[str, Resource]:
    """All resources that links lead to from `start`, by path."""
    found: dict[str, Resource] = {}
    ahead = [start]
    while ahead:
        path = normal(ahead.pop().split("#")[0])
        resource = None if path in found else find(path)
        if resource is not None:
            found[path] = resource
            ahead.extend(links(resource))
    return found
