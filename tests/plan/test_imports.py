"""What a module drags in: cores stay pure, every module stands alone, the agent stays light."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

PURE = ("heatpool_agent.core", "heatpool_aggregator.core", "heatpool_sim.plant")
# What no pure module may have loaded, not even through something it imports.
WORLD = frozenset(
    "aiohttp asyncio click concurrent.futures google.protobuf grpc highspy http logging "
    "multiprocessing pathlib prometheus_client psutil pymodbus pynvml queue random secrets "
    "selectors serial shutil signal socket sqlite3 sqlite_utils ssl subprocess tempfile threading "
    "urllib.request zeroconf".split()
)
# What a part of the house must do without: absent from an installation with [agent] alone; too
# heavy for the operator's command on a laptop.
ABSENT = {
    "heatpool_agent": "numpy highspy grpc_health grpc_reflection grpc_status heatpool_aggregator",
    "heatpool_aggregator.client": "numpy highspy sqlite3 aiohttp prometheus_client heatpool_agent",
}
# Loaded before the forks, to save seconds; only where what is loaded is not the question.
PRELOADED = ("aiohttp.web", "click", "grpc.aio", "msgspec", "numpy", "prometheus_client")
# Modules of the contract that fewer than two programs import, each with the reason.
ONE_PROGRAM = {
    "heatpool.water": "the arithmetic behind heat; stores and networks of the aggregator need it",
    "heatpool.heat": "the aggregator's storage and disputes compute with the same coefficient",
    "heatpool.period": "the grid on which sites and utility must cut energy at the same instants",
    "heatpool.uncertainty": "virtual sources combine the doubts of their sites",
}

Answer = Mapping[str, Any]


def import_alone(names: Iterable[str], *preloaded: str) -> list[Answer]:
    script = Path(__file__).with_name("import_alone.py")
    done = subprocess.run(
        [sys.executable, str(script), *preloaded],
        input="\n".join(names),
        capture_output=True,
        text=True,
        check=True,
        timeout=1_200,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_pure(name: str) -> bool:
    package, _, rest = name.partition(".")
    is_contract = package == "heatpool" and rest.partition(".")[0] not in ("", "v1", "process")
    return is_contract or name.startswith(PURE)


def imports_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def pure_answers(modules: Mapping[str, str]) -> list[Answer]:
    return import_alone(name for name in modules if is_pure(name))


def test_nothing_of_the_world_is_loaded_by_a_pure_module(pure_answers: list[Answer]) -> None:
    found = {a["module"]: sorted(WORLD & set(a["loaded"])) for a in pure_answers}
    assert {name: names for name, names in found.items() if names} == {}


def test_the_contract_loads_no_numpy(pure_answers: list[Answer]) -> None:
    own = [a for a in pure_answers if a["module"].startswith("heatpool.")]
    assert [a["module"] for a in own if "numpy" in a["loaded"]] == []


@pytest.mark.timeout(1_200)
def test_every_module_imports_alone(modules: Mapping[str, str]) -> None:
    answers = import_alone((m for m in modules if not m.endswith("__main__")), *PRELOADED)
    assert {a["module"]: a["error"] for a in answers if a["error"]} == {}
    assert len(answers) > 50


@pytest.mark.parametrize("part", ABSENT)
def test_a_light_part_imports_where_the_heavy_packages_are_absent(
    part: str, modules: Mapping[str, str]
) -> None:
    own = [name for name in modules if f"{name}.".startswith(f"{part}.")]
    # None in sys.modules makes an import fail, as where the package is not installed.
    code = "import sys, importlib\n"
    code += f"sys.modules.update(dict.fromkeys({ABSENT[part].split()}))\n"
    code += "for name in sys.argv[1:]: importlib.import_module(name)\n"
    command = [sys.executable, "-c", code, *own]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(own) > 3


def test_a_module_of_the_contract_serves_at_least_two_programs(
    modules: Mapping[str, str], trees: Mapping[str, ast.Module]
) -> None:
    users: dict[str, set[str]] = {name: set() for name in modules if is_pure(name)}
    named = {path: set(imports_of(tree)) for path, tree in trees.items()}
    for name, path in modules.items():
        program = name.partition(".")[0]
        for used in named.get(path, set()) & users.keys() if program != "heatpool" else ():
            users[used].add(program)
    own = {name: who for name, who in users.items() if name.startswith("heatpool.")}
    assert {name for name, who in own.items() if len(who) < 2} <= ONE_PROGRAM.keys()
