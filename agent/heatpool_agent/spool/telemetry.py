"""Rows of estimates: open until there are enough of them for a frame."""

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgpack

from heatpool.codec import CHANNELS_LIMIT, columns_to_bytes, pack
from heatpool.process.journal import facts
from heatpool.sample import BootId, Channel, Row, Schema
from heatpool_agent.core.ledger import Page
from heatpool_agent.core.rollup import SPAN
from heatpool_agent.spool import ledger
from heatpool_agent.spool.file import NewFrame, QueueFile, put_note
from heatpool_agent.spool.frames import NONSENSE

logger = logging.getLogger(__name__)

_NOBODY = BootId("")
# Below which number frames may be packed by a schema that is no longer used.
_UNTIL = "schemas_until"


class Telemetry:
    """The rows that are in no frame yet, and the channels that frames name."""

    def __init__(self, file: QueueFile) -> None:
        self.file = file
        self.schemas = stored_schemas(file)
        self._until = _stored_until(file, self.schemas)
        self.open_rows = stored_rows(file)

    def append(self, row: Row, page: Page | None) -> None:
        """Adds a row to the open frame, with a page of the ledger: both are there, or neither.

        Raises:
            StoreError: the disk did not take it; the row is not in the spool.
        """
        if self.open_rows and not row.cells.keys() <= self._open_channels():
            self.close_frame()
        with self.file.commit() as db:
            put_row(db, row)
            ledger.put(db, page)
        self.open_rows = [*(r for r in self.open_rows if r.event_ns != row.event_ns), row]

    def _open_channels(self) -> set[Channel]:
        known = self._newest()
        return {*known, *(channel for row in self.open_rows for channel in row.cells)}

    def _newest(self) -> tuple[Channel, ...]:
        """Channels of the newest schema for rows as they are written."""
        plain = (schema.channels for schema in reversed(self.schemas) if not has_span(schema))
        return next(plain, ())

    def close_frame(self) -> bool:
        """Gives the open rows their number; False: there are none.

        Raises:
            StoreError: the disk did not take it; the rows stay open.
        """
        if not self.open_rows:
            return False
        frame = self.framed(self.open_rows)
        with self.file.giving(frame) as db:
            db.execute("DELETE FROM open_rows")
        self.open_rows = []
        return True

    def framed(self, rows: Sequence[Row], *, step_s: int = 0) -> NewFrame:
        """Rows as a frame that has no number yet.

        Raises:
            StoreError: their channels are new, and the disk did not take them.
        """
        schema = self._schema_for(rows, is_coarse=step_s > 0)
        columns = pack(rows, schema.channels, schema_id=schema.schema_id)
        return NewFrame(
            span=(rows[0].event_ns, rows[-1].event_ns),
            payload=columns_to_bytes(columns),
            rows_count=len(rows),
            step_s=step_s,
        )

    def _schema_for(self, rows: Iterable[Row], *, is_coarse: bool) -> Schema:
        """The newest schema if it holds every channel, else a new one that adds them."""
        wanted = {channel for row in rows for channel in row.cells}
        known = self._newest()
        channels = (*known, *sorted(wanted - {*known, SPAN}), *((SPAN,) if is_coarse else ()))
        if len(channels) > CHANNELS_LIMIT:
            # Channels of devices that are gone: none of them is among these rows.
            channels = (*sorted(wanted - {SPAN}), *((SPAN,) if is_coarse else ()))
        schema = next((one for one in reversed(self.schemas) if one.channels == channels), None)
        if schema is None or schema.schema_id in self._until:
            schema = self._taken_up(schema, channels)
        return schema

    def _taken_up(self, schema: Schema | None, channels: tuple[Channel, ...]) -> Schema:
        """A schema for the next frames, new or an old one again; the one before is not used now."""
        made = schema or Schema(
            schema_id=max((one.schema_id for one in self.schemas), default=0) + 1,
            boot_id=self.file.mark.boot_id,
            channels=channels,
        )
        next_seq = int(self.file.mark.next_seq)
        alike = [one.schema_id for one in self.schemas if has_span(one) == has_span(made)]
        until = {one: self._until.get(one, next_seq) for one in alike if one != made.schema_id}
        others = {one: seq for one, seq in self._until.items() if one not in alike}
        until |= others
        with self.file.commit() as db:
            if schema is None:
                put_schema(db, made)
            put_note(db, _UNTIL, json.dumps(list(until.items())))
        self._until = until
        if schema is None:
            self.schemas.append(made)
        return made

    def needed(self) -> list[Schema]:
        """Schemas that frames which are held may name, or the next ones will.

        A site lives for years and its devices change: an aggregator takes only so many of one.
        """
        first_seq = self.file.mark.first_seq
        return [
            schema
            for schema in self.schemas
            if self._until.get(schema.schema_id, first_seq + 1) > first_seq
        ]

    def rename(self) -> None:
        """Takes over the new boot id of the file."""
        boot_id = self.file.mark.boot_id
        self.schemas = [replace(schema, boot_id=boot_id) for schema in self.schemas]


