"""Which documents of a service matter, told by their links alone; paths are never built."""

from collections.abc import Mapping

from heatpool_agent.core.redfish.document import Document


def wanted(path: str, document: Document) -> tuple[str, ...]:
    """Paths that this document links to and that discovery must read next, without fragments."""
    raise NotImplementedError


def polled(documents: Mapping[str, Document]) -> tuple[str, ...]:
    """Paths of the documents that carry readings, to be read again in each pass."""
    raise NotImplementedError


def sensing_interval_s(documents: Mapping[str, Document]) -> float | None:
    """How often the slowest sensor that is read measures, in s; absent if none says."""
    raise NotImplementedError
