"""The estimator over the agent's lives: saved with the rows, gone on where it stood."""

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
from integration.estimator_site import START_S, Clock, Site, settings, site_in

from heatpool_agent.board import LoopView
from heatpool_agent.loops.heat_look import HeatLook

TESTS = Path(__file__).parent.parent
LIVED_S = 1_800


async def killed_after(folder: Path, seconds_s: int) -> int:
    """The second in which a running site was killed, as hard as can be."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "integration.estimator_site",
        str(folder),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert child.stdout is not None
    second = 0
    async with asyncio.timeout(120):
        while second < START_S + seconds_s:
            second = int(await child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        # What it wrote until it died counts as lived too.
        rest = (await child.stdout.read()).split()
        await child.wait()
    return int(rest[-1]) if rest else second


def is_restored(site: Site) -> bool:
    heat = site.sense._looks[0].heat
    assert isinstance(heat, HeatLook)
    return heat.estimator.is_restored


def doubt_w(view: LoopView) -> float:
    assert view.fused is not None
    return view.fused.u


async def test_a_kill_costs_ten_seconds_of_what_was_learnt(tmp_path: Path) -> None:
    async with site_in(tmp_path / "fresh", Clock()) as site:
        fresh = await site.second()
        for _ in range(LIVED_S):
            lived = await site.second()
    assert fresh.capture and lived.capture
    second = await killed_after(tmp_path / "killed", LIVED_S)
    async with site_in(tmp_path / "killed", Clock(second=second + 20)) as site:
        assert is_restored(site)
        again = await site.second()
    assert again.capture is not None
    assert again.capture.frac_u == pytest.approx(lived.capture.frac_u, rel=0.1)
    assert again.capture.frac_u < 0.5 * fresh.capture.frac_u
    assert doubt_w(again) < 1.5 * doubt_w(lived)


async def test_a_loop_with_other_coolant_begins_anew(tmp_path: Path) -> None:
    async with site_in(tmp_path, Clock()) as site:
        for _ in range(60):
            await site.second()
    async with site_in(tmp_path, Clock(second=2_000), settings(fluid="pg25_vol")) as site:
        assert not is_restored(site)
        assert (await site.second()).fused is not None


@pytest.mark.parametrize("state", ["", "no JSON", "7", "{}", '{"version": 1, "place": 3}'])
async def test_a_damaged_state_begins_anew(tmp_path: Path, state: str) -> None:
    async with site_in(tmp_path, Clock()) as site:
        for _ in range(20):
            await site.second()
    await asyncio.to_thread(_overwrite, tmp_path, state)
    async with site_in(tmp_path, Clock(second=2_000)) as site:
        assert not is_restored(site)
        assert (await site.second()).fused is not None


def _overwrite(folder: Path, state: str) -> None:
    with sqlite3.connect(folder / "telemetry.db") as db:
        db.execute("UPDATE estimators SET state = ? WHERE part = 'fusion'", (state,))
    db.close()
