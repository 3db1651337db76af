"""What every suite may ask for. Real captures are read in place and never copied in."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

PACKAGES = ("heatpool", "heatpool_agent", "heatpool_aggregator", "heatpool_sim")
GRPC_TURNS = 100
REPOSITORY = Path(__file__).resolve().parent.parent

# Of its own accord hypothesis fails an example that takes 0.2 s, and examples that take 1 s to be
# made up: a busy machine's, not our code's. Whoever suppresses another check names `too_slow` too.
PATIENT = [HealthCheck.too_slow]
settings.register_profile("heatpool", deadline=None, suppress_health_check=PATIENT)
settings.load_profile("heatpool")


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real captures, or a skip that says where it was sought."""
    told = os.environ.get("HEATPOOL_REALDATA")
    folder = Path(told) if told else REPOSITORY.parent / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; HEATPOOL_REALDATA names another folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every coroutine test is watched: it may neither block the loop nor leave a task behind."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames[:0] = ["no_blocked_loop", "no_task_left"]


@pytest.fixture
def no_blocked_loop() -> Iterator[None]:
    """Fails a test in which our code blocks the event loop: socket, database, lock, sleep."""
    with blockbuster_ctx(scanned_modules=list(PACKAGES)) as watch:
        for name, function in watch.functions.items():
            # Programs open small local files as they start: settings, entry points, state.
            if name.startswith(("os.", "io.")):
                function.deactivate()
        yield


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fails a test after which a task still runs that was not there before."""
    before = asyncio.all_tasks()
    yield
    # grpc ends calls and the watches of cancelled ones by itself, some turns of the loop later.
    for _ in range(GRPC_TURNS):
        if not any(map(is_of_grpc, left := left_since(before))):
            break
        await asyncio.sleep(0.01)
    left = {task for task in left if "_AioCall." not in repr(task)}
    assert not left, "\n".join(repr(task) for task in left)


def left_since(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Tasks that run now and did not then, our own left out."""
    return {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}


def is_of_grpc(task: asyncio.Task[Any]) -> bool:
    """Whether the task is one that grpc makes for a call."""
    return any(name in repr(task) for name in ("_AioCall.", "rpc_task", "HandleExceptions["))
