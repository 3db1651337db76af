"""The board as one JSON document; names are those of the wire, absent is null."""

from collections.abc import Iterable, Iterator
from math import isfinite

import msgspec

from heatpool.units import NS_PER_S
from heatpool_agent.board import LoopView, SensorView, SetpointView
from heatpool_agent.core.ledger import Hidden
from heatpool_agent.core.plausible import FLAGS, REJECTING, is_admitted
from heatpool_agent.core.reading import Reading
from heatpool_agent.http.loop_status import Figure, LoopHeat, figure, loop_heat
from heatpool_agent.http.seen import (
    Seen,
    next_try_ns,
    next_try_s,
    override_left_s,
    unacked_count,
)
from heatpool_agent.ports import SpoolMark

JUDGEMENTS = REJECTING | FLAGS.keys()


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Batches that waited when the line was opened; rows and bytes are told from those sent."""

    frames_count: int
    rows_count: int | None
    size_bytes: int | None
    start_frames_count: int
    done_frac: float
    frames_s: float | None
    left_s: float | None


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """State of the line to the aggregator; `fix` is what a person must do where it refuses.

    `detail` says why it is down, `next_try_s` when it is tried again; 0: now.
    """

    state: str
    detail: str
    fix: str
    next_try_s: float | None
    next_try_ns: int | None
    batches_sent: int
    batches_acked: int
    backlog: Backlog | None
    link_bytes_s: float | None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What proves who this site is; `fingerprint` is SHA-256 over the certificate."""

    state: str
    detail: str
    fix: str
    site_id: str
    grpc: str
    fingerprint: str
    start_ns: int | None
    end_ns: int | None


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue of the spool, by its numbers."""

    boot_id: str
    first_seq: int
    next_seq: int
    durable_seq: int
    unacked: int


class Sensor(msgspec.Struct, frozen=True, kw_only=True):
    """How one sensor fares, and what mends it."""

    id: str
    kind: str
    state: str
    detail: str
    fix: str
    readings_count: int
    failures_count: int
    read_s: float | None


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Measured energy of one counter since the agent began to count it, J.

    What its gaps hide is estimated beside it and never in it; null where nothing is known of them.
    """

    sensor: str
    channel: str
    energy_j: float
    gaps_count: int
    gaps_energy_j: float | None
    gaps_energy_j_u: float | None


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """Two heats of a loop further apart than their doubts: the first's excess over the second."""

    loop_id: str
    pair: str
    size_frac: float
    is_lasting: bool
    unit_factor: float | None


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """A reading that a figure was taken from."""

    sensor: str
    channel: str
    quantity: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A share of a host's electric power, measured or assumed; the shares add up to the host.

    `sensors` are those that show it.
    """

    name: str
    power_w: float
    power_w_u: float
    is_measured: bool
    sensors: tuple[str, ...] = ()


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Electric power of one server, the level it was taken from, and what it consists of."""

    loop_id: str
    host: str
    level: str
    power_w: float
    power_w_u: float
    quality_class: str
    parts: tuple[Part, ...]
    counted: tuple[Counted, ...] = ()


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What is odd about a reading, and whether it still enters estimates."""

    sensor: str
    channel: str
    quantity: str
    value: float | None
    flags: tuple[str, ...]
    is_admitted: bool


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wished of this site, and what is done."""

    setpoint_seq: int
    heat_rate_w: float
    applied_heat_rate_w: float | None
    state: str
    reason: str
    lease_left_s: float


