"""A folder of Redfish documents as a service: a tree of `index.json`, or files side by side."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from heatpool.errors import SensorGone, WireError
from heatpool_agent.ports import Tape
from heatpool_agent.sensors.redfish.answer import (
    MAX_BODY_BYTES,
    Answer,
    hidden,
    own_path,
    place,
    unpacked,
)

# The largest capture known to us has 255 documents.
MAX_FILES = 2000
ROOT = "/redfish/v1"


class FileTree:
    """The documents of one folder, found anew at each discovery and read anew at each pass."""

    slowest_s = 0.0

    def __init__(self, url: str, tape: Tape) -> None:
        self._folder = Path(unquote(urlsplit(url).path))
        self._tape = tape
        self._files: dict[str, Path] = {}

    async def starts(self) -> tuple[str, ...]:
        """The service root of a tree; every document of a folder that has none."""
        listed = await asyncio.to_thread(self._tape.look, "LIST", self._listed)
        return tuple(json.loads(listed))

    async def get(self, path: str) -> Answer:
        """The document at a path; 404 where no file holds it."""
        data = await asyncio.to_thread(
            self._tape.look, f"GET {path}", lambda: self._read(path).packed(), hide=hidden
        )
        return unpacked(data)

    async def close(self) -> None:
        """Nothing is held open."""

    def _listed(self) -> bytes:
        if not self._folder.is_dir():
            raise SensorGone(
                f"redfish: {self._folder} is no folder", fix="name the folder of a capture in url"
            )
        self._files = dict(_places(self._folder))
        is_tree = any((self._folder / root).is_file() for root in _TREE_ROOTS)
        return json.dumps([ROOT] if is_tree else list(self._files)).encode()

    def _read(self, path: str) -> Answer:
        file = self._files.get(place(path))
        try:
            return Answer(status=200, body=_body(file)) if file else Answer(status=404, body=b"")
        except FileNotFoundError:
            return Answer(status=404, body=b"")


_TREE_ROOTS = ("index.json", "redfish/v1/index.json")


def _places(folder: Path) -> Iterator[tuple[str, Path]]:
    """The path of each document, with its file; of two that claim one path the first has it."""
    taken: set[str] = set()
    is_rooted = (folder / "index.json").is_file()
    for file in _json_files(folder):
        shown = file.relative_to(folder).as_posix()
        path = place(_tree_path(shown, is_rooted=is_rooted) or _told_path(file) or f"/{shown}")
        if path in taken or own_path(path) != path:
            path = quote(f"/{shown}")
        taken.add(path)
        yield path, file


def _json_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place_, folders, names in os.walk(folder):
        folders.sort()
        listed = (Path(place_, name) for name in sorted(names) if name.endswith(".json"))
        # Opening a pipe would wait for whoever writes into it.
        found += [file for file in listed if file.is_file()]
        if len(found) > MAX_FILES:
            raise SensorGone(
                f"redfish: {folder} holds more than {MAX_FILES} documents",
                fix="name the folder of one service in url",
            )
    return found


def _tree_path(shown: str, *, is_rooted: bool) -> str | None:
    """The path that a place in a tree stands for: the folders from `redfish/v1` on."""
    if not f"/{shown}".endswith("/index.json"):
        return None
    folders = "/" + shown.removesuffix("index.json")
    _, root, rest = folders.partition(f"{ROOT}/")
    if root:
        return f"{ROOT}/{rest}"
    return f"{ROOT}{folders}" if is_rooted else None


def _told_path(file: Path) -> str | None:
    """The path that the document itself says it has."""
    try:
        told = json.loads(_body(file)).get("@odata.id")
    except (ValueError, AttributeError, RecursionError, WireError, OSError):
        return None
    return told if isinstance(told, str) and told.startswith("/") else None


def _body(file: Path) -> bytes:
    with file.open("rb") as stream:
        body = stream.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise WireError(f"redfish: {file.name} is larger than {MAX_BODY_BYTES} bytes")
    return body
