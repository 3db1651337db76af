"""What a damaged file's successor holds: all that can be read, and losses for what cannot."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heatpool.codec import registers_from_bytes
from heatpool.sample import BootId, GapReason, SpoolKind
from heatpool_agent.core import ranges
from heatpool_agent.core.ranges import Range
from heatpool_agent.ports import Seq, SpoolLoss, SpoolMark
from heatpool_agent.spool import billing, salvage, telemetry, twin
from heatpool_agent.spool.file import new_boot_id, put_frame, put_loss, put_mark, put_note
from heatpool_agent.spool.frames import Stored
from heatpool_agent.spool.heal import Known
from heatpool_agent.spool.salvage import Wreck
from heatpool_agent.spool.sound import makes_sense

_NOTES = ("clock", twin.TWIN, "acks", "durable", billing.CHAIN)
_LEDGER = ("ledger", "ledger_gaps", "clock_steps", "estimators")


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame that was saved, without its rows."""

    seq: int
    start_ns: int
    end_ns: int


class Healing:
    """One file being made anew, within one transaction."""

    def __init__(
        self,
        wreck: Wreck,
        db: sqlite3.Connection,
        *,
        known: Known | None,
        beside: SpoolMark | None,
        at_ns: int,
    ) -> None:
        self._wreck = wreck
        self._kind = wreck.kind
        self._db = db
        self._known = known
        self._beside = beside
        self._at_ns = at_ns
        self._notes = wreck.notes()
        self._sure = known.mark if known else salvage.sure_mark(self._notes, wreck.kind)
        self._registers: list[bytes] = []

    def run(self, *, is_behind: bool) -> None:
        """Copies what can be read and notes what cannot."""
        for name, value in self._notes.items():
            if name in _NOTES or name.startswith(billing.LAST):
                if makes_sense(name, value):
                    put_note(self._db, name, value)
        schemas = self._put_schemas()
        self._put_rows()
        losses = self._old_losses()
        if self._sure is not None and not is_behind:
            self._go_on(self._sure, schemas, losses)
        else:
            self._begin_anew(schemas, losses)
        self._put_chain()

    def _go_on(
        self, mark: SpoolMark, schemas: salvage.Schemas, losses: Sequence[SpoolLoss]
    ) -> None:
        """The same life: what is kept keeps its number, the others are lost."""
        kept = [self._keep(frame, frame.seq) for frame in self._frames(mark.next_seq - 1, schemas)]
        own = [loss for loss in losses if loss.boot_id == mark.boot_id]
        there = ranges.of(frame.seq for frame in kept)
        durable = self._known.durable if self._known else self._durable()
        gone = [(loss.first_seq, loss.last_seq) for loss in own]
        known = ranges.of_pairs([*there, *gone, *durable, (0, mark.durable_seq)])
        for hole in ranges.holes(known, 1, mark.next_seq - 1):
            put_loss(self._db, self._lost(mark, hole, kept))
        put_mark(self._db, mark)
        put_note(self._db, "durable", json.dumps(durable))
        # Nobody knows any more which of them others have: none may be changed.
        put_note(self._db, "offered", json.dumps([(1, mark.next_seq - 1)]))

    def _durable(self) -> tuple[Range, ...]:
        text = self._notes.get("durable", "[]")
        return ranges.of_pairs(_pairs(text))

    def _begin_anew(self, schemas: salvage.Schemas, losses: Sequence[SpoolLoss]) -> None:
        """A new life, as nobody knows which numbers the old one had given.

        Its first number is the loss itself, so that it is told whatever else is known.
        """
        mark = SpoolMark(
            kind=self._kind,
            boot_id=new_boot_id(),
            first_seq=Seq(1),
            next_seq=Seq(2),
            durable_seq=Seq(0),
        )
        seen_last = self._wreck.ends()[1]
        kept: list[Kept] = []
        for frame in self._frames(seen_last, schemas):
            self._keep(frame, mark.next_seq)
            kept.append(Kept(frame.seq, frame.start_ns, frame.end_ns))
            mark = replace(mark, next_seq=Seq(mark.next_seq + 1))
        put_loss(self._db, _loss(mark, (1, 1), None, self._at_ns))
        put_mark(self._db, mark)
        for name in ("durable", "acks"):
            put_note(self._db, name, "[]")
        if old := self._old_mark(seen_last):
            own = [(one.first_seq, one.last_seq) for one in losses if one.boot_id == old.boot_id]
            there = ranges.of(frame.seq for frame in kept)
            known = ranges.of_pairs([*there, *own, (0, old.durable_seq)])
            for hole in ranges.holes(known, 1, old.next_seq - 1):
                put_loss(self._db, self._lost(old, hole, kept))

    def _old_mark(self, seen_last: int) -> SpoolMark | None:
        """How far the old life was at least."""
        if self._beside is not None:
            return replace(self._beside, next_seq=Seq(max(self._beside.next_seq, seen_last + 1)))
        boot_id = self._notes.get("boot_id", "")
        if not boot_id:
            return None
        return SpoolMark(
            kind=self._kind,
            boot_id=BootId(boot_id),
            first_seq=Seq(1),
            next_seq=Seq(seen_last + 1),
            durable_seq=Seq(0),
        )

    def _frames(self, last: int, schemas: salvage.Schemas) -> Iterator[Stored]:
        return self._wreck.frames(self._wreck.ends()[0], last, schemas)

    def _keep(self, frame: Stored, seq: int) -> Kept:
        # One of version 3 had neither packing nor sum: it gets the sum now.
        put_frame(self._db, replace(frame, seq=Seq(seq), codec=frame.codec or 0))
        if self._kind is SpoolKind.BILLING:
            self._registers = [*self._registers[-100:], frame.payload]
        return Kept(seq, frame.start_ns, frame.end_ns)

    def _put_schemas(self) -> salvage.Schemas:
        if self._kind is not SpoolKind.TELEMETRY:
            return {}
        if self._known is not None:
            for schema in self._known.schemas:
                telemetry.put_schema(self._db, schema)
            return {schema.schema_id: schema.channels for schema in self._known.schemas}
        found = {}
        for schema_id, channels in salvage.schema_rows(self._wreck):
            schema = telemetry.schema_of(schema_id, channels)
            telemetry.put_schema(self._db, schema)
            found[schema_id] = schema.channels
        return found

    def _put_rows(self) -> None:
        """Open rows and the energy ledger, as far as they can be read."""
        if self._kind is not SpoolKind.TELEMETRY:
            return
        if self._known is not None:
            for row in self._known.open_rows:
                telemetry.put_row(self._db, row)
        else:
            for fields in self._wreck.rows("open_rows", "event_ns, cells"):
                if salvage.can_read(telemetry.row_of, *fields):
                    telemetry.put_row(self._db, telemetry.row_of(*fields))  # type: ignore[arg-type]
        for table in _LEDGER:
            self._copy(table)

    def _copy(self, table: str) -> None:
        if not (names := self._wreck.columns(table)):
            return
        rows = self._wreck.rows(table, ", ".join(names))
        marks = ", ".join("?" * len(names))
        self._db.executemany(
            f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})", rows
        )

    def _old_losses(self) -> list[SpoolLoss]:
        there = self._wreck.columns("losses")
        if "first_seq" not in there:
            return []
        # Before version 4 losses were of the present life alone.
        has_life = "boot_id" in there
        life = "boot_id, is_told" if has_life else "NULL, 0"
        rows = self._wreck.rows("losses", f"{life}, first_seq, last_seq, reason, start_ns, end_ns")
        found = []
        for boot_id, is_told, *fields in rows:
            loss = _loss_of(self._kind, boot_id or self._notes.get("boot_id"), fields)
            if loss is not None:
                put_loss(self._db, loss, is_told=1 if is_told else 0)
                found.append(loss)
        return found

    def _lost(self, mark: SpoolMark, hole: Range, kept: Sequence[Kept]) -> SpoolLoss:
        """A hole with the times between which its rows must have been."""
        before = [frame.end_ns for frame in kept if frame.seq < hole[0]]
        behind = [frame.start_ns for frame in kept if frame.seq > hole[1]]
        start_ns = before[-1] if before else None
        return _loss(mark, hole, start_ns, behind[0] if behind else self._at_ns)

    def _put_chain(self) -> None:
        """Newest rows and hash again from the frames, which have their check sums."""
        for payload in self._registers:
            billing.put_notes(self._db, registers_from_bytes(payload))


