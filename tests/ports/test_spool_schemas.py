"""Devices come and go for years: the schemas that a site names stay few, and none is missed."""

from pathlib import Path

from ports.spool_rig import SECOND_NS, START_S, StillClock, T, held, spool_in

from heatpool.codec import columns_from_bytes
from heatpool.sample import Channel, Row
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool
from heatpool_aggregator.core.admission import SCHEMAS_LIMIT, schema_mistake

YEARS = 40
DAY_S = 86_400


def device_of(number: int, *, count: int = 1) -> dict[Channel, float]:
    return {Channel(f"loop{number}", f"device{one}_w", 0): 1.0 for one in range(count)}


def lived(spool: SqliteSpool, clock: StillClock, *, channels: int = 1) -> None:
    """A new device each day, whose rows are durable at once."""
    for number in range(YEARS):
        clock.now_ns = (START_S + number * DAY_S) * SECOND_NS
        cells = device_of(number, count=channels)
        spool.append(Row(event_ns=clock.now_ns, cells=cells))
        spool.forget(T, Seq(spool.mark(T).next_seq - 1))


def named(spool: SqliteSpool) -> set[int]:
    """Schemas of all frames that are there."""
    frames = spool.read(T, Seq(0), 10_000)
    return {columns_from_bytes(frame.payload).schema_id for frame in frames}


def test_what_no_frame_names_any_more_is_not_said_in_hello(tmp_path: Path) -> None:
    clock = StillClock()
    with spool_in(tmp_path, clock=clock) as spool:
        lived(spool, clock)
        told = spool.schemas()
        assert named(spool) <= {schema.schema_id for schema in told}
        assert len(told) <= 4 < SCHEMAS_LIMIT
    with spool_in(tmp_path, clock=clock) as spool:
        assert spool.schemas() == told


def test_frames_that_wait_keep_their_schemas(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        for number in range(YEARS):
            spool.append(Row(event_ns=(START_S + number) * SECOND_NS, cells=device_of(number)))
        assert named(spool) == {schema.schema_id for schema in spool.schemas()}
        spool.begin_anew(T)
        assert named(spool) <= {schema.schema_id for schema in spool.schemas()}


def test_more_devices_than_a_schema_holds_over_the_years_are_no_end(tmp_path: Path) -> None:
    clock = StillClock()
    with spool_in(tmp_path, clock=clock) as spool:
        lived(spool, clock, channels=30)
        told = spool.schemas()
        assert not [mistake for one in told if (mistake := schema_mistake(one, place=0))]
        assert named(spool) <= {schema.schema_id for schema in told}


def test_coarse_rows_of_other_times_do_not_make_schemas_without_end(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        for number in range(200):
            cells = device_of(number // 20 % 10, count=30)
            spool.append(Row(event_ns=(START_S + number) * SECOND_NS, cells=cells))
        while len(held(spool)) > 30:
            spool._room._step()
        assert len(spool._telemetry.schemas) < 40
        assert named(spool) <= {schema.schema_id for schema in spool.schemas()}
