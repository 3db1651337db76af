"""Words of the line to the aggregator: its lanes, what it asks, who speaks, how it refuses."""

from dataclasses import dataclass, field
from enum import StrEnum

from heatpool.errors import UplinkError
from heatpool.sample import BootId, SpoolKind
from heatpool_agent.core.spooled import Seq

# Four messages in flight hide a round trip of a slow line; the aggregator may allow more.
WINDOW_LEAST = 4
# Frames that are read from the disk at once; more in flight would fill no line better.
WINDOW_MOST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """What the aggregator asks to be kept; None: it asks for nothing."""

    batch_rows_count: int | None = None
    batch_bytes: int | None = None
    unacked_count: int | None = None
    report_period_s: float | None = None
    message_period_s: float | None = None
    backlog_bytes_s: float | None = None

    def is_tighter(self, before: "LineLimits") -> bool:
        """Whether less may be sent than before."""
        backlog, was = self.backlog_bytes_s, before.backlog_bytes_s
        is_slower = backlog is not None and (was is None or backlog < was)
        return is_slower or (self.message_period_s or 0.0) > (before.message_period_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durable:
    """These numbers of a queue, both ends included, are safe elsewhere."""

    boot_id: BootId
    first_seq: Seq
    last_seq: Seq


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend:
    """The aggregator misses these numbers of a queue."""

    boot_id: BootId
    first_seq: Seq
    last_seq: Seq


class LineRefused(UplinkError):
    """The aggregator does not know us, or not any more: a person must act; `fix` says how."""

    def __init__(self, reason: str, *, fix: str) -> None:
        self.fix = fix
        super().__init__(reason)


class LineBusy(UplinkError):
    """The aggregator has more than it can take: come back later, and more slowly."""


class LineReplaced(UplinkError):
    """Somebody else came as this site while our line was good; `fix` says what to look for."""

    fix = (
        "another machine has this site's identity, by a copied disk or folder: stop it there and "
        "remove its identity folder, or enrol one of the two anew (heatpool-agent join --force)"
    )


class Lane(StrEnum):
    """Ways of frames over a line, each in the order of its numbers."""

    BILLING = "billing"
    BACKLOG = "backlog"
    LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one message took along: bytes on the line, and rows."""

    size_bytes: int
    rows_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What proves who this site is: the CA it trusts, its own key and its certificate's chain."""

    root_pem: bytes
    key_pem: bytes = field(repr=False)
    chain_pem: bytes


def boundary_of(kind: SpoolKind, *, first_seq: int, next_seq: int) -> int:
    """Where the live lane of a queue begins: its newest frame now. 0: the queue has one lane."""
    if kind is SpoolKind.BILLING:
        return 0
    return max(first_seq, next_seq - 1)


def lane_of(kind: SpoolKind, seq: int, *, boundary_seq: int) -> Lane:
    """The lane that a frame travels on."""
    if kind is SpoolKind.BILLING:
        return Lane.BILLING
    return Lane.LIVE if seq >= boundary_seq else Lane.BACKLOG


def lane_share(lane: Lane, unacked_count: int | None) -> int:
    """Frames of a lane that may be on their way, of what all lanes together may have."""
    count = min(unacked_count or WINDOW_LEAST, WINDOW_MOST)
    backlog, billing = max(1, count // 2), max(1, count // 4)
    shares = {Lane.BACKLOG: backlog, Lane.BILLING: billing}
    return shares.get(lane, max(1, count - backlog - billing))
