"""What one frame of the log does to a shard's state, and what has to be stored because of it.

No I/O here: the effects are collected, and `shard` puts them into the store. Details of events
are JSON objects; the names are `gap`, `refused`, `refused_frame`, `clock`, `setpoint`, `hello`.
"""

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from zlib import crc32

from heatpool.errors import WireError
from heatpool.process.journal import facts
from heatpool.sample import RefusedReason, SiteId
from heatpool.setpoint import SetpointReport, SetpointState
from heatpool_aggregator.core.admission import (
    EVENT_LIMIT_NS,
    REGISTER_MIN_NS,
    Fingerprints,
    Key,
    SiteClock,
    Verdict,
    register_mistake,
    schema_mistake,
    time_mistake,
)
from heatpool_aggregator.core.chunk import chunk_to_bytes, rows_from_columns
from heatpool_aggregator.core.live import rows_mistake
from heatpool_aggregator.core.quantity import INDEX
from heatpool_aggregator.core.shard_state import Asked, Capability, ShardState
from heatpool_aggregator.ports import Chunk, Event, Frame, FrameKind, StoredRegister
from heatpool_aggregator.wire import telemetry
from heatpool_aggregator.wire.control import request_from_bytes
from heatpool_aggregator.wire.messages import BATCH_BYTES_LIMIT, Refusal
from heatpool_aggregator.wire.peek import peek

logger = logging.getLogger(__name__)


class Unusable(WireError):
    """A frame that is refused for another reason than its bytes."""

    def __init__(self, reason: RefusedReason, detail: str) -> None:
        self.refused_reason = reason
        super().__init__(detail)


@dataclass(slots=True, kw_only=True)
class Effects:
    """What frames leave to be stored and said."""

    chunks: list[Chunk] = field(default_factory=list)
    registers: list[StoredRegister] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


