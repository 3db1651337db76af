"""kill -9 of many programs at random moments, and the accounts that must hold afterwards.

Each program is started, lives for a random while (often too short to be ready), and is killed;
nobody waits for anybody. Then all are let live until nothing waits any more, are stopped in order,
and what lies on their disks is compared number by number.
"""

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from e2e.rig import PATIENCE_S, Program, Rig

from heatpool.codec import registers_from_bytes
from heatpool_agent.spool.frames import COLUMNS, from_row

# From the start of a program: the shortest life ends in the middle of its imports.
LIFE_S = (0.1, 6.0)
REGISTER_LIMIT = 10**8

RegisterKey = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What one site's disk holds, and what the aggregator's does."""

    site_id: str
    given: Sequence[RegisterKey]  # boot id, sequence number, place, raw count
    stored: Sequence[RegisterKey]
    telemetry_next: int
    telemetry_stored: Sequence[int]

    @property
    def moved_wh(self) -> int:
        """Energy between the first and the last register in the store, Wh."""
        return (self.stored[-1][3] - self.stored[0][3]) % REGISTER_LIMIT

    def mistakes(self) -> list[str]:
        """What is lost, doubled, or changed; empty when all is well."""
        doubled = [key for key, n in Counter(row[:3] for row in self.stored).items() if n > 1]
        found = {
            "registers lost": set(self.given) - set(self.stored),
            "registers from nowhere": set(self.stored) - set(self.given),
            "registers doubled": doubled,
            "telemetry lost": set(range(1, self.telemetry_next)) - set(self.telemetry_stored),
            "telemetry doubled": len(self.telemetry_stored) - len(set(self.telemetry_stored)),
        }
        return [f"{self.site_id}: {name}: {what}" for name, what in found.items() if what]


class Storm:
    """Counts kills; programs are killed on schedules of their own until there were enough."""

    def __init__(self, running: Rig, *, kills: int, seed: int) -> None:
        self._running, self._kills, self._chance = running, kills, random.Random(seed)
        self.counts: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """Kills so far."""
        return sum(self.counts.values())

    async def rage(self) -> None:
        """Returns when every program lives again after the last kill."""
        programs = [self._running.aggregator, *self._running.agents.values()]
        async with asyncio.TaskGroup() as tasks:
            for program in programs:
                tasks.create_task(self._killed_again_and_again(program))

    async def _killed_again_and_again(self, program: Program) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(*LIFE_S))
            if self.count >= self._kills:
                return
            child = program.child
            assert child is not None and child.poll() is None, program.log_tail()
            self.counts[program.name] += 1
            await program.kill()
            await program.spawn()


async def calm(running: Rig) -> Mapping[str, int]:
    """Waits until nothing waits, stops all in order; live energy of each site by then, Wh."""
    async with asyncio.timeout(PATIENCE_S):
        await running.eventually("/v1/sources", _are_fresh)
        # One that has not come back yet would stop with what it has not sent.
        await running.eventually("/v1/status", partial(_have_come, len(running.agents)))
    codes = await asyncio.gather(*(agent.stop() for agent in running.agents.values()))
    assert not any(codes), [agent.log_tail() for agent in running.agents.values()]
    # Their last words were said as they stopped; what is left to do is to show them.
    for name in running.agents:
        await running.eventually("/v1/sites", partial(_is_shown, running.folder, name))
    sites = (await running.ask("/v1/sites"))["sites"]
    assert await running.aggregator.stop() == 0, running.aggregator.log_tail()
    return {site["site_id"]: site["energy_wh"] for site in sites}


def _are_fresh(answer: dict[str, Any]) -> bool:
    (source,) = answer["virtual_sources"]
    return bool(source["fresh_count"] == source["members_count"])


def _have_come(count: int, answer: dict[str, Any]) -> bool:
    return bool(answer["ingest"]["streams"] >= count)


def _is_shown(folder: Path, site_id: str, answer: dict[str, Any]) -> bool:
    """Whether the store holds the newest register that the stopped agent has."""
    (site,) = [one for one in answer["sites"] if one["site_id"] == site_id]
    found = account(folder, site_id)
    return site["energy_wh"] == found.moved_wh and len(found.given) <= len(found.stored)


def account(folder: Path, site_id: str) -> Account:
    """Both ends of one site, read from the disks beside whoever uses them."""
    telemetry_next, _ = _numbers(folder / site_id / "telemetry.db")
    return Account(
        site_id=site_id,
        given=_given(folder / site_id / "billing.db"),
        stored=_asked(
            folder / "aggregator" / "store.db",
            "SELECT boot_id, seq, place, raw FROM registers WHERE site_id = ?"
            " ORDER BY event_ns, seq, place",
            site_id,
        ),
        telemetry_next=telemetry_next,
        telemetry_stored=[
            seq
            for (seq,) in _asked(
                folder / "aggregator" / "store.db",
                "SELECT seq FROM chunks WHERE site_id = ? ORDER BY seq",
                site_id,
            )
        ],
    )


def _given(path: Path) -> list[RegisterKey]:
    _, boot_id = _numbers(path)
    frames = _asked(path, f"SELECT {COLUMNS} FROM frames ORDER BY seq")
    return [
        (boot_id, frame.seq, place, row.raw)
        for frame in map(from_row, frames)
        for place, row in enumerate(registers_from_bytes(frame.payload))
    ]


def _numbers(path: Path) -> tuple[int, str]:
    """The next number that a queue gives, and its boot id."""
    meta = dict(_asked(path, "SELECT name, value FROM meta"))
    return int(meta["next_seq"]), meta["boot_id"]


def _asked(path: Path, sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(sql, values).fetchall()
