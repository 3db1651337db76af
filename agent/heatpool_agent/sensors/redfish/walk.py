"""One pass over the documents of a service, which may be interrupted and goes on later."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable

from heatpool.errors import SensorBusy, WireError
from heatpool.process.journal import facts
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.redfish import Document, parse, wanted
from heatpool_agent.sensors.redfish.answer import Answer, Transport, own_path, place

logger = logging.getLogger(__name__)

# The largest service known to us has 255 documents, 7 links deep where heat and power are told.
MAX_DOCUMENTS = 600
MAX_LINKS_DEEP = 12
MAX_TOTAL_BYTES = 16 << 20
NOTHING_THERE = (404, 410)
_SHOWN_CHARACTERS = 200


class Refusals:
    """Documents that could not be read, each with its reason; told once, until it reads again.

    `busy` are those whose wish for patience was granted once.
    """

    def __init__(self, sensor: str) -> None:
        self.reasons: dict[str, str] = {}
        self.busy: set[str] = set()
        self._sensor = sensor

    def add(self, path: str, reason: str) -> None:
        """Another refusal of this document."""
        if path not in self.reasons:
            logger.warning(
                "redfish.refused",
                extra=facts(
                    sensor=self._sensor,
                    path=path,
                    reason=reason,
                    refused=len(self.reasons) + 1,
                ),
            )
        self.reasons[path] = reason

    def mended(self, path: str) -> None:
        """The document was read."""
        self.busy.discard(path)
        if self.reasons.pop(path, None) is not None:
            logger.info("redfish.mended", extra=facts(sensor=self._sensor, path=path))

    def left(self, path: str) -> None:
        """The document is there no more."""
        self.busy.discard(path)
        self.reasons.pop(path, None)


class Walk:
    """A discovery follows links; a poll reads the paths that it is given."""

    def __init__(self, paths: Iterable[str], stamp: Stamp, *, follows: bool) -> None:
        self.stamp = stamp
        self.follows = follows
        self.documents: dict[str, Document] = {}
        # Whether a path of the last discovery is no more.
        self.has_lost = False
        self._todo: deque[tuple[str, int]] = deque()
        self._seen: set[str] = set()
        self._total_bytes = 0
        self._has_foreign = False
        for path in paths:
            self._add(path, 0)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to ask."""
        return not self._todo

    async def step(self, transport: Transport, refusals: Refusals) -> None:
        """Asks the next question; an interrupted one is asked again.

        Raises what `Transport.get` raises, but for a WireError: that is this document's alone.
        """
        path, depth = self._todo[0]
        try:
            answer = await transport.get(path)
        except SensorBusy as error:
            # One resource that never gets ready must not keep the others from us, in this walk
            # or in any that follows.
            if path not in refusals.busy or not self.documents:
                refusals.busy.add(path)
                raise
            refusals.add(path, str(error))
        except WireError as error:
            refusals.add(path, str(error))
        else:
            await self._take(path, depth, answer, refusals=refusals)
        self._todo.popleft()

    async def _take(self, path: str, depth: int, answer: Answer, *, refusals: Refusals) -> None:
        if answer.status in NOTHING_THERE:
            self.has_lost = self.has_lost or not self.follows
            refusals.left(path)
            return
        if answer.status != 200:
            refusals.add(path, f"redfish: {path} answered status {answer.status}")
            return
        is_followed = self.follows and depth < MAX_LINKS_DEEP
        try:
            # On a thread: one document may hold megabytes.
            document, links = await asyncio.to_thread(_opened, answer.body, path, is_followed)
        except WireError as error:
            refusals.add(path, str(error))
            return
        refusals.mended(path)
        self.documents[place(path)] = document
        self._total_bytes += len(answer.body)
        self._follow(links, depth)

    def _follow(self, links: Iterable[str], depth: int) -> None:
        for link in links:
            if len(self._seen) >= MAX_DOCUMENTS or self._total_bytes > MAX_TOTAL_BYTES:
                return
            self._add(link, depth + 1)

    def _add(self, link: str, depth: int) -> None:
        path = own_path(link)
        if path is None:
            # The first alone, and its beginning: a document may hold any number of any length.
            if not self._has_foreign:
                logger.info("redfish.foreign_link", extra=facts(link=link[:_SHOWN_CHARACTERS]))
            self._has_foreign = True
        elif place(path) not in self._seen:
            self._seen.add(place(path))
            self._todo.append((path, depth))


def _opened(body: bytes, path: str, is_followed: bool) -> tuple[Document, tuple[str, ...]]:  # noqa: FBT001  # a thread's call
    """A document, and its links that are worth following."""
    document = parse(body, path)
    return document, tuple(wanted(path, document)) if is_followed else ()
