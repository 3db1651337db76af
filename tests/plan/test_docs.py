"""The manual names what exists, and all of it: commands, keys, drivers, errors, ports, rooms."""

import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from heatpool_agent.config import Config as AgentConfig
from heatpool_aggregator.config import Config as AggregatorConfig

PARTS = ("Needs", "Quantities", "Configuration", "Limits", "How far proven")
STAGES = ("sim", "bench", "field")
ROOMS_IN_PASSING = ("__main__", "__init__")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
FUNCTION = re.compile(r"`(heatpool[a-z_]*(?:\.\w+)+):(\w+)`")


@pytest.fixture(scope="module")
def pages(repository: Path) -> Mapping[Path, str]:
    """Every page of the manual, those at the top, and those on the shelves."""
    shelves = ("agent", "aggregator", "firmware-sim", "protos")
    found = [
        *sorted((repository / "docs").rglob("*.md")),
        *sorted(repository.glob("*.md")),
        *(repository / shelf / "README.md" for shelf in shelves),
    ]
    return {path: path.read_text(encoding="utf-8") for path in found}


@pytest.fixture(scope="module")
def tables(repository: Path) -> ModuleType:
    """The generator of the tables, which is a script."""
    spec = importlib.util.spec_from_file_location("tables", repository / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return table


def page(repository: Path, name: str) -> str:
    return (repository / "docs" / name).read_text(encoding="utf-8")


def entry_modules(project: Mapping[str, Any]) -> Iterator[str]:
    for entries in project["entry-points"].values():
        yield from entries.values()
    yield from (place.partition(":")[0] for place in project["scripts"].values())


def test_the_generated_tables_are_up_to_date(
    pages: Mapping[Path, str], tables: ModuleType, repository: Path
) -> None:
    stale = [
        str(path.relative_to(repository))
        for path, text in pages.items()
        if tables.rewritten(text) != text
    ]
    assert not stale, f"run `make docs`: {stale}"


def test_the_manual_holds_every_kind_of_table(
    pages: Mapping[Path, str], tables: ModuleType
) -> None:
    found = {name for text in pages.values() for name in re.findall(r"<!-- table: (\w+)", text)}
    assert found == set(tables.MAKERS)


def test_every_link_leads_somewhere(pages: Mapping[Path, str], repository: Path) -> None:
    broken = [
        f"{path.relative_to(repository)}: {link}"
        for path, text in pages.items()
        for link in LINK.findall(text)
        if not (path.parent / link).exists()
    ]
    assert not broken, "\n".join(broken)


def test_every_command_in_prose_exists(
    pages: Mapping[Path, str], tables: ModuleType, project: Mapping[str, Any]
) -> None:
    known = {words for words, _ in re.findall(r"\| `([^`]+)` \| (.+) \|", tables.commands())}
    programs = "|".join(sorted(project["scripts"], key=len, reverse=True))
    said = re.compile(rf"(?:^|[`/ ])((?:{programs}) [a-z]+)\b", re.MULTILINE)
    code = {
        path: "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
        for path, text in pages.items()
    }
    wrong = [
        f"{path.name}: {words}"
        for path, text in code.items()
        for words in said.findall(text)
        if not any(f"{name} ".startswith(f"{words} ") for name in known)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_make_target_that_a_page_names_exists(
    pages: Mapping[Path, str], repository: Path
) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for text in pages.values()
        for word in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)
    }
    assert named <= targets
    assert {"demo", "test", "lint", "protos", "docs", "bench", "oracles"} <= targets


def test_every_port_is_a_default_and_every_default_is_told(
    pages: Mapping[Path, str], repository: Path
) -> None:
    listening = AggregatorConfig().listen
    defaults = {AgentConfig().http.listen, listening.grpc, listening.http}
    named = {a for t in pages.values() for a in re.findall(r"127\.0\.0\.1:[1-9]\d*", t)}
    assert named == defaults
    assert all(f"| `{address}` |" in page(repository, "operate.md") for address in defaults)


def test_every_path_of_the_rest_interface_is_told(repository: Path) -> None:
    views = repository / "aggregator" / "heatpool_aggregator" / "web" / "views.py"
    served = set(re.findall(r'@route\(\s*"[A-Z]+", "([^"]+)"', views.read_text()))
    told = re.findall(r"^\| (`/[^|]+) \|", page(repository, "protocol.md"), re.MULTILINE)
    assert {path for cell in told for path in re.findall(r"`([^`]+)`", cell)} == served


def test_every_call_of_the_wire_is_told(repository: Path) -> None:
    protos = (repository / "protos" / "heatpool" / "v1").glob("*.proto")
    calls = {name for p in protos for name in re.findall(r"rpc (\w+)\(", p.read_text())}
    text = page(repository, "protocol.md")
    assert {name for name in calls if not re.search(rf"\b{name}\b", text)} == set()


def test_every_entry_point_can_be_imported(project: Mapping[str, Any]) -> None:
    for module in entry_modules(project):
        importlib.import_module(module)


def test_every_sensor_driver_has_a_page_and_every_page_a_driver(
    repository: Path, project: Mapping[str, Any]
) -> None:
    found = {path.stem for path in (repository / "docs" / "drivers").glob("*.md")}
    pages = found - {"README", "template", "maps"}
    assert pages == set(project["entry-points"]["heatpool.sensors"])


@pytest.mark.parametrize("kind", ["host", "rapl", "hwmon", "nvml", "modbus", "mbus", "template"])
def test_a_driver_page_has_the_parts_of_the_template(kind: str, repository: Path) -> None:
    text = page(repository, f"drivers/{kind}.md")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == PARTS
    proven = text.split("## How far proven")[1]
    assert any(f"`{stage}`" in proven for stage in STAGES)


def test_every_function_that_physics_names_exists(repository: Path) -> None:
    named = FUNCTION.findall(page(repository, "physics.md"))
    missing = [
        f"{module}:{name}"
        for module, name in named
        if not callable(getattr(importlib.import_module(module), name, None))
    ]
    assert not missing, "\n".join(missing)
    assert len(named) > 20


def test_every_room_stands_in_the_floor_plan(repository: Path, modules: Mapping[str, str]) -> None:
    plan = page(repository, "architecture.md").split("## Floors")[1].split("\n- ")[0]
    rooms = {
        name.split(".")[1]
        for name in modules
        if name.count(".") >= 1 and not name.startswith("heatpool.")
    }
    assert {room for room in rooms if f"`{room}`" not in plan} <= set(ROOMS_IN_PASSING)


def test_the_readme_is_one_screen(repository: Path) -> None:
    assert len((repository / "README.md").read_text().splitlines()) <= 50


def test_decisions_are_numbered_without_a_hole(repository: Path) -> None:
    names = sorted(path.name for path in (repository / "docs" / "decisions").glob("*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
