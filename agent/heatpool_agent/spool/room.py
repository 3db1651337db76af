"""What goes when the telemetry file is too big or the disk too full, and in which order.

First what is durable elsewhere, oldest first. Then what is not loses detail: the run of frames
that is oldest for the detail it would get. Then the oldest goes. Whatever is lost is told.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heatpool.codec import ROWS_LIMIT, check, columns_from_bytes
from heatpool.errors import WireError
from heatpool.sample import GapReason, Row
from heatpool_agent.core import ranges, rollup
from heatpool_agent.core.rollup import STEPS_S
from heatpool_agent.ports import Clock
from heatpool_agent.spool import frames
from heatpool_agent.spool.file import QueueFile, put_frame
from heatpool_agent.spool.frames import COLUMNS, Stored
from heatpool_agent.spool.reserve import disk_bytes, free_bytes
from heatpool_agent.spool.telemetry import Telemetry

# Going in steps keeps the cost of a full spool per row small.
DROP_FRAMES = 100
STEPS_AT_ONCE = 8
# Rows that a run of frames should still have when it has lost detail.
ROWS_AIMED = 60
RUN_FRAMES = 240
# Below this the file may not grow; then some pages must be kept to write to.
LEAST_FREE_BYTES = 16_000_000
LEAST_FREE_FRAC = 0.05
LEAST_FREE_PAGES = 64
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Head:
    """A frame without its rows."""

    seq: int
    start_ns: int
    end_ns: int
    rows_count: int
    step_s: int

    @property
    def wanted_s(self) -> int:
        """The next coarser step of its rows, s; 0: there is none."""
        own_s = self.step_s
        if not own_s and self.rows_count > 1:
            own_s = round((self.end_ns - self.start_ns) / (self.rows_count - 1) / _NS)
        return next((step_s for step_s in STEPS_S if step_s > own_s), 0)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring frames that are to become one."""

    heads: Sequence[Head]
    step_s: int

    @property
    def is_worth_it(self) -> bool:
        """Whether it would become smaller at all."""
        return sum(head.rows_count for head in self.heads) > 1

    def age_steps(self, now_ns: int) -> float:
        """Its age in steps: the oldest for its detail goes first, and old rows get coarse."""
        return (now_ns - self.heads[0].end_ns) / (self.step_s * _NS)


