"""Sites whose clocks are off, by seconds, half a day or days, and step while they run.

Each site has its own clock by a preloaded library; the aggregator and the simulated devices have
the true one.
"""

import asyncio
import base64
import json
import signal
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from e2e import chaos
from e2e.chaos import Weather
from e2e.rig import PATIENCE_S, Rig, rig
from e2e.test_chaos_files import given, present

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HALF_DAY_S, DAYS_S, SECONDS_S = 43_200.0, 3 * 86_400.0, 5.0
# By site: what its clock is ahead at the start. e4 is right at first, and steps while it runs.
AHEAD_S = {"e1": HALF_DAY_S, "e2": -DAYS_S, "e3": SECONDS_S, "e4": 0.0}
# What a loaded machine may take to bring a message here; the offset holds the shortest of them.
DELAY_S = 3.0
LEASE_S = 10
WAITED_NS = 90 * 10**9
SETPOINT = f"""
[[setpoint]]
site_id = "e4"
heat_rate_w = 9000
lease_s = {LEASE_S}
reason = "greenhouse wants heat"
"""


def site_of(answer: dict[str, Any], site_id: str) -> dict[str, Any]:
    (site,) = [one for one in answer["sites"] if one["site_id"] == site_id]
    found: dict[str, Any] = site
    return found


def events(folder: Path, site_id: str, name: str) -> list[str]:
    """Details of what happened at a site, oldest first."""
    with closing(sqlite3.connect(f"file:{folder}/aggregator/store.db?mode=ro", uri=True)) as db:
        sql = "SELECT detail FROM events WHERE site_id = ? AND name = ? ORDER BY event_ns"
        return [detail for (detail,) in db.execute(sql, (site_id, name))]


def clock_words(folder: Path, site_id: str) -> list[dict[str, Any]]:
    """What was said of a site's clock, oldest first."""
    return [json.loads(detail) for detail in events(folder, site_id, "clock")]


def times_ns(folder: Path, site_id: str, boot_id: str) -> list[tuple[int, int]]:
    """First and last time of each batch and register of a spool, by number."""
    with closing(sqlite3.connect(f"file:{folder}/aggregator/store.db?mode=ro", uri=True)) as db:
        sql = """SELECT start_ns, end_ns - 1, seq FROM chunks WHERE (site_id, boot_id) = (?1, ?2)
            UNION ALL
            SELECT event_ns, event_ns, seq FROM registers WHERE (site_id, boot_id) = (?1, ?2)
            ORDER BY seq, 1"""
        return [(start, end) for start, end, _ in db.execute(sql, (site_id, boot_id))]


def refused(folder: Path, site_id: str, boot_id: str) -> set[int]:
    """Numbers that were refused for their clock, each kept beside as it came."""
    words = [json.loads(detail) for detail in events(folder, site_id, "refused")]
    frames = [base64.b64decode(detail) for detail in events(folder, site_id, "refused_frame")]
    assert len(words) == len(frames)
    assert all(frames)
    return {
        word["seq"] for word in words if (word["boot_id"], word["reason"]) == (boot_id, "clock")
    }


async def live(running: Rig, site_id: str) -> dict[str, Any]:
    """The site once its figures are of now."""
    answer = await running.eventually(
        "/v1/sites",
        lambda a: (
            site_of(a, site_id)["event_ns"] is not None and not site_of(a, site_id)["is_stale"]
        ),
    )
    return site_of(answer, site_id)


async def said(running: Rig, site_id: str) -> dict[str, Any]:
    """The newest word on a site's clock, once there is one that is sure."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            words = await asyncio.to_thread(clock_words, running.folder, site_id)
            if words and not words[-1]["is_held"]:
                return words[-1]
            await asyncio.sleep(0.2)


async def within(running: Rig, site_id: str, offset_s: float) -> None:
    """Returns once the site's clock is known to be this far behind."""
    async with asyncio.timeout(PATIENCE_S):
        while abs((await said(running, site_id))["offset_s"] - offset_s) > DELAY_S:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def lease_runs_out(running: Rig, weather: Weather) -> None:
    """A clock that is put back by half a day prolongs no lease."""
    await running.eventually("/v1/sites", _is_applied)
    # Nobody renews: it stands still, with all lines up.
    assert running.aggregator.child is not None
    running.aggregator.child.send_signal(signal.SIGSTOP)
    weather.be("e4", clock_s=-HALF_DAY_S)
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while (await running.agent_status("e4"))["setpoint"]["reason"] != "no lease":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert time.monotonic() - began < 60.0
    weather.be("e4")
    running.aggregator.child.send_signal(signal.SIGCONT)


