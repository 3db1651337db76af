"""What a site says: ids, readings' fate as rows, estimates, registers, quality and provenance.

Records only. How they become bytes is `codec`; what a number means is in `units`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

SiteId = NewType("SiteId", str)
LoopId = NewType("LoopId", str)
MeterId = NewType("MeterId", str)
MeteringPointId = NewType("MeteringPointId", str)
VirtualSourceId = NewType("VirtualSourceId", str)
AgreementId = NewType("AgreementId", str)
BootId = NewType("BootId", str)


class Provenance(IntEnum):
    """Where a figure comes from; the numbers are those of the wire."""

    REPORTED = 1
    COMPUTED = 2
    ELECTRIC = 3
    FUSED = 4
    SUBSTITUTED = 5
    FORECAST = 6
    SIMULATED = 7


class QualityClass(IntEnum):
    """How good a heat figure is, A best; the numbers are those of the wire (`physics.md` 5.4)."""

    A = 1
    B = 2
    C = 3
    D = 4
    E = 5


class SpoolKind(IntEnum):
    """Which queue of a site a sequence number belongs to."""

    TELEMETRY = 1
    BILLING = 2


class RegisterReason(IntEnum):
    """Why a register row was written."""

    PERIODIC = 1
    METER_OPENING = 2
    METER_CLOSING = 3
    START = 4
    STOP = 5


class GapReason(IntEnum):
    """Why rows will never come."""

    ROLLED_UP = 1
    DROPPED = 2
    DAMAGED = 3
    UNUSED = 4  # left out to be sure: nothing is lost under these numbers


class RefusedReason(IntEnum):
    """Why a frame cannot be used."""

    MALFORMED = 1
    TOO_LARGE = 2
    UNKNOWN_SCHEMA = 3
    OUT_OF_RANGE = 4
    SEQ_CONFLICT = 5
    CLOCK = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value we made, never without its doubt, class and origin."""

    value: float
    u: float
    quality: QualityClass
    provenance: Provenance
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Channel:
    """One column: a quantity (unit in its name) of a loop; an empty loop is the whole site."""

    loop_id: str
    quantity: str
    exponent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """An ordered list of channels that batches name by `schema_id` within (site, boot id)."""

    schema_id: int
    boot_id: BootId
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One site at one instant; a channel that is not in `cells` is absent, never zero."""

    event_ns: int
    cells: Mapping[Channel, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRow:
    """One reading of a heat meter's cumulative register: the legal fact.

    Energy in Wh is `raw * 10**exponent`; the count rolls over at `modulus` (None: unknown).
    """

    metering_point_id: MeteringPointId
    meter_id: MeterId
    event_ns: int
    raw: int
    exponent: int
    modulus: int | None
    reason: RegisterReason
    meter_ns: int | None = None
    status_bits: int = 0
    chain_sha256: bytes = b""
