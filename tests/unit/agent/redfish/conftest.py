"""Small services made of dictionaries, and real captures walked by their links."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from heatpool.errors import WireError
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.redfish import REFUSED, Document, parse, redfish_readings, wanted

ROOT = "/redfish/v1"
STAMP = Stamp(sensor="bmc", loop="rack", event_ns=7, boot_ns=5)


class Told:
    """The readings of one pass, looked up by what they are."""

    def __init__(self, documents: Mapping[str, Document]) -> None:
        self.documents = dict(documents)
        self.all = redfish_readings(documents, STAMP, primary_loop="facility")

    def of(self, node: str, quantity: str = "power_w", *, loop: str = "rack") -> list[Reading]:
        return [r for r in self.all if (r.node.value, r.quantity, r.loop) == (node, quantity, loop)]

    def used(self, node: str, quantity: str = "power_w", *, loop: str = "rack") -> list[float]:
        """What a sum would hold."""
        return [
            r.value
            for r in self.of(node, quantity, loop=loop)
            if not {"lower_rank", "set_copy", *REFUSED} & set(r.flags)
        ]

    def state(self, quantity: str) -> list[float]:
        return [r.value for r in self.all if r.quantity == quantity]

    def at(self, channel: str, quantity: str) -> Reading:
        (found,) = [r for r in self.all if (r.channel, r.quantity) == (channel, quantity)]
        return found


@pytest.fixture
def told() -> Callable[[Mapping[str, Any]], Told]:
    return Told


@pytest.fixture
def walked(realdata: Path) -> Callable[..., Told]:
    """A capture with `index.json` in each folder, discovered as a driver does."""

    def walk(capture: str, *starts: str) -> Told:
        base = realdata / "02_redfish" / capture
        documents: dict[str, Document] = {}
        todo = list(starts or [ROOT])
        seen = set(todo)
        while todo:
            path = todo.pop(0)
            file = base / path.removeprefix(ROOT).lstrip("/") / "index.json"
            if not file.exists():
                continue
            try:
                documents[path] = parse(file.read_bytes(), path)
            except WireError:
                continue
            todo += [link for link in wanted(path, documents[path]) if link not in seen]
            seen.update(todo)
        return Told(documents)

    return walk


@pytest.fixture
def flat(realdata: Path) -> Callable[..., Told]:
    """Single files of a capture, each under its own path or the one that is named."""

    def read(folder: str, *files: str, **paths: str) -> Told:
        base = realdata / "02_redfish" / folder
        documents: dict[str, Document] = {}
        for name in (*files, *paths):
            body = parse((base / f"{name}.json").read_bytes(), name)
            documents[paths.get(name) or body["@odata.id"]] = body
        return Told(documents)

    return read