class Applying:
    """Applies frames in the order of the log; `asked_w` are the setpoints of the settings."""

    def __init__(self, state: ShardState, *, asked_w: Mapping[SiteId, float]) -> None:
        self.state = state
        self._asked_w = asked_w
        self._fingerprints: dict[Key, Fingerprints] = {}

    def apply(self, frame: Frame, effects: Effects) -> None:
        """Takes one frame into the state; one that we stumble over is kept aside as malformed."""
        try:
            self._take(frame, effects)
        except Exception as error:
            # The frame is durable and comes again at each start: it must not end the shard.
            logger.exception(
                "shard.frame_failed",
                extra=facts(site_id=frame.site_id, kind=frame.kind.name.lower(), seq=frame.seq),
            )
            _refuse(
                frame, effects, RefusedReason.MALFORMED, f"a mistake of ours: {error!r}; report it"
            )

    def _take(self, frame: Frame, effects: Effects) -> None:
        if frame.kind in (FrameKind.TELEMETRY, FrameKind.BILLING):
            self._numbered(frame, effects)
            return
        act = {
            FrameKind.HELLO: self._hello,
            FrameKind.GAP: self._gap,
            FrameKind.SETPOINT_REPORT: self._setpoint,
        }[frame.kind]
        try:
            act(frame, effects)
        except WireError as error:
            # The door read these before they came in; what it let through is kept for people.
            _refuse(frame, effects, RefusedReason.MALFORMED, str(error))

    def _numbered(self, frame: Frame, effects: Effects) -> None:
        key = (frame.site_id, frame.boot_id)
        fingerprints = self._fingerprints.setdefault(key, Fingerprints())
        is_repeat = self.state.ranges.verdict(key, frame.seq) is Verdict.REPEAT
        self.state.ranges.add(key, frame.seq, frame.seq)
        try:
            content_crc32 = peek(frame.payload).content_crc32
            if is_repeat and not fingerprints.differs(frame.seq, content_crc32):
                return
            if is_repeat:
                raise Unusable(RefusedReason.SEQ_CONFLICT, "the same number had other content")
            fingerprints.remember(frame.seq, content_crc32)
            self._usable(frame, effects)
        except WireError as error:
            reason = getattr(error, "refused_reason", RefusedReason.MALFORMED)
            _refuse(frame, effects, reason, str(error))

    def _usable(self, frame: Frame, effects: Effects) -> None:
        if len(frame.payload) > BATCH_BYTES_LIMIT:
            raise Unusable(
                RefusedReason.TOO_LARGE,
                f"{len(frame.payload)} bytes, allowed is {BATCH_BYTES_LIMIT}",
            )
        if frame.kind is FrameKind.TELEMETRY:
            self._telemetry(frame, effects)
        else:
            self._billing(frame, effects)

    def _telemetry(self, frame: Frame, effects: Effects) -> None:
        batch = telemetry.batch_from_bytes(frame.payload)
        self._observe(frame, batch.sent_ns, effects)
        key = (frame.site_id, frame.boot_id, batch.columns.schema_id)
        schema = self.state.schemas.get(key)
        if schema is None:
            raise Unusable(
                RefusedReason.UNKNOWN_SCHEMA,
                f"schema {batch.columns.schema_id} was not named in hello, or was refused",
            )
        rows = rows_from_columns(batch.columns, schema.channels)
        if mistake := rows_mistake(rows):
            raise Unusable(RefusedReason.OUT_OF_RANGE, mistake)
        self._hold(frame, int(rows.times_ns.max()))
        self.state.live.apply(frame.site_id, frame.boot_id, frame.seq, rows)
        effects.chunks.append(
            Chunk(
                site_id=frame.site_id,
                boot_id=frame.boot_id,
                seq=frame.seq,
                start_ns=int(rows.times_ns.min()),
                end_ns=int(rows.times_ns.max()) + 1,
                received_ns=frame.received_ns,
                blob=chunk_to_bytes(batch.columns, schema.channels),
            )
        )

    def _billing(self, frame: Frame, effects: Effects) -> None:
        batch = telemetry.registers_from_bytes(frame.payload)
        self._observe(frame, batch.sent_ns, effects)
        for row in batch.rows:
            if mistake := register_mistake(row):
                raise Unusable(RefusedReason.OUT_OF_RANGE, mistake)
        times_ns = [row.event_ns for row in batch.rows] or [frame.received_ns]
        self._hold(frame, max(times_ns))
        if min(times_ns) < REGISTER_MIN_NS:
            raise Unusable(
                RefusedReason.CLOCK,
                f"event_ns is {min(times_ns)}, before 2020: the clock was not set when it was read",
            )
        for index, row in enumerate(batch.rows):
            self.state.live.meter(frame.site_id, row)
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

    def _observe(self, frame: Frame, sent_ns: int, effects: Effects) -> None:
        """Learns from one more message how far the site's clock is off."""
        if not 0 < sent_ns < EVENT_LIMIT_NS:
            raise Unusable(RefusedReason.CLOCK, f"sent_ns is {sent_ns}, not a time since 1970")
        before = self.state.clocks.get(frame.site_id, SiteClock())
        clock = before.observed(sent_ns=sent_ns, received_ns=frame.received_ns)
        self.state.clocks[frame.site_id] = clock
        if (before.is_flagged, before.is_held) != (clock.is_flagged, clock.is_held):
            effects.events.append(
                _event(frame, "clock", offset_s=clock.offset_ns / 1e9, is_held=clock.is_held)
            )

    def _hold(self, frame: Frame, newest_ns: int) -> None:
        """Keeps out what has no true time: it would stay the newest for as long as it is ahead."""
        clock = self.state.clocks[frame.site_id]
        if clock.is_held:
            raise Unusable(
                RefusedReason.CLOCK,
                f"the site's clock is {-clock.offset_ns / 1e9:.0f} s ahead of ours: set it right",
            )
        if mistake := time_mistake(clock.corrected_ns(newest_ns), frame.received_ns):
            raise Unusable(RefusedReason.CLOCK, mistake)

    def _hello(self, frame: Frame, effects: Effects) -> None:
        hello = telemetry.hello_from_bytes(frame.payload)
        site = hello.sites[0]
        self.state.capabilities[frame.site_id] = Capability(
            rejection_capacity_w=site.rejection_capacity_w, loop_ids=site.loop_ids
        )
        for place, schema in enumerate(site.schemas):
            if schema_mistake(schema, place=place):
                continue
            key = (frame.site_id, schema.boot_id, schema.schema_id)
            if self.state.schemas.get(key) == schema:
                continue
            self.state.schemas[key] = schema
            unknown = sorted({c.quantity for c in schema.channels} - INDEX.keys())
            effects.events.append(
                _event(
                    frame,
                    "hello",
                    agent_version=hello.agent_version,
                    schema_id=schema.schema_id,
                    stored_not_used=unknown,
                )
            )

    def _gap(self, frame: Frame, effects: Effects) -> None:
        gap = telemetry.gap_from_bytes(frame.payload)
        self.state.ranges.add((frame.site_id, gap.boot_id), gap.first_seq, gap.last_seq)
        effects.events.append(
            Event(
                site_id=frame.site_id,
                name="gap",
                event_ns=frame.received_ns if gap.start_ns is None else gap.start_ns,
                detail=_json(
                    boot_id=gap.boot_id,
                    first_seq=gap.first_seq,
                    last_seq=gap.last_seq,
                    start_ns=gap.start_ns,
                    end_ns=gap.end_ns,
                    reason=gap.reason.name.lower(),
                ),
                key=f"gap/{frame.site_id}/{gap.boot_id}/{gap.first_seq}-{gap.last_seq}",
            )
        )

    def _setpoint(self, frame: Frame, effects: Effects) -> None:
        report = request_from_bytes(frame.payload)
        if not isinstance(report, SetpointReport):
            raise WireError("this is no report of a setpoint")
        before = self.state.asked.get(frame.site_id)
        if before is not None and report.setpoint_seq < before.setpoint_seq:
            return
        self.state.asked[frame.site_id] = asked = self._asked(report, before)
        if before is None or (before.setpoint_seq, before.state) != (
            asked.setpoint_seq,
            asked.state,
        ):
            effects.events.append(_setpoint_event(report, asked))

    def _asked(self, report: SetpointReport, before: Asked | None) -> Asked:
        is_same = before is not None and before.setpoint_seq == report.setpoint_seq
        wish = before.heat_rate_w if before and is_same else self._asked_w.get(report.site_id, 0.0)
        applied = report.applied_heat_rate_w
        if before and is_same and applied is None and report.state is SetpointState.RENEWED:
            applied = before.applied_heat_rate_w
        return Asked(
            setpoint_seq=report.setpoint_seq,
            heat_rate_w=wish,
            state=report.state,
            applied_heat_rate_w=applied,
            detail=report.detail,
        )


