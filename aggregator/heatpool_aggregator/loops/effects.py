"""What frames leave behind: rows and events for the store, refusals for their sites.

Details of events are JSON objects; the names are `gap`, `refused`, `refused_frame`, `clock`,
`clock_set`, `setpoint`, `hello`.
"""

import base64
import json
from dataclasses import dataclass, field
from zlib import crc32

from heatpool.errors import WireError
from heatpool.sample import RefusedReason
from heatpool.setpoint import SetpointReport, SetpointState
from heatpool_aggregator.core.admission import HOLD_NS, SiteClock
from heatpool_aggregator.core.shard_state import Asked
from heatpool_aggregator.ports import Chunk, Event, Frame, FrameKind, StoredRegister
from heatpool_aggregator.wire.messages import Gap, Refusal


class Unusable(WireError):
    """A frame that is refused for another reason than its bytes."""

    def __init__(self, reason: RefusedReason, detail: str) -> None:
        self.refused_reason = reason
        super().__init__(detail)


def reason_of(error: WireError) -> RefusedReason:
    """Why a frame is refused; bytes that do not decode where nothing else is said."""
    reason: RefusedReason = getattr(error, "refused_reason", RefusedReason.MALFORMED)
    return reason


@dataclass(slots=True, kw_only=True)
class Effects:
    """What frames leave to be stored and said."""

    chunks: list[Chunk] = field(default_factory=list)
    registers: list[StoredRegister] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def detail_of(**values: object) -> str:
    """What an event says, as its JSON object."""
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def gap_event(frame: Frame, gap: Gap) -> Event:
    """Numbers that will never come."""
    return Event(
        site_id=frame.site_id,
        name="gap",
        event_ns=frame.received_ns if gap.start_ns is None else gap.start_ns,
        detail=detail_of(
            boot_id=gap.boot_id,
            first_seq=gap.first_seq,
            last_seq=gap.last_seq,
            start_ns=gap.start_ns,
            end_ns=gap.end_ns,
            reason=gap.reason.name.lower(),
        ),
        key=f"gap/{frame.site_id}/{gap.boot_id}/{gap.first_seq}-{gap.last_seq}",
    )


def event(frame: Frame, name: str, **values: object) -> Event:
    """Something that a frame brought, at its arrival."""
    detail = detail_of(**values)
    return Event(
        site_id=frame.site_id,
        name=name,
        event_ns=frame.received_ns,
        detail=detail,
        key=f"{name}/{frame.site_id}/{frame.received_ns}/{crc32(detail.encode()):08x}",
    )


def clock_word(before: SiteClock, clock: SiteClock) -> dict[str, object]:
    """What is to be said of a site's clock after one more message; empty: nothing new."""
    was, now = (
        (one.is_flagged, one.is_far, one.is_held, round(one.offset_ns / HOLD_NS) * one.is_far)
        for one in (before, clock)
    )
    if was == now:
        return {}
    return {
        "offset_s": clock.offset_ns / 1e9,
        "is_held": clock.is_held,
        "is_corrected": clock.is_flagged and not clock.is_held,
    }


def setpoint_event(report: SetpointReport, *, wish_w: float | None, **more: object) -> Event:
    """A step in the life of a setpoint; one that is told twice is there once."""
    return Event(
        site_id=report.site_id,
        name="setpoint",
        event_ns=report.event_ns,
        detail=detail_of(
            setpoint_seq=report.setpoint_seq,
            state=report.state.name.lower(),
            heat_rate_w=wish_w,
            applied_heat_rate_w=report.applied_heat_rate_w,
            detail=report.detail,
            **more,
        ),
        key=f"setpoint/{report.site_id}/{report.setpoint_seq}/{report.state.name.lower()}"
        f"/{report.event_ns}",
    )


def asked_after(report: SetpointReport, before: Asked | None, *, wish_w: float | None) -> Asked:
    """What a site was asked, after one more report; `wish_w` is what the settings wish, W."""
    is_same = before is not None and before.setpoint_seq == report.setpoint_seq
    wish = before.heat_rate_w if before and is_same else wish_w
    applied = report.applied_heat_rate_w
    if report.state in (SetpointState.PLANNED, SetpointState.SENT):
        # We say these ourselves: the wish, if any, stands where a site says what it applied.
        wish, applied = applied, None
    if before and is_same and applied is None and report.state is SetpointState.RENEWED:
        applied = before.applied_heat_rate_w
    return Asked(
        setpoint_seq=report.setpoint_seq,
        heat_rate_w=wish,
        state=report.state,
        applied_heat_rate_w=applied,
        detail=report.detail,
    )


def refuse(frame: Frame, effects: Effects, reason: RefusedReason, detail: str) -> None:
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
    told = detail_of(
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
