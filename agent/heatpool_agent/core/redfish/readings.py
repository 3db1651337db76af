"""All readings of one pass over a service, each thing once or marked."""

from collections.abc import Mapping

from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.redfish.document import Document


def redfish_readings(
    documents: Mapping[str, Document], stamp: Stamp, *, primary_loop: str = ""
) -> tuple[Reading, ...]:
    """What the documents say now; channels are their paths, `#/pointer` where one holds many."""
    raise NotImplementedError
