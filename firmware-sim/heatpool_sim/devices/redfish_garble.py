"""What a BMC gets wrong in its answers, by the name of the fault."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from heatpool_sim.devices.redfish_tree import ROOT, Find, Page, Resource, normal

SLOW = "redfish_slow"
BUSY = "redfish_503"
SESSION_LOST = "redfish_401"
NO_SLOT = "redfish_no_slot"
SILENT = "offline"
WRONG_CLOCK = "redfish_wrong_clock"

# A clock that lost its battery; whole four-year cycles, so that 29 February stays a date.
CLOCK_BEHIND = timedelta(days=20 * 365.25)
FOREIGN = "http://bmc.invalid/redfish/v1/Chassis/Elsewhere"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def wrong(resource: Resource, *, find: Find, faults: frozenset[str]) -> Resource:
    """The resource with the faults of content that last now."""
    if "redfish_count_wrong" in faults:
        resource = _miscounted(resource)
    if "redfish_link_loop" in faults:
        resource = _looped(resource)
    if "redfish_foreign_link" in faults:
        resource = _with_member(resource, FOREIGN)
    if "redfish_rating_as_input" in faults:
        resource = _rated(resource, find)
    if WRONG_CLOCK in faults:
        resource = _belated(resource)
    return resource


def broken(page: Page, faults: frozenset[str]) -> Page:
    """The page with the faults of form that last now."""
    if "redfish_html" in faults:
        html = b"<!DOCTYPE html><html><body><h1>Please wait</h1></body></html>"
        return Page(body=html, content_type="text/html")
    if "redfish_empty" in faults:
        return Page(body=b"", content_type=page.content_type)
    if "redfish_half_json" in faults:
        return Page(body=page.body[: len(page.body) // 2], content_type=page.content_type)
    return page


def written(resource: Resource) -> Page:
    """A resource as its bytes."""
    return Page(body=json.dumps(resource, indent=2).encode())


def _miscounted(resource: Resource) -> Resource:
    count = resource.get("Members@odata.count")
    return {**resource, "Members@odata.count": count + 1} if isinstance(count, int) else resource


def _looped(resource: Resource) -> Resource:
    path = resource.get("@odata.id")
    if not isinstance(path, str) or not isinstance(resource.get("Members"), list):
        return resource
    return {**_with_member(resource, path), "Members@odata.nextLink": path}


def _with_member(resource: Resource, path: str) -> Resource:
    members = resource.get("Members")
    if not isinstance(members, list):
        return resource
    changed = {**resource, "Members": [*members, {"@odata.id": path}]}
    changed["Members@odata.count"] = len(members) + 1
    return changed


def _rated(resource: Resource, find: Find) -> Resource:
    """Each power supply shows its rating where its input power should be."""
    if "InputPowerWatts" in resource:
        path = normal(str(resource.get("@odata.id", ""))).rpartition("/")[0]
        rating_w = (find(path) or {} if path.startswith(ROOT) else {}).get("PowerCapacityWatts")
        if rating_w is None:
            return resource
        told = resource["InputPowerWatts"]
        as_told = {**told, "Reading": rating_w} if isinstance(told, Mapping) else rating_w
        return {**resource, "InputPowerWatts": as_told}
    supplies = resource.get("PowerSupplies")
    if not isinstance(supplies, list):
        return resource
    return {**resource, "PowerSupplies": list(_rated_legacy(supplies))}


def _rated_legacy(supplies: list[Any]) -> Iterator[Any]:
    for supply in supplies:
        rating_w = supply.get("PowerCapacityWatts") if isinstance(supply, Mapping) else None
        yield supply if rating_w is None else {**supply, "PowerInputWatts": rating_w}


def _belated(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _belated(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_belated(held) for held in value]
    if isinstance(value, str) and _TIME.match(value):
        try:
            return (datetime.fromisoformat(value) - CLOCK_BEHIND).isoformat()
        except (ValueError, OverflowError):
            return value
    return value
