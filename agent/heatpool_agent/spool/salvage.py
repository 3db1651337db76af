"""What can still be read of a damaged file: row by row, each checked before it is believed."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgpack

from heatpool.codec import check, columns_from_bytes, registers_from_bytes
from heatpool.errors import WireError
from heatpool.sample import BootId, Channel, SpoolKind
from heatpool_agent.ports import Seq, SpoolMark
from heatpool_agent.spool import frames, tables, telemetry
from heatpool_agent.spool.file import mark_sum
from heatpool_agent.spool.frames import COLUMNS, Stored

Schemas = Mapping[int, tuple[Channel, ...]]
# Names of tables and words of errors come from the damaged pages too.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
# A number from a damaged page may be anything; nobody waits for that many looks.
NUMBERS_MOST = 10_000_000


@dataclass(frozen=True, slots=True)
class Wreck:
    """A damaged file, open."""

    db: sqlite3.Connection
    kind: SpoolKind

    def notes(self) -> dict[str, str]:
        """What is left of table `meta`."""
        return {str(name): str(value) for name, value in self.rows("meta", "name, value")}

    def rows(self, table: str, columns: str) -> list[tuple[object, ...]]:
        """Rows from both ends of a table up to what cannot be read."""
        found: dict[int, tuple[object, ...]] = {}
        for order in ("ASC", "DESC"):
            try:
                for rowid, *fields in self.db.execute(
                    f"SELECT rowid, {columns} FROM {table} ORDER BY rowid {order}"
                ):
                    if rowid in found:
                        break
                    found[rowid] = tuple(fields)
                else:
                    break
            except UNREADABLE:
                continue
        return [found[rowid] for rowid in sorted(found)]

    def columns(self, table: str) -> list[str]:
        """Names of the columns that are there, of those that we know."""
        try:
            there = {row[1] for row in self.db.execute(f"PRAGMA table_info({table})")}
        except UNREADABLE:
            return []
        return [name for name in tables.tables_of(self.kind)[table][0] if name in there]

    def frames(self, first: int, last: int, schemas: Schemas) -> Iterator[Stored]:
        """Every frame of these numbers that is what was written."""
        there = self.columns("frames")
        if not {"seq", "payload"} <= set(there):
            return
        wanted = ", ".join(name if name in there else "NULL" for name in COLUMNS.split(", "))
        for seq in range(first, min(last, first + NUMBERS_MOST) + 1):
            try:
                row = self.db.execute(f"SELECT {wanted} FROM frames WHERE seq = ?", (seq,))
                fields = row.fetchone()
                if fields and is_whole(frame := frames.from_row(fields), self.kind, schemas):
                    yield frame
            except (*UNREADABLE, WireError):
                continue

    def ends(self) -> tuple[int, int]:
        """The lowest and highest number that can be seen; 1 and 0: none can."""
        return self._end("min") or 1, self._end("max") or 0

    def _end(self, which: str) -> int:
        try:
            found = self.db.execute(f"SELECT {which}(seq) FROM frames").fetchone()[0]
        except UNREADABLE:
            return 0
        return found if isinstance(found, int) else 0


def is_whole(frame: Stored, kind: SpoolKind, schemas: Schemas) -> bool:
    """Whether a frame can be sent.

    Raises:
        WireError: it cannot.
    """
    if kind is SpoolKind.BILLING:
        return bool(registers_from_bytes(frame.payload))
    payload = frame.payload
    if frame.codec is not None:
        return _first_number(payload) in schemas  # its check sum says that the rest is whole
    columns = columns_from_bytes(payload)
    if columns.schema_id not in schemas:
        return False
    check(columns, len(schemas[columns.schema_id]))
    return True


def _first_number(payload: bytes) -> object:
    """The schema of columns, without unpacking their cells."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(payload[:32])
    try:
        unpacker.read_array_header()
        return unpacker.unpack()
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"{len(payload)} bytes are not columns: {error}") from error


def sure_mark(notes: Mapping[str, str], kind: SpoolKind) -> SpoolMark | None:
    """The numbers as the file says them; None: they are not what was written."""
    words = [notes.get(name, "") for name in ("boot_id", "next_seq", "durable_seq")]
    if notes.get("sure") != mark_sum(*words):
        return None
    boot_id, next_seq, durable_seq = words
    return SpoolMark(
        kind=kind,
        boot_id=BootId(boot_id),
        first_seq=Seq(1),
        next_seq=Seq(int(next_seq)),
        durable_seq=Seq(int(durable_seq)),
    )


def schema_rows(wreck: Wreck) -> list[tuple[int, bytes]]:
    """Lists of channels that are what was written."""
    there = wreck.columns("schemas")
    if "channels" not in there:
        return []
    has_sum = "check_sum" in there
    wanted = f"schema_id, channels, {'check_sum' if has_sum else 'NULL'}"
    found = []
    for schema_id, channels, check_sum in wreck.rows("schemas", wanted):
        if not (isinstance(schema_id, int) and isinstance(channels, bytes)):
            continue
        sum_now = telemetry.schema_sum(schema_id, channels)
        if check_sum in (None, sum_now) and can_read(telemetry.schema_of, schema_id, channels):
            found.append((schema_id, channels))
    return found


def can_read(read: Callable[..., object], *fields: object) -> bool:
    """Whether stored bytes still make sense."""
    try:
        read(*fields)
    except frames.NONSENSE:
        return False
    return True
