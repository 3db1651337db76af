"""A recording made by a stranger reads nothing outside of its own folder, and ends."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from heatpool.errors import ConfigError
from heatpool_agent.commands import mbus
from heatpool_agent.commands.replay import replay
from heatpool_agent.fieldbus.maps import SHELF
from heatpool_agent.tapes import own_files
from heatpool_agent.tapes.play import load

IPMI = {"id": "s", "kind": "ipmi", "via": "device"}
MODBUS = {"id": "s", "kind": "modbus", "url": "tcp://127.0.0.1:1"}
EXCHANGE = {"line": "exchange", "event_ns": 1, "boot_ns": 1, "request": "x", "answer": ""}
PASS = [
    {"line": "begin", "do": "read", "event_ns": 1, "boot_ns": 1},
    EXCHANGE,
    {"line": "end", "event_ns": 2, "boot_ns": 2},
]
LINES = "".join(f"{json.dumps(line)}\n" for line in PASS)


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Path]:
    """A recording with these sensors and one pass."""

    def write(*blocks: dict[str, Any]) -> Path:
        folder = tmp_path / "recording"
        folder.mkdir()
        manifest = {"heatpool": "0", "begun_ns": 1, "sampling": {}, "roots": {}, "loop": []}
        (folder / "manifest.json").write_text(json.dumps({**manifest, "sensor": blocks}))
        (folder / "s.jsonl").write_text(LINES)
        return folder

    return write


def _becomes_a_link(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def _becomes_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


ODD = pytest.mark.parametrize("becomes_odd", [_becomes_a_link, _becomes_a_pipe])


@ODD
@pytest.mark.timeout(20)
def test_passes_are_read_from_plain_files_alone(
    kept: Callable[..., Path], becomes_odd: Callable[[Path], None]
) -> None:
    folder = kept(IPMI)
    becomes_odd(folder / "s.jsonl")
    found = load(folder)
    assert found.passes["s"] == ()
    assert found.damaged["s"]


@ODD
@pytest.mark.timeout(20)
def test_a_manifest_is_a_plain_file(
    kept: Callable[..., Path], becomes_odd: Callable[[Path], None]
) -> None:
    folder = kept(IPMI)
    becomes_odd(folder / "manifest.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(folder)


def test_a_line_without_end_is_told(
    kept: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "MOST_LINE_BYTES", 1000)
    folder = kept(IPMI)
    (folder / "s.jsonl").write_text(LINES + "x" * 2000)
    found = load(folder)
    assert len(found.passes["s"]) == 1
    assert "a line has more than 1000 bytes" in found.damaged["s"]


def test_a_manifest_without_end_is_none(
    kept: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "MOST_FILE_BYTES", 10)
    with pytest.raises(ConfigError, match="is larger than 10 bytes"):
        load(kept(IPMI))


@pytest.mark.parametrize(
    "told",
    ["{outside}", "../outside.toml", "maps/../../outside.toml", "maps/s.toml", "../x", "s/x"],
)
@pytest.mark.timeout(20)
def test_a_map_comes_from_the_recording_or_the_shelf(
    kept: Callable[..., Path], tmp_path: Path, told: str
) -> None:
    outside = tmp_path / "outside.toml"
    outside.write_bytes((SHELF / "generic-cdu.toml").read_bytes())
    folder = kept(MODBUS | {"map": told.format(outside=outside)})
    (folder / "maps").mkdir()
    (folder / "maps" / "s.toml").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"map: is|cannot be read"):
        asyncio.run(replay(load(folder), folder))


def test_a_linked_folder_of_maps_is_refused(kept: Callable[..., Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "s.toml").write_bytes((SHELF / "generic-cdu.toml").read_bytes())
    folder = kept(MODBUS | {"map": "maps/s.toml"})
    (folder / "maps").symlink_to(outside)
    with pytest.raises(ConfigError, match="map: is"):
        asyncio.run(replay(load(folder), folder))


def test_a_recording_that_names_itself_ends(kept: Callable[..., Path], tmp_path: Path) -> None:
    folder = kept({"id": "s", "kind": "replay", "dir": str(tmp_path / "recording"), "sensor": "s"})
    document = asyncio.run(replay(load(folder), folder))
    (sensor,) = document["sensors"]
    assert (sensor["state"], document["readings"]) == ("gone", [])
    assert "within a recording" in sensor["detail"]


def test_telegrams_without_end_are_refused_before_they_take_all_memory() -> None:
    found = CliRunner().invoke(mbus.command, ["decode", "/dev/zero"])
    assert (found.exit_code, "is larger than" in found.output) == (2, True)
