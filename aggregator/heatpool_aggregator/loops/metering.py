"""Register rows of one frame into live state and store, whatever became of their times."""

from collections.abc import Sequence

from heatpool.sample import RefusedReason, RegisterRow
from heatpool_aggregator.core.admission import REGISTER_MIN_NS, register_mistake
from heatpool_aggregator.core.live import POINTS_LIMIT
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.effects import Effects, Unusable
from heatpool_aggregator.ports import Frame, StoredRegister


def check_registers(rows: Sequence[RegisterRow]) -> None:
    """Lets pass rows that can be, whenever they were read.

    Raises:
        Unusable: one cannot.
    """
    for row in rows:
        if mistake := register_mistake(row):
            raise Unusable(RefusedReason.OUT_OF_RANGE, mistake)


def take_registers(
    state: ShardState, frame: Frame, rows: Sequence[RegisterRow], effects: Effects
) -> None:
    """Takes all rows in.

    Raises:
        Unusable: one was read before there were any, or the site names too many metering points;
            none is taken.
    """
    oldest_ns = min((row.event_ns for row in rows), default=REGISTER_MIN_NS)
    if oldest_ns < REGISTER_MIN_NS:
        raise Unusable(
            RefusedReason.CLOCK,
            f"event_ns is {oldest_ns}, before 2020: the clock was not set when it was read",
        )
    if not state.live.has_room(frame.site_id, rows):
        raise Unusable(
            RefusedReason.OUT_OF_RANGE,
            f"metering_point_id is a new one, allowed are {POINTS_LIMIT} of a site",
        )
    for index, row in enumerate(rows):
        state.live.meter(frame.site_id, row)
        effects.registers.append(
            StoredRegister(
                site_id=frame.site_id,
                boot_id=frame.boot_id,
                seq=frame.seq,
                index=index,
                received_ns=frame.received_ns,
                row=row,
            )
        )
