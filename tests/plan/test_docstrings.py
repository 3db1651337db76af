"""What the contract and the cores promise in words: every public function, every module."""

import ast
from collections.abc import Iterator, Mapping

PROMISES = (
    "protos/heatpool/",
    "agent/heatpool_agent/core/",
    "aggregator/heatpool_aggregator/core/",
    "firmware-sim/heatpool_sim/plant/",
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(body: list[ast.stmt], name: str = "") -> Iterator[tuple[str, Function]]:
    """Functions of a module and methods of its public classes."""
    for node in body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield f"{name}{node.name}", node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{node.name}.")


def speaks_by_its_name(node: Function) -> bool:
    """Overloads, whose last one speaks, and properties without a body: fields of a protocol."""
    marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
    return "overload" in marks or ("property" in marks and ast.unparse(node.body[-1]) == "...")


def test_every_public_function_of_contract_and_cores_says_what_it_gives(
    trees: Mapping[str, ast.Module],
) -> None:
    silent = [
        f"{path}:{name}"
        for path, tree in trees.items()
        if path.startswith(PROMISES)
        for name, node in public_functions(tree.body)
        if not speaks_by_its_name(node) and not ast.get_docstring(node)
    ]
    assert not silent, "\n".join(silent)


def test_every_module_says_what_belongs_in_it(trees: Mapping[str, ast.Module]) -> None:
    silent = [path for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert not silent, "\n".join(silent)
