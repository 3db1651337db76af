"""What every suite may ask for. Real captures are read in place and never copied in."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

PACKAGES = ("heatpool", "heatpool_agent", "heatpool_aggregator", "heatpool_sim")
REPOSITORY = Path(__file__).resolve().parent.parent


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
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    # grpc ends the watch of a cancelled call by itself, some turns of the loop later.
    left = {task for task in left if "_AioCall." not in repr(task)}
    assert not left, "\n".join(repr(task) for task in left)
