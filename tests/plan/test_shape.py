"""Habits that no linter knows: who may catch everything, how tasks start, what types may hide."""

import ast
from collections.abc import Iterator, Mapping

import pytest

# Where anything may be caught: the driver supervisor, the edges of RPC and HTTP, the front doors.
CATCH_ALL = (
    "agent/heatpool_agent/loops/",
    "agent/heatpool_agent/http/",
    "aggregator/heatpool_aggregator/rpc/",
    # One durable frame that we stumble over would end the shard again at each start.
    "aggregator/heatpool_aggregator/loops/applying.py",
    "aggregator/heatpool_aggregator/web/",
)
# Modules that name a type which they import only later, each with the reason. None hides a cycle.
LATE_TYPES = {
    "agent/heatpool_agent/app.py": "a site without an actuator has no loops of obedience",
    "agent/heatpool_agent/assembly.py": "likewise, and it need not have joined",
    "agent/heatpool_agent/commands/run.py": "settings are imported without typing_extensions",
    "agent/heatpool_agent/loops/enrolment.py": "a site need not have joined",
    "agent/heatpool_agent/sensors/nvml.py": "its library is imported only where a driver answers",
}
PROGRAMS = ("agent/", "aggregator/", "firmware-sim/", "protos/")


@pytest.fixture(scope="module")
def product(trees: Mapping[str, ast.Module]) -> Mapping[str, ast.Module]:
    return {path: tree for path, tree in trees.items() if path.startswith(PROGRAMS)}


def catches_all(tree: ast.Module) -> Iterator[int]:
    """Lines that keep any error to themselves; cleaning up and raising again is no such line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            kind = ast.unparse(node.type) if node.type else "BaseException"
            ends_in_raise = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if kind in ("Exception", "BaseException") and not ends_in_raise:
                yield node.lineno


def calls(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called == name:
                yield node


def test_everything_is_caught_in_three_kinds_of_rooms(product: Mapping[str, ast.Module]) -> None:
    found = [
        f"{path}:{line}"
        for path, tree in product.items()
        if not path.startswith(CATCH_ALL) and not path.endswith("__main__.py")
        for line in catches_all(tree)
    ]
    assert not found, "\n".join(found)


def test_every_task_has_a_group_and_a_name(product: Mapping[str, ast.Module]) -> None:
    found = [
        f"{path}:{call.lineno}"
        for path, tree in product.items()
        for call in (*calls(tree, "create_task"), *calls(tree, "ensure_future"))
        if ast.unparse(call.func) in ("asyncio.create_task", "asyncio.ensure_future")
        or "name" not in {keyword.arg for keyword in call.keywords}
    ]
    assert not found, "\n".join(found)


def test_no_type_hides_a_cycle(product: Mapping[str, ast.Module]) -> None:
    hidden = [
        path
        for path, tree in product.items()
        if any(isinstance(n, ast.Name) and n.id == "TYPE_CHECKING" for n in ast.walk(tree))
    ]
    assert set(hidden) == LATE_TYPES.keys()


def test_no_core_asks_for_the_time(product: Mapping[str, ast.Module]) -> None:
    pure = ("protos/heatpool/", "core/", "plant/")
    found = [
        f"{path}:{call.lineno}"
        for path, tree in product.items()
        if any(room in path for room in pure) and "/process/" not in path
        for name in ("now", "utcnow", "today")
        for call in calls(tree, name)
    ]
    assert not found, "\n".join(found)