class Room:
    """Makes room in the telemetry file."""

    def __init__(self, telemetry: Telemetry, folder: Path, *, clock: Clock, max_bytes: int) -> None:
        self._telemetry = telemetry
        self._file: QueueFile = telemetry.file
        self._folder = folder
        self._clock = clock
        self._max_bytes = max_bytes
        # Up to which number there is nothing left to roll up to each step.
        self._done = dict.fromkeys(STEPS_S, 0)

    def make(self) -> None:
        """Some steps, until there is room.

        Raises:
            StoreError, sqlite3.Error: the disk refused; the next call tries again.
        """
        for _ in range(STEPS_AT_ONCE):
            if not self._is_tight() or not self._step():
                return

    def _is_tight(self) -> bool:
        if self._file.size_bytes() > self._max_bytes:
            return True
        least_bytes = min(LEAST_FREE_BYTES, disk_bytes(self._folder) * LEAST_FREE_FRAC)
        if free_bytes(self._folder) >= least_bytes:
            return False
        # A small file gives little: others have filled this disk.
        wanted_pages = min(LEAST_FREE_PAGES, self._file.pragma("page_count") // 20)
        return self._file.free_pages() < wanted_pages

    def _step(self) -> bool:
        if self._drop_durable():
            return True
        runs = [run for step_s in STEPS_S if (run := self._run(step_s))]
        if not runs:
            return self._drop_oldest()
        now_ns = self._clock.event_ns()
        self._roll_up(max(runs, key=lambda run: run.age_steps(now_ns)))
        return True

    def _drop_durable(self) -> bool:
        file = self._file
        for first, last in ((0, file.mark.durable_seq), *file.durable):
            found = file.db.execute(
                "SELECT seq FROM frames WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
                (first, last, DROP_FRAMES),
            ).fetchall()
            if found:
                with file.commit() as db:
                    db.executemany("DELETE FROM frames WHERE seq = ?", found)
                file.note_oldest()
                return True
        return False

    def _run(self, step_s: int) -> Run | None:
        """The oldest frames that can become one of this step."""
        heads: list[Head] = []
        for head in self._heads(max(self._done[step_s], self._file.mark.durable_seq)):
            fits = head.wanted_s == step_s and not self._is_fixed(head.seq)
            if fits and (not heads or self._are_neighbours(heads[-1], head)):
                heads.append(head)
                if self._is_long_enough(heads, step_s):
                    break
            elif heads:
                run = Run(heads, step_s)
                if run.is_worth_it:
                    return run
                heads = [head] if fits else []
            if not heads:
                self._done[step_s] = head.seq
        run = Run(heads, step_s)
        return run if run.is_worth_it else None

    def _is_long_enough(self, heads: Sequence[Head], step_s: int) -> bool:
        long_ns = heads[-1].end_ns - heads[0].start_ns
        rows_count = sum(head.rows_count for head in heads)
        is_long = long_ns >= ROWS_AIMED * step_s * _NS
        return is_long or len(heads) >= RUN_FRAMES or rows_count >= 10 * ROWS_LIMIT

    def _heads(self, after: int) -> Iterator[Head]:
        return (
            Head(*fields)
            for fields in self._file.db.execute(
                "SELECT seq, start_ns, end_ns, coalesce(rows_count, 2), coalesce(step_s, 0)"
                " FROM frames WHERE seq > ? ORDER BY seq",
                (after,),
            )
        )

    def _is_fixed(self, seq: int) -> bool:
        """Whether others may have it as it is."""
        return ranges.holds(self._file.offered, seq) or ranges.holds(self._file.durable, seq)

    def _are_neighbours(self, one: Head, other: Head) -> bool:
        """Whether nothing between them is lost for another reason than rolling up."""
        if other.seq == one.seq + 1:
            return True
        found = self._file.losses_between(one.seq + 1, other.seq - 1)
        rolled = ranges.of_pairs(
            (loss.first_seq, loss.last_seq) for loss in found if loss.reason is GapReason.ROLLED_UP
        )
        return not list(ranges.holes(rolled, one.seq + 1, other.seq - 1))

    def _roll_up(self, run: Run) -> None:
        found = self._stored(run)
        opened = self._opened(found)
        if opened is None:
            return
        rows = rollup.spanned(
            opened, before_ns=self._before_ns(run.heads[0].seq), most_ns=run.step_s * _NS
        )
        coarse = rollup.rolled(rows, run.step_s * _NS)
        while len(coarse) > ROWS_LIMIT:
            found = found[: len(found) // 2]
            if not found:
                self._done[run.step_s] = run.heads[0].seq
                return
            kept = sum(columns.n_rows for columns, _ in opened[: len(found)])
            coarse = rollup.rolled(rows[:kept], run.step_s * _NS)
        self._replace(found, list(rollup.as_rows(coarse)), run.step_s)

    def _stored(self, run: Run) -> list[Stored]:
        rows = self._file.db.execute(
            f"SELECT {COLUMNS} FROM frames WHERE seq BETWEEN ? AND ? ORDER BY seq",
            (run.heads[0].seq, run.heads[-1].seq),
        )
        return [frames.from_row(row) for row in rows]

    def _opened(self, found: Sequence[Stored]) -> Sequence[rollup.Framed] | None:
        """Their columns; None: the disk spoiled one, which is a loss now."""
        schemas = {schema.schema_id: schema.channels for schema in self._telemetry.schemas}
        opened = []
        for frame in found:
            try:
                columns = columns_from_bytes(frame.payload)
                channels = schemas[columns.schema_id]
                check(columns, len(channels))
            except (WireError, KeyError):
                self._file.set_aside(frame.seq)
                return None
            opened.append((columns, channels))
        return opened

    def _before_ns(self, seq: int) -> int | None:
        row = self._file.db.execute(
            "SELECT end_ns FROM frames WHERE seq < ? ORDER BY seq DESC LIMIT 1", (seq,)
        ).fetchone()
        return int(row[0]) if row else None

    def _replace(self, found: Sequence[Stored], rows: Sequence[Row], step_s: int) -> None:
        file, first, last = self._file, found[0], found[-1]
        new = self._telemetry.framed(rows, step_s=step_s)
        coarse = frames.stored(
            first.seq, new.span, new.payload, rows_count=new.rows_count, step_s=step_s
        )
        with file.commit() as db:
            db.execute("DELETE FROM frames WHERE seq BETWEEN ? AND ?", (first.seq, last.seq))
            put_frame(db, coarse)
            if last.seq > first.seq:
                numbers = (first.seq + 1, last.seq)
                file.put_loss(
                    db,
                    file.loss(numbers, GapReason.ROLLED_UP, found[1].start_ns, last.end_ns),
                )

    def _drop_oldest(self) -> bool:
        """The oldest goes, with what was rolled up into it."""
        file = self._file
        held = int(file.db.execute("SELECT count(*) FROM frames").fetchone()[0])
        limit = min(DROP_FRAMES, max(1, held // 50))
        oldest = file.db.execute(
            "SELECT seq, start_ns, end_ns FROM frames ORDER BY seq LIMIT ?", (limit + 1,)
        ).fetchall()
        if not oldest:
            return False
        going = oldest[:limit]
        # What follows the last one up to the next frame was rolled up into it.
        after = oldest[limit][0] if len(oldest) > limit else file.mark.next_seq
        with file.commit() as db:
            db.execute("DELETE FROM frames WHERE seq < ?", (after,))
            for first, last in self._lost(going[0][0], going[-1][0], after):
                span = [row for row in going if first <= row[0] <= last]
                start_ns, end_ns = (span[0][1], span[-1][2]) if span else (None, None)
                file.put_loss(db, file.loss((first, last), GapReason.DROPPED, start_ns, end_ns))
        file.note_oldest()
        return True

    def _lost(self, first: int, last: int, after: int) -> Iterator[ranges.Range]:
        """What is dropped of these numbers: not what was damaged before, nor what is durable."""
        known = self._file.losses_between(first, after - 1)
        rolled = ranges.of_pairs(
            (loss.first_seq, loss.last_seq) for loss in known if loss.reason is GapReason.ROLLED_UP
        )
        gone = ranges.of_pairs(
            (loss.first_seq, loss.last_seq)
            for loss in known
            if loss.reason is not GapReason.ROLLED_UP
        )
        for start, end in self._file.durable:
            gone = ranges.added(gone, start, end)
        end = max([last, *(stop for _, stop in rolled if stop < after)])
        return ranges.holes(gone, max(first, self._file.mark.durable_seq + 1), end)
