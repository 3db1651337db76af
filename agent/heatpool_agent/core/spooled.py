"""What lies in the queues on disk: frames under their numbers, marks, losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from heatpool.sample import BootId, GapReason, SpoolKind

Seq = NewType("Seq", int)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFrame:
    """One batch as it lies on disk: columns or registers, under its number for good."""

    kind: SpoolKind
    boot_id: BootId
    seq: Seq
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolMark:
    """State of one queue: who it is, what it holds, what is known to be durable elsewhere."""

    kind: SpoolKind
    boot_id: BootId
    first_seq: Seq
    next_seq: Seq
    durable_seq: Seq


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLoss:
    """Numbers that will never be sent, to be reported as a gap.

    `boot_id` may be that of a life before this one: a damaged file began anew.
    """

    kind: SpoolKind
    boot_id: BootId
    first_seq: Seq
    last_seq: Seq
    reason: GapReason
    start_ns: int | None
    end_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStat:
    """What one queue holds; the backlog is what is not known to be durable elsewhere.

    `step_s` counts held rows by the seconds that each stands for; 0: as they were written.
    """

    mark: SpoolMark
    frames_count: int
    backlog_frames_count: int
    backlog_rows_count: int
    backlog_bytes: int
    backlog_start_ns: int | None
    size_bytes: int
    lost_frames_count: Mapping[GapReason, int]
    untold_count: int
    rows_by_step_s: Mapping[int, int]
