"""The example that people copy: valid as it stands, valid with every example line uncommented."""

import asyncio
import configparser
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from heatpool.sample import SiteId
from heatpool_agent import config
from heatpool_agent.assembly import SystemClock, open_parts
from heatpool_agent.board import Board

ROOM = Path(__file__).resolve().parents[3] / "agent"
# As the package carries it; the one on the shelf is a link to it.
EXAMPLE = Path(config.__file__).parent / "data" / "agent.example.toml"
# Examples of keys that the file gives a value already.
TWICE = '#url = "http'


def uncommented(text: str) -> str:
    """Every example line without its mark; one that is set already replaces the line before."""
    lines: list[str] = []
    for line in text.splitlines():
        lines = lines[:-1] if line.startswith(TWICE) else lines
        lines.append(re.sub(r"^#(?=[a-z\[])", "", line))
    return "\n".join(lines)


def test_the_example_is_what_happens_without_it() -> None:
    assert config.load(EXAMPLE, {}) == config.load(None, {})


@pytest.fixture
def whole(tmp_path: Path) -> config.Config:
    path = tmp_path / "agent.toml"
    path.write_text(uncommented(EXAMPLE.read_text(encoding="utf-8")), encoding="utf-8")
    return config.load(path, {})


def test_the_example_names_every_key(whole: config.Config) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    shelves = (whole.site, whole.sampling, whole.loop[0], whole.aggregator, whole.spool, whole.http)
    keys = [key for shelf in (*shelves, whole.roots) for key in shelf.__struct_fields__]
    assert [key for key in keys if not re.search(rf"^#?{key} = ", text, re.MULTILINE)] == []


def test_drivers_accept_every_block_of_the_example(whole: config.Config) -> None:
    async def opened() -> tuple[int, int]:
        async with AsyncExitStack() as stack:
            clock = SystemClock()
            board = Board(site_id=SiteId("x"))
            sensors, obeys = await open_parts(whole, board, clock, stack)
            return len(sensors), len(obeys)

    assert asyncio.run(opened()) == (3, 1)


def test_the_unit_asks_for_the_watchdog_and_for_no_power() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    unit.read(ROOM / "heatpool-agent.service", encoding="utf-8")
    service = unit["Service"]
    assert (service["Type"], service["WatchdogSec"], service["Restart"]) == (
        "notify",
        "30",
        "always",
    )
    assert (service["User"], service["CapabilityBoundingSet"]) == ("heatpool", "")
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    assert service["MemoryMax"] == "128M"