class LocalOverride(msgspec.Struct, frozen=True, kw_only=True):
    """The local operator's word: all heat is rejected here, whatever is wished, until its end."""

    reason: str
    until_ns: int
    left_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the page shows."""

    schema: str = "heatpool.status/1"
    version: str
    site_id: str
    event_ns: int
    is_stale: bool
    tick_age_s: float | None
    missed_ticks: int
    uplink: Uplink
    identity: Identity
    spool: dict[str, Queue]
    spool_bytes: int | None
    spool_error: str
    electric: Figure | None
    heat: tuple[LoopHeat, ...]
    hosts: tuple[Host, ...]
    disagreements: tuple[Disagreement, ...]
    marks: tuple[Mark, ...]
    sensors: tuple[Sensor, ...]
    energies: tuple[Energy, ...]
    setpoint: Wish | None
    override: LocalOverride | None


def status(seen: Seen, *, version: str) -> Status:
    """The document for what is seen now."""
    board = seen.board
    return Status(
        version=version,
        site_id=board.site_id,
        event_ns=seen.event_ns,
        is_stale=seen.is_stale,
        tick_age_s=seen.tick_age_s,
        missed_ticks=board.missed_ticks,
        uplink=_uplink(seen),
        identity=msgspec.convert(board.identity, Identity, from_attributes=True),
        spool={kind.name.lower(): _queue(mark) for kind, mark in board.marks.items()},
        spool_bytes=board.spool_bytes if board.marks else None,
        spool_error=board.spool_error,
        electric=figure(seen.electric),
        heat=tuple(loop_heat(view) for view in seen.loops),
        hosts=tuple(host for view in seen.loops for host in _hosts(view)),
        disagreements=tuple(one for view in seen.loops for one in _disagreements(view)),
        marks=() if seen.is_stale else tuple(_marks(board.judged)),
        sensors=tuple(_sensor(view) for view in board.sensors.values()),
        energies=tuple(
            _energy(key, energy_j, board.hidden.get(key))
            for key, energy_j in board.energies_j.items()
        ),
        setpoint=_wish(board.setpoint),
        override=_override(seen),
    )


def _uplink(seen: Seen) -> Uplink:
    uplink = seen.board.uplink
    return Uplink(
        state=uplink.state,
        detail=uplink.detail,
        fix=uplink.fix,
        next_try_s=next_try_s(seen),
        next_try_ns=next_try_ns(seen),
        batches_sent=uplink.batches_sent,
        batches_acked=uplink.batches_acked,
        backlog=msgspec.convert(uplink.backlog, Backlog | None, from_attributes=True),
        link_bytes_s=uplink.link_bytes_s,
    )


def _energy(key: tuple[str, str], energy_j: float, hidden: Hidden | None) -> Energy:
    sensor, channel = key
    return Energy(
        sensor=sensor,
        channel=channel,
        energy_j=energy_j,
        gaps_count=hidden.gaps_count if hidden else 0,
        gaps_energy_j=hidden.energy_j if hidden else 0.0,
        gaps_energy_j_u=hidden.energy_j_u if hidden else 0.0,
    )


def _hosts(view: LoopView) -> Iterator[Host]:
    for one in view.power.hosts if view.power else ():
        whole = one.cover.whole
        yield Host(
            loop_id=view.loop_id,
            host=one.host,
            level=one.cover.level,
            power_w=whole.value,
            power_w_u=whole.u,
            quality_class=whole.quality.name,
            parts=tuple(
                msgspec.convert(part, Part, from_attributes=True) for part in one.cover.parts
            ),
            counted=msgspec.convert(one.cover.witnesses, tuple[Counted, ...], from_attributes=True),
        )


def _disagreements(view: LoopView) -> Iterator[Disagreement]:
    for one in view.disagreements:
        yield Disagreement(
            loop_id=view.loop_id,
            pair=one.pair,
            size_frac=one.size_frac,
            is_lasting=one.is_lasting,
            unit_factor=one.slip,
        )


def _marks(judged: Iterable[Reading]) -> Iterator[Mark]:
    """Readings with a mark of admission; a driver's own remarks are no judgement."""
    for reading in judged:
        if not JUDGEMENTS.isdisjoint(reading.flags):
            yield Mark(
                sensor=reading.sensor,
                channel=reading.channel,
                quantity=reading.quantity,
                value=reading.value if isfinite(reading.value) else None,
                flags=reading.flags,
                is_admitted=is_admitted(reading),
            )


def _queue(mark: SpoolMark) -> Queue:
    return Queue(
        boot_id=mark.boot_id,
        first_seq=mark.first_seq,
        next_seq=mark.next_seq,
        durable_seq=mark.durable_seq,
        unacked=unacked_count(mark),
    )


def _sensor(view: SensorView) -> Sensor:
    return msgspec.convert(view, Sensor, from_attributes=True)


def _override(seen: Seen) -> LocalOverride | None:
    left_s = override_left_s(seen)
    override = seen.board.override
    if override is None or left_s is None:
        return None
    until_ns = seen.event_ns + round(left_s * NS_PER_S)
    return LocalOverride(reason=override.reason, until_ns=until_ns, left_s=left_s)


def _wish(view: SetpointView | None) -> Wish | None:
    if view is None:
        return None
    return Wish(
        setpoint_seq=view.setpoint_seq,
        heat_rate_w=view.heat_rate_w,
        applied_heat_rate_w=view.applied_heat_rate_w,
        state=view.state.name.lower(),
        reason=view.reason,
        lease_left_s=view.lease_left_s,
    )
