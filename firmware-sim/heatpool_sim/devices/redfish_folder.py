"""A directory of caught Redfish pages as a tree: DMTF's mock-up form, flat files, or both.

Files keep their bytes. Where a capture has no root, one is made up that leads to its resources.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatpool.errors import ConfigError
from heatpool_sim.devices import redfish_bridge as bridge
from heatpool_sim.devices.redfish_tree import JSON_TYPE, ROOT, Page, Resource, normal

_LARGEST_BYTES = 16 * 1024 * 1024  # no page of a BMC comes near; a disk image may lie about
_METADATA = "index.xml"  # the one page that is no JSON; other XML is schemas, which lie elsewhere
_MOST_LEVELS = 64  # pages nest a dozen levels; what walks them would run out of stack far above
# What mock-up tools lay beside the pages: headers as caught, times, the browser's settings.
_COMPANIONS = frozenset({"headers.json", "time.json", "explorer_config.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Pages and resources by path, what was odd about the files, and what had to be made up."""

    pages: dict[str, Page] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    made_up: tuple[str, ...] = ()

    def get(self, path: str) -> Resource | None:
        """The resource at a path; None where there is none, or where its file is broken."""
        return self.resources.get(normal(path))

    def patch(self, path: str, change: Resource) -> Resource | None:
        """None: a capture does not change."""
        return None

    def captured(self, path: str) -> Page | None:
        """The file's bytes; None where there is no file."""
        return self.pages.get(normal(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caught:
    """A file, what is in it, and what is wrong with it."""

    file: Path
    body: bytes
    value: Any = None
    fault: str = ""

    @property
    def own_path(self) -> str | None:
        """Where the resource says that it is."""
        told = self.value.get("@odata.id") if isinstance(self.value, dict) else None
        is_path = isinstance(told, str) and told.startswith(ROOT) and "#" not in told
        return normal(told) if is_path and isinstance(told, str) else None


def read(top: Path) -> Folder:
    """Everything in a directory that can be served.

    Raises:
        ConfigError: there is no such directory, or nothing to serve in it.
    """
    if not top.is_dir():
        raise ConfigError(["is no directory; name one that holds Redfish JSON"], file=str(top))
    top = top.resolve()
    folder = Folder()
    caught = list(_files(top, folder.oddities))
    bases = {held.file.parent for held in caught if _is_root(held)}
    lead = _lead(caught, top)
    for held in caught:
        _put(folder, _path(held, top, bases=bases, lead=lead), held)
    if not any(_is_json(held.file) for held in caught):
        text = "holds no JSON file; name a directory with caught Redfish pages"
        raise ConfigError([text], file=str(top))
    for held in caught:
        _alias(folder, held)
    return _with_root(folder)


def _files(top: Path, oddities: list[str]) -> Iterator[_Caught]:
    for place, folders, names in os.walk(top):
        folders.sort()
        # index.json first, then by name: of two claims to a path, the first wins.
        for name in sorted(names, key=lambda name: (name != "index.json", name)):
            file = Path(place, name)
            if name in _COMPANIONS or not (_is_json(file) or name == _METADATA):
                continue
            try:
                # A pipe would wait for ever; a link may lead to other files of this machine.
                if not file.is_file() or not file.resolve().is_relative_to(top):
                    oddities.append(f"{file}: no file of this directory, left out")
                    continue
                if file.stat().st_size > _LARGEST_BYTES:
                    oddities.append(f"{file}: too large for a page, left out")
                    continue
                held = _looked_at(file, file.read_bytes())
            except OSError as error:
                oddities.append(f"{file}: {error.strerror}, left out")
                continue
            if held.fault:
                oddities.append(f"{file}: {held.fault}, served as it is")
            yield held


def _looked_at(file: Path, body: bytes) -> _Caught:
    if not _is_json(file):
        return _Caught(file=file, body=body)
    try:
        value = json.loads(body)
    except RecursionError:
        return _Caught(file=file, body=body, fault="nested too deeply")
    except ValueError as error:
        return _Caught(file=file, body=body, fault=f"no JSON ({error})")
    if _is_deep(value):
        return _Caught(file=file, body=body, fault="nested too deeply")
    fault = "" if isinstance(value, dict) else "no JSON object"
    return _Caught(file=file, body=body, value=value, fault=fault)


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MOST_LEVELS):
        within = [held.values() if isinstance(held, dict) else held for held in level]
        level = [held for part in within for held in part if isinstance(held, dict | list)]
    return bool(level)


def _is_json(file: Path) -> bool:
    return file.suffix.lower() == ".json"


def _is_root(held: _Caught) -> bool:
    return held.file.name == "index.json" and held.own_path == ROOT


def _path(held: _Caught, top: Path, *, bases: set[Path], lead: str) -> str:
    """Where a file is served: by its folder in the tree form, by its own word in the flat one."""
    is_index = held.file.stem == "index"
    base = _base(held.file, top, bases)
    if base is not None and (is_index or held.own_path is None):
        return _below(ROOT, held.file.parent if is_index else held.file, base)
    if is_index:
        return _below(lead, held.file.parent, top)
    if held.own_path is not None:
        return held.own_path
    if held.file.stem.startswith("redfish_v1"):
        return "/" + held.file.stem.replace("_", "/")
    return _below(ROOT, held.file.with_suffix(""), top)


def _base(file: Path, top: Path, bases: set[Path]) -> Path | None:
    """The folder of the root above a file; None where none is."""
    for place in file.parents:
        if place in bases or (place.name == "v1" and place.parent.name == "redfish"):
            return place
        if place == top and bases:
            # What the folders above are called tells nothing of a directory with its own root.
            return None
    return None


def _lead(caught: list[_Caught], top: Path) -> str:
    """The directory's own path, by the word of a page in it: a capture may lack its top."""
    for held in caught:
        within = held.file.parent.relative_to(top).parts
        told = (held.own_path or "").split("/")
        if held.file.name == "index.json" and within and tuple(told[-len(within) :]) == within:
            return "/".join(told[: -len(within)])
    return ROOT


def _below(lead: str, place: Path, base: Path) -> str:
    return normal("/".join((lead, *place.relative_to(base).parts)))


def _put(folder: Folder, path: str, held: _Caught) -> None:
    if path in folder.pages:
        folder.oddities.append(f"{held.file}: {path} is already another file's, left out")
        return
    content_type = JSON_TYPE if _is_json(held.file) else "application/xml"
    folder.pages[path] = Page(body=held.body, content_type=content_type)
    if isinstance(held.value, dict):
        folder.resources[path] = held.value


def _alias(folder: Folder, held: _Caught) -> None:
    """A page whose folder and word differ is also found where it says it is, if that is free."""
    path = held.own_path
    if path is not None and path not in folder.pages:
        folder.pages[path] = Page(body=held.body)
        folder.resources[path] = held.value
        folder.oddities.append(f"{held.file}: says it is {path}, served there too")


def _with_root(folder: Folder) -> Folder:
    if ROOT in folder.pages:
        return folder
    bridges = bridge.bridges(folder.resources)
    return Folder(
        pages=folder.pages,
        resources=bridges | folder.resources,
        oddities=folder.oddities,
        made_up=tuple(sorted(bridges)),
    )
