"""How long files and functions are. An exception is a line here with its reason."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 50
# 1,500 by the design, and 20 for a journal that no stranger's words can break into.
CONTRACT_LINES = 1520
PROCESS_LINES = 300

# "path": "why this one reads better long"
LONG_FILES: Mapping[str, str] = {}
# "path:function": "why this one reads better long"
LONG_FUNCTIONS: Mapping[str, str] = {}

PAGE_SUFFIXES = (".js", ".css", ".html")


def lines_of(text: str) -> int:
    return len(text.splitlines())


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_is_longer_than_it_can_be_read(sources: Mapping[str, str]) -> None:
    found = {path: lines_of(text) for path, text in sources.items()}
    assert {p for p, n in found.items() if n > FILE_LINES} == set(LONG_FILES)


def test_no_file_of_the_page_is_longer_either(repository: Path) -> None:
    pages = (repository / "aggregator" / "heatpool_aggregator" / "web" / "static").rglob("*")
    found = {p.name: lines_of(p.read_text()) for p in pages if p.suffix in PAGE_SUFFIXES}
    assert {name: n for name, n in found.items() if n > FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen(trees: Mapping[str, ast.Module]) -> None:
    found = {f"{path}:{name}": n for path, tree in trees.items() for name, n in functions(tree)}
    assert {where for where, n in found.items() if n > FUNCTION_LINES} == set(LONG_FUNCTIONS)


def test_the_contract_stays_small(sources: Mapping[str, str]) -> None:
    own = {p: lines_of(text) for p, text in sources.items() if p.startswith("protos/heatpool/")}
    assert sum(own.values()) <= CONTRACT_LINES
    assert sum(n for p, n in own.items() if "/process/" in p) <= PROCESS_LINES
