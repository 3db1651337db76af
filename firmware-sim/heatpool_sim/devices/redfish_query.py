"""Query parameters of Redfish on a resource: $skip, $top, only, $expand (DSP0266, 7.3)."""

import re
from collections.abc import Mapping
from typing import Any

from heatpool_sim.devices.redfish_tree import ChangeRefused, Find, Resource, normal

MOST_LEVELS = 3
_EXPAND = re.compile(r"([.~*])(?:\(\$levels=(\d+)\))?")


def answered(resource: Resource, query: Mapping[str, str], find: Find) -> Resource:
    """The resource as the query asks for it.

    Raises:
        ChangeRefused: the query cannot be answered here.
    """
    if "$skiptoken" in query:
        # A page that a capture's own nextLink promises; had it been caught, the tree would hold it.
        raise ChangeRefused("ResourceMissingAtURI", f"$skiptoken={query['$skiptoken']}")
    for name in ("only", "excerpt"):
        if query.get(name):
            raise ChangeRefused("QueryParameterValueTypeError", query[name], name)
    known = {"$skip", "$top", "$expand", "only"}
    if any(name.startswith("$") and name not in known for name in query):
        raise ChangeRefused("QueryNotSupported")
    asked = known & query.keys()
    if not asked:
        return resource
    is_collection = isinstance(resource.get("Members"), list)
    if not is_collection and asked != {"$expand"}:
        raise ChangeRefused("QueryNotSupportedOnResource")
    if "only" in asked:
        return _only(resource, find, is_alone=asked == {"only"})
    paged = _paged(resource, query) if asked & {"$skip", "$top"} else resource
    return _expanded(paged, query["$expand"], find) if "$expand" in asked else paged


def _only(resource: Resource, find: Find, *, is_alone: bool) -> Resource:
    if not is_alone:
        raise ChangeRefused("QueryCombinationInvalid")
    members = resource["Members"]
    if len(members) != 1:
        return resource
    return _behind(members[0], find) or resource


def _paged(resource: Resource, query: Mapping[str, str]) -> Resource:
    members = resource["Members"]
    skip = _whole(query, "$skip", 0)
    top = _whole(query, "$top", len(members))
    page = {**resource, "Members": members[skip : skip + top]}
    page.pop("Members@odata.nextLink", None)
    if 0 < top < len(members) - skip:
        path = resource.get("@odata.id", "")
        page["Members@odata.nextLink"] = f"{path}?$skip={skip + top}&$top={top}"
    return page


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise ChangeRefused("QueryParameterValueTypeError", text, name)
    if int(text) < 0:
        raise ChangeRefused("QueryParameterOutOfRange", text, name, "0 and above")
    return int(text)


def _expanded(resource: Resource, wish: str, find: Find) -> Resource:
    match = _EXPAND.fullmatch(wish)
    if match is None:
        raise ChangeRefused("QueryParameterValueTypeError", wish, "$expand")
    levels = int(match[2] or 1)
    if not 1 <= levels <= MOST_LEVELS:
        raise ChangeRefused("QueryParameterOutOfRange", wish, "$expand", f"1 to {MOST_LEVELS}")
    grown = _grown(resource, which=match[1], levels=levels, find=find)
    return grown if isinstance(grown, Mapping) else resource


def _grown(value: Any, *, which: str, levels: int, find: Find, is_in_links: bool = False) -> Any:
    """The value with its links replaced: `.` those outside Links, `~` those inside, `*` all."""
    if isinstance(value, list):
        return [
            _grown(held, which=which, levels=levels, find=find, is_in_links=is_in_links)
            for held in value
        ]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"@odata.id"}:
        is_wanted = which == "*" or (which == "~") == is_in_links
        behind = _behind(value, find) if is_wanted and levels > 0 else None
        if behind is None:
            return value
        return _grown(behind, which=which, levels=levels - 1, find=find)
    return {
        key: _grown(
            held,
            which=which,
            levels=levels,
            find=find,
            is_in_links=is_in_links or key == "Links",
        )
        for key, held in value.items()
    }


def _behind(link: Any, find: Find) -> Resource | None:
    path = link.get("@odata.id") if isinstance(link, Mapping) else None
    return find(normal(path)) if isinstance(path, str) and "#" not in path else None