def has_span(schema: Schema) -> bool:
    """Whether its rows say what time they stand for."""
    return SPAN in schema.channels


def put_row(db: sqlite3.Connection, row: Row) -> None:
    """Writes an open row."""
    cells = msgpack.packb([[c.loop_id, c.quantity, c.exponent, v] for c, v in row.cells.items()])
    db.execute("INSERT OR REPLACE INTO open_rows VALUES (?, ?)", (row.event_ns, cells))


def put_schema(db: sqlite3.Connection, schema: Schema) -> None:
    """Writes a list of channels with its check sum."""
    channels = msgpack.packb([[c.loop_id, c.quantity, c.exponent] for c in schema.channels])
    db.execute(
        "INSERT INTO schemas (schema_id, channels, check_sum) VALUES (?, ?, ?)",
        (schema.schema_id, channels, schema_sum(schema.schema_id, channels)),
    )


def schema_sum(schema_id: int, channels: bytes) -> int:
    """Check sum over what a schema says."""
    return zlib.crc32(channels, schema_id)


def schema_of(schema_id: int, channels: bytes) -> Schema:
    """A stored list of channels, of no life yet.

    Raises:
        ValueError, TypeError: the disk spoiled it.
    """
    fields = msgpack.unpackb(channels)
    return Schema(schema_id=schema_id, boot_id=_NOBODY, channels=tuple(Channel(*f) for f in fields))


def stored_schemas(file: QueueFile) -> list[Schema]:
    """Every schema of the file, in the order of their numbers."""
    rows = file.db.execute("SELECT schema_id, channels FROM schemas ORDER BY schema_id")
    boot_id = file.mark.boot_id
    return [replace(schema_of(*row), boot_id=boot_id) for row in rows]


def _stored_until(file: QueueFile, schemas: Sequence[Schema]) -> dict[int, int]:
    """By schema; older files say nothing, and used the newest of both kinds."""
    newest = {has_span(schema): schema.schema_id for schema in schemas}
    try:
        told = {int(one): int(seq) for one, seq in json.loads(file.note(_UNTIL))}
    except NONSENSE:
        old = (one.schema_id for one in schemas if one.schema_id not in newest.values())
        told = dict.fromkeys(old, int(file.mark.next_seq))
    return told


def stored_rows(file: QueueFile) -> list[Row]:
    """The open rows of the file; one that the disk spoiled has no number yet, and is left out."""
    found = []
    for event_ns, cells in file.db.execute(
        "SELECT event_ns, cells FROM open_rows ORDER BY event_ns"
    ):
        try:
            found.append(row_of(event_ns, cells))
        except NONSENSE as error:
            logger.error("spool.row_spoiled", extra=facts(event_ns=event_ns, reason=str(error)))
    return found


def row_of(event_ns: int, cells: bytes) -> Row:
    """A stored row.

    Raises:
        ValueError, TypeError: the disk spoiled it.
    """
    return Row(event_ns=event_ns, cells={Channel(*f[:3]): f[3] for f in msgpack.unpackb(cells)})