def _is_applied(answer: dict[str, Any]) -> bool:
    setpoint = site_of(answer, "e4")["setpoint"]
    return setpoint is not None and setpoint["state"] in ("applied", "effect_seen")


def check_spools(folder: Path, began_ns: int) -> None:
    """Every batch is used, in order, at a time when it can have been made."""
    ended_ns = time.time_ns()
    for site_id in AHEAD_S:
        for boot_id, last in given(folder / site_id).values():
            used = present(folder / "aggregator" / "store.db", site_id, boot_id)
            assert used == set(range(1, last + 1)), site_id
            assert not refused(folder, site_id, boot_id)
            times = times_ns(folder, site_id, boot_id)
            # Seconds are corrected where they are shown. What was sent while nobody took it waited.
            slack_ns = WAITED_NS if site_id == "e4" else round((SECONDS_S + DELAY_S) * 1e9)
            assert began_ns - slack_ns <= min(times)[0]
            assert max(end for _, end in times) <= ended_ns + slack_ns, site_id
            early = [b[0] - a[1] for a, b in pairwise(times) if b[0] < a[1] - slack_ns]
            assert not early, site_id


async def far_clocks_are_corrected(running: Rig) -> None:
    """Half a day and whole days: said, held until three batches agree, and then corrected."""
    for site_id, ahead_s in (("e1", HALF_DAY_S), ("e2", -DAYS_S)):
        site = await live(running, site_id)
        assert abs(site["event_ns"] - time.time_ns()) <= 60e9
        words = await asyncio.to_thread(clock_words, running.folder, site_id)
        assert words[0]["is_held"]
        assert any(word["is_corrected"] for word in words)
        assert abs(words[-1]["offset_s"] + ahead_s) <= DELAY_S


async def test_clocks_that_are_off_are_told_and_corrected_and_lose_nothing(
    tmp_path: Path,
) -> None:
    began_ns = time.time_ns()
    weather = Weather(tmp_path, await asyncio.to_thread(chaos.compiled, tmp_path))

    def environ(name: str) -> dict[str, str]:
        found = dict(weather.environ(name))
        weather.be(name, clock_s=AHEAD_S.get(name, 0.0))
        return found

    async with rig(
        tmp_path, sites=4, mode="local", setpoint=SETPOINT, armed=True, environ=environ
    ) as running:
        # Seconds: corrected, and said.
        site = await live(running, "e3")
        assert site["event_ns"] <= time.time_ns() + 1e9, "its rows lie ahead of our clock"
        word = await said(running, "e3")
        assert -SECONDS_S - 1 <= word["offset_s"] <= -SECONDS_S + DELAY_S
        await far_clocks_are_corrected(running)
        await lease_runs_out(running, weather)
        # Put right, and put wrong, while they run.
        for site_id in ("e1", "e2"):
            weather.be(site_id)
            await within(running, site_id, 0.0)
            await live(running, site_id)
        weather.be("e4", clock_s=DAYS_S)
        await within(running, "e4", -DAYS_S)
        weather.be("e4")
        await within(running, "e4", 0.0)
        await live(running, "e4")
        await running.eventually("/v1/status", lambda a: a["ingest"]["streams"] >= 4)
        codes = await asyncio.gather(*(agent.stop() for agent in running.agents.values()))
        assert codes == [0, 0, 0, 0]
        assert await running.aggregator.stop() == 0
        for program in (running.aggregator, *running.agents.values()):
            assert "Traceback" not in program.log_tail()
    await asyncio.to_thread(check_spools, tmp_path, began_ns)
