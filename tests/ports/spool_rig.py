"""A spool in a folder, rows for it, and the account of every number that it ever gave."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heatpool.codec import columns_from_bytes, event_times_ns, unpack
from heatpool.sample import (
    Channel,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Row,
    SpoolKind,
)
from heatpool_agent.core.rollup import SPAN
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_files import FILES, SCHEMA_VERSION, schema_version
from heatpool_agent.spool_schema import migrate

HEAT = Channel("rack", "heat_rate_w", -1)
HOT = Channel("rack", "hot_c", -3)
SECOND_NS = 1_000_000_000
START_S = 1_800_000_000
T, B = SpoolKind.TELEMETRY, SpoolKind.BILLING


class StillClock:
    def __init__(self, now_s: float = START_S) -> None:
        self.now_ns = round(now_s * SECOND_NS)

    def event_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns


@contextmanager
def spool_in(
    folder: Path,
    *,
    rows_per_frame: int = 1,
    max_bytes: int = 10**9,
    clock: StillClock | None = None,
) -> Iterator[SqliteSpool]:
    if schema_version(folder / FILES[T]) < SCHEMA_VERSION:
        migrate(folder)
    spool = SqliteSpool(
        folder,
        clock=clock or StillClock(),
        rows_per_frame=rows_per_frame,
        max_bytes=max_bytes,
        keep_s=86_400,
    )
    try:
        yield spool
    finally:
        spool.close()


def row(second: int, **cells: float) -> Row:
    named = {"heat": HEAT, "hot": HOT}
    values = {named[name]: value for name, value in cells.items()}
    return Row(event_ns=second * SECOND_NS, cells=values)


def register(second: int, raw: int) -> RegisterRow:
    return RegisterRow(
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId("ABC.1.2.4"),
        event_ns=second * SECOND_NS,
        raw=raw,
        exponent=3,
        modulus=10**8,
        reason=RegisterReason.PERIODIC,
    )


def held(spool: SqliteSpool, kind: SpoolKind = T) -> list[int]:
    """Numbers of the frames that are there, seen without offering them."""
    return [seq for (seq,) in spool._db[kind].execute("SELECT seq FROM frames ORDER BY seq")]


def lost(spool: SqliteSpool, kind: SpoolKind = T) -> list[int]:
    """Numbers of the present life that are told as lost, each as often as it is told."""
    boot_id = spool.mark(kind).boot_id
    return [
        seq
        for loss in spool.losses()
        if loss.kind is kind and loss.boot_id == boot_id
        for seq in range(loss.first_seq, loss.last_seq + 1)
    ]


def account(spool: SqliteSpool, kind: SpoolKind = T) -> None:
    """Every number was given once, and is either there or lost, above what is durable."""
    mark = spool.mark(kind)
    there = [seq for seq in held(spool, kind) if seq > mark.durable_seq]
    gone = [seq for seq in lost(spool, kind) if seq > mark.durable_seq]
    assert sorted([*there, *gone]) == list(range(mark.durable_seq + 1, mark.next_seq))


def energies_j(spool: SqliteSpool, channel: Channel = HEAT, *, row_s: float = 1.0) -> float:
    """Energy of all frames that are there: fine rows stand for `row_s`, coarse ones say it."""
    return sum(
        value * span_s
        for _, value, span_s in spans(spool, channel, row_s=row_s)
        if value is not None
    )


def spans(
    spool: SqliteSpool, channel: Channel, *, row_s: float
) -> Iterator[tuple[int, float | None, float]]:
    """Event time, value and span of each row, in the order of the frames."""
    schemas = {schema.schema_id: schema.channels for schema in spool.schemas()}
    for frame in spool.read(T, Seq(0), 10**6):
        columns = columns_from_bytes(frame.payload)
        channels = schemas[columns.schema_id]
        values = dict(zip(channels, unpack(columns, channels), strict=True))
        absent: Sequence[float | None] = [None] * columns.n_rows
        told = values.get(SPAN, absent)
        for event_ns, value, span_s in zip(
            event_times_ns(columns), values.get(channel, absent), told, strict=True
        ):
            yield event_ns, value, row_s if span_s is None else span_s
