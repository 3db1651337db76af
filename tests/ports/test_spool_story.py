"""Any order of writing, reading, acks, pressure, kills and damage: the account stays whole."""

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ports.spool_rig import HEAT, START_S, StillClock, T, held, lost, row, spans

from heatpool.sample import GapReason
from heatpool_agent.core import ranges
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool.heal import heal
from heatpool_agent.spool_schema import migrate

ACTS = ("write", "write", "write", "read", "ack", "live_ack", "squeeze", "kill", "spoil", "heal")
QUIET = ("write", "write", "read", "squeeze", "squeeze", "kill", "heal")


class Story:
    """One spool through a life of bad luck, and what must be true of it."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder, self.dice = folder, dice
        self.clock = StillClock()
        self.second = 0
        self.spool = self.opened()
        self.seen: dict[int, bytes] = {}
        self.durable: tuple[ranges.Range, ...] = ()
        self.is_spoiled = False

    def opened(self) -> SqliteSpool:
        return SqliteSpool(
            self.folder, clock=self.clock, rows_per_frame=5, max_bytes=10**9, keep_s=3_600
        )

    def write(self) -> None:
        for _ in range(self.dice.randint(1, 120)):
            self.spool.append(row(START_S + self.second, heat=float(self.second % 977)))
            self.second += 1
        self.clock.now_ns = (START_S + self.second) * 10**9

    def read(self) -> None:
        after = Seq(self.dice.randint(0, self.spool.mark(T).next_seq))
        for frame in self.spool.read(T, after, self.dice.randint(1, 20)):
            if not frame.payload:
                continue
            # What was read once is the same for good.
            assert self.seen.setdefault(frame.seq, frame.payload) == frame.payload

    def ack(self) -> None:
        self.say_durable(0, self.dice.randint(0, max(self.seen, default=0)))

    def live_ack(self) -> None:
        first = self.dice.randint(0, self.spool.mark(T).next_seq)
        self.say_durable(first, first + self.dice.randint(0, 5))

    def say_durable(self, after: int, last: int) -> None:
        if last < self.spool.mark(T).next_seq:
            self.spool.forget(T, Seq(last), after=Seq(after) if after else None)
            self.durable = ranges.added(self.durable, after + 1, last)

    def squeeze(self) -> None:
        room = self.spool._room
        for _ in range(self.dice.randint(1, 5)):
            room._step()

    def kill(self) -> None:
        for db in self.spool._db.values():
            db.close()
        self.spool._lock.close()
        self.spool = self.opened()

    def spoil(self) -> None:
        if there := held(self.spool):
            seq = self.dice.choice(there)
            self.spool._db[T].execute(
                "UPDATE frames SET payload = substr(payload, 2) WHERE seq = ?", (seq,)
            )
            self.is_spoiled = True

    def heal(self) -> None:
        known = self.spool._known(T)
        for db in self.spool._db.values():
            db.close()
        heal(self.folder, T, known=known, at_ns=self.clock.now_ns)
        self.spool._open()

    def check(self) -> None:
        next_seq = self.spool.mark(T).next_seq
        there, gone = held(self.spool), lost(self.spool)
        assert len(gone) == len(set(gone))
        assert not set(there) & set(gone)
        missing = set(range(1, next_seq)) - set(there) - set(gone)
        assert all(ranges.holds(self.durable, seq) for seq in missing)

    def energy(self) -> None:
        """What is neither told as lost nor durable is there to the second."""
        reasons = {loss.reason for loss in self.spool.losses()}
        if self.durable or reasons - {GapReason.ROLLED_UP} or self.is_spoiled:
            return
        self.spool.close_frame()
        rows = list(spans(self.spool, HEAT, row_s=1.0))
        assert sum(span_s for _, _, span_s in rows) == self.second
        energy_j = sum(value * span_s for _, value, span_s in rows if value is not None)
        truth_j = sum(float(second % 977) for second in range(self.second))
        assert energy_j == pytest.approx(truth_j, abs=3 * 0.05 * self.second + 1e-6)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("empty")
    migrate(folder)
    yield folder


MANY = int(os.environ.get("HEATPOOL_STORIES", "30"))


@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acts=st.lists(st.sampled_from(ACTS), min_size=3, max_size=25), seed=st.integers(0, 10**6))
def test_whatever_happens_the_account_stays_whole(empty: Path, acts: list[str], seed: int) -> None:
    tell(empty, acts, seed)


@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acts=st.lists(st.sampled_from(QUIET), min_size=3, max_size=25), seed=st.integers(0, 10**6))
def test_without_damage_and_acks_no_second_is_missing(
    empty: Path, acts: list[str], seed: int
) -> None:
    tell(empty, acts, seed)


def tell(empty: Path, acts: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "spool"
        shutil.copytree(empty, folder)
        story = Story(folder, random.Random(seed))
        try:
            story.write()
            for act in acts:
                getattr(story, act)()
                story.check()
            story.energy()
        finally:
            with suppress(sqlite3.Error):
                story.spool.close()
