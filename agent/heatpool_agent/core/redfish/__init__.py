"""Redfish: documents of a BMC, a power shelf or a cooling unit, in our words and units."""

from heatpool_agent.core.redfish.document import Document, parse
from heatpool_agent.core.redfish.flags import LOWER_RANK, NOT_ADDED, REFUSED, SET_COPY
from heatpool_agent.core.redfish.links import wanted
from heatpool_agent.core.redfish.readings import polled, redfish_readings, sensing_interval_s

__all__ = [
    "LOWER_RANK",
    "NOT_ADDED",
    "REFUSED",
    "SET_COPY",
    "Document",
    "parse",
    "polled",
    "redfish_readings",
    "sensing_interval_s",
    "wanted",
]
