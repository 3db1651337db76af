"""Batches that are read and wait for their figures, with all that decides whether they count."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from heatpool.sample import RefusedReason, Schema
from heatpool_aggregator.core.admission import (
    EVENT_LIMIT_NS,
    Fingerprints,
    Ranges,
    SiteClock,
    time_mistake,
)
from heatpool_aggregator.core.layouts import Layout, Values, values_of
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.effects import Unusable
from heatpool_aggregator.ports import Chunk, Frame
from heatpool_aggregator.wire.bulk import Head, Ints


class Ready(NamedTuple):
    """A batch that is new and of a known schema, with the clock of its site at that moment."""

    frame: Frame
    head: Head
    layout: Layout
    clock: SiteClock


class Known(NamedTuple):
    """A spool that was met before, with the layouts that its site named."""

    ranges: Ranges
    fingerprints: Fingerprints
    layouts: dict[int, Layout]


def schema_of(state: ShardState, frame: Frame, schema_id: int) -> Schema:
    """The channel list that a batch names.

    Raises:
        Unusable: its site did not name it.
    """
    schema = state.schemas.get((frame.site_id, frame.boot_id, schema_id))
    if schema is None:
        raise Unusable(
            RefusedReason.UNKNOWN_SCHEMA,
            f"schema {schema_id} was not named in hello, or was refused",
        )
    return schema


def keep_out(frame: Frame, clock: SiteClock, newest_ns: int) -> None:
    """Keeps out what has no true time: it would stay the newest for as long as it is ahead."""
    if not clock.is_flagged and newest_ns <= frame.received_ns:
        return
    if mistake := time_mistake(clock.corrected_ns(newest_ns), frame.received_ns):
        raise Unusable(RefusedReason.CLOCK, mistake)


def fits(head: Head, n_channels: int) -> bool:
    """Whether counts and times are in order; if not, the one-by-one decoder says what is wrong."""
    n_cells = head.n_rows * n_channels
    return (
        head.last - head.first == n_cells
        and (not head.valid_bits or len(head.valid_bits) == (n_cells + 7) // 8)
        and 0 < head.start_ns <= head.end_ns < EVENT_LIMIT_NS
    )


def values_of_all(alike: Sequence[Ready], cells: Ints) -> Values:
    """(n_frames, n_channels, n_rows) of batches that are alike."""
    layout, n_rows = alike[0].layout, alike[0].head.n_rows
    firsts = np.array([one.head.first for one in alike])
    n_cells = layout.n_channels * n_rows
    if firsts[-1] - firsts[0] == n_cells * (len(alike) - 1):
        picked = cells[firsts[0] : firsts[-1] + n_cells]
    else:
        picked = cells[firsts[:, None] + np.arange(n_cells)]
    picked = picked.reshape(len(alike), layout.n_channels, n_rows)
    return values_of(picked, layout.shape, [one.head.valid_bits for one in alike])


def chunk_of(frame: Frame, start_ns: int, end_ns: int, blob: bytes) -> Chunk:
    """Rows from start to end, both included, as history keeps them."""
    return Chunk(
        frame.site_id, frame.boot_id, frame.seq, start_ns, end_ns + 1, frame.received_ns, blob
    )