def _loss_of(kind: SpoolKind, boot_id: object, fields: Sequence[object]) -> SpoolLoss | None:
    first, last, reason, start_ns, end_ns = fields
    if not (isinstance(boot_id, str) and isinstance(first, int) and isinstance(last, int)):
        return None
    if last < first or not isinstance(reason, int) or reason not in list(GapReason):
        return None
    return SpoolLoss(
        kind=kind,
        boot_id=BootId(boot_id),
        first_seq=Seq(first),
        last_seq=Seq(last),
        reason=GapReason(reason),
        start_ns=start_ns if isinstance(start_ns, int) else None,
        end_ns=end_ns if isinstance(end_ns, int) else None,
    )


def _loss(mark: SpoolMark, numbers: Range, start_ns: int | None, end_ns: int | None) -> SpoolLoss:
    return SpoolLoss(
        kind=mark.kind,
        boot_id=mark.boot_id,
        first_seq=Seq(numbers[0]),
        last_seq=Seq(numbers[1]),
        reason=GapReason.DAMAGED,
        start_ns=start_ns,
        end_ns=end_ns,
    )


def _pairs(text: str) -> Iterator[Range]:
    try:
        for first, last in json.loads(text):
            yield int(first), int(last)
    except (TypeError, ValueError):
        return
