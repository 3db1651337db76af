"""Our own sources, read once for every test of the plan."""

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = {
    "heatpool": "protos/heatpool",
    "heatpool_agent": "agent/heatpool_agent",
    "heatpool_aggregator": "aggregator/heatpool_aggregator",
    "heatpool_sim": "firmware-sim/heatpool_sim",
}
SHELVES = (*PACKAGES.values(), "tests", "bench", "docs")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def sources() -> Mapping[str, str]:
    """Text of every Python file that a person wrote, by its path from the repository's root."""
    return {
        path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
        for shelf in SHELVES
        for path in sorted((REPOSITORY / shelf).rglob("*.py"))
        if "_pb2" not in path.name
    }


@pytest.fixture(scope="session")
def trees(sources: Mapping[str, str]) -> Mapping[str, ast.Module]:
    """The same, parsed."""
    return {path: ast.parse(text) for path, text in sources.items()}


@pytest.fixture(scope="session")
def modules() -> Mapping[str, str]:
    """Path of every module of the four packages, stubs of the messages included, by dotted name."""
    return {
        _dotted(path.relative_to(REPOSITORY / root), package): path.relative_to(
            REPOSITORY
        ).as_posix()
        for package, root in PACKAGES.items()
        for path in sorted((REPOSITORY / root).rglob("*.py"))
    }


def _dotted(path: Path, package: str) -> str:
    parts = [part for part in path.with_suffix("").parts if part != "__init__"]
    return ".".join([package, *parts])
