"""The bench of every sensor kind that an entry point names."""

from collections.abc import AsyncIterator
from importlib import import_module, util
from pathlib import Path

import pytest
from ports.sensor_rig import KINDS, Rig

from heatpool_agent import sensors


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """A driver on its bench; a kind without one fails by its name."""
    kind = request.param
    if util.find_spec(f"ports.benches.{kind}") is None:
        pytest.fail(f"sensor kind {kind!r} has no bench: write tests/ports/benches/{kind}.py")
    (tmp_path / "bench").mkdir()
    async with import_module(f"ports.benches.{kind}").opened(tmp_path / "bench") as bench:
        yield Rig(kind, bench, sensors.driver(kind))