def _json(**values: object) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _event(frame: Frame, name: str, **values: object) -> Event:
    detail = _json(**values)
    return Event(
        site_id=frame.site_id,
        name=name,
        event_ns=frame.received_ns,
        detail=detail,
        key=f"{name}/{frame.site_id}/{frame.received_ns}/{crc32(detail.encode()):08x}",
    )


def _setpoint_event(report: SetpointReport, asked: Asked) -> Event:
    return Event(
        site_id=report.site_id,
        name="setpoint",
        event_ns=report.event_ns,
        detail=_json(
            setpoint_seq=report.setpoint_seq,
            state=report.state.name.lower(),
            heat_rate_w=asked.heat_rate_w,
            applied_heat_rate_w=report.applied_heat_rate_w,
            detail=report.detail,
        ),
        key=f"setpoint/{report.site_id}/{report.setpoint_seq}/{report.state.name.lower()}"
        f"/{report.event_ns}",
    )


def _refuse(frame: Frame, effects: Effects, reason: RefusedReason, detail: str) -> None:
    """Says that a frame is not used: to people, and to its site where it has a number."""
    effects.events += _refused_events(frame, reason, detail)
    if frame.kind not in (FrameKind.TELEMETRY, FrameKind.BILLING):
        return
    effects.refusals.append(
        Refusal(
            site_id=frame.site_id,
            boot_id=frame.boot_id,
            seq=frame.seq,
            reason=reason,
            detail=detail,
        )
    )


def _refused_events(frame: Frame, reason: RefusedReason, detail: str) -> list[Event]:
    """The reason for people, and beside it the frame itself, for a repair."""
    digest = f"{crc32(frame.payload):08x}"
    key = f"{frame.site_id}/{frame.boot_id}/{frame.kind.name.lower()}/{frame.seq}/{digest}"
    told = _json(
        boot_id=frame.boot_id,
        kind=frame.kind.name.lower(),
        seq=frame.seq,
        reason=reason.name.lower(),
        detail=detail,
    )
    kept = base64.b64encode(frame.payload).decode()
    return [
        Event(
            site_id=frame.site_id,
            name=name,
            event_ns=frame.received_ns,
            detail=what,
            key=f"{name}/{key}",
        )
        for name, what in (("refused", told), ("refused_frame", kept))
    ]
