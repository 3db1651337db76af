"""constraints.txt: exact versions and nothing else; everything that an extra asks for is in it."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

LINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.+!]*")
EXTRAS = ("agent", "aggregator", "sim", "test", "dev")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines)}


def requirements(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    texts = list(project["dependencies"])
    for extra in EXTRAS:
        texts += project["optional-dependencies"][extra]
    found = [Requirement(text) for text in texts]
    return [requirement for requirement in found if requirement.name != "heatpool"]


def test_each_line_is_one_exact_version(repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert lines == sorted(set(lines), key=str.lower)


def test_everything_asked_for_is_pinned_inside_its_bounds(repository: Path) -> None:
    pins = pinned(repository)
    asked = requirements(repository)
    assert {r.name for r in asked if normal(r.name) not in pins} == set()
    assert {r.name for r in asked if pins[normal(r.name)] not in r.specifier} == set()
