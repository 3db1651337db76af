"""Messages of the query service: what people may ask, both directions, bytes <-> views.

An unset field is absent, never zero; an enum that is unspecified is absent too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from heatpool.errors import WireError
from heatpool.sample import (
    AgreementId,
    MeterId,
    MeteringPointId,
    Provenance,
    QualityClass,
    SiteId,
    VirtualSourceId,
)
from heatpool.setpoint import SetpointState
from heatpool.v1 import query_pb2 as pb
from heatpool_aggregator.board import HeatView, SetpointView, SiteView, SourceView
from heatpool_aggregator.core.settlement import Statement, StatementLine

SERVICE = "heatpool.v1.QueryService"

MessageT = TypeVar("MessageT", bound=Message)
ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True, kw_only=True)
class GapView:
    """Numbers first to last, both included, that will never come, or a time without rows."""

    site_id: SiteId
    boot_id: str
    first_seq: int
    last_seq: int
    start_ns: int | None
    end_ns: int | None
    reason: str


def nothing_to_bytes(_: None = None) -> bytes:
    """A question that has no terms."""
    return b""


def sites_to_bytes(views: Sequence[SiteView]) -> bytes:
    """State of the sites, ordered by id."""
    ordered = sorted(views, key=lambda view: view.site_id)
    return pb.ListSiteStatusResponse(sites=[_site(v) for v in ordered]).SerializeToString()


def sites_from_bytes(data: bytes) -> tuple[SiteView, ...]:
    """State of the sites.

    Raises:
        WireError: these bytes are no such message.
    """
    return _all(_message(pb.ListSiteStatusResponse, data).sites, _site_view)


def sources_to_bytes(views: Sequence[SourceView]) -> bytes:
    """State of the virtual sources, ordered by id; the same bytes answer a watch."""
    ordered = sorted(views, key=lambda view: view.virtual_source_id)
    sources = [_source(view) for view in ordered]
    return pb.ListSourceStatusResponse(virtual_sources=sources).SerializeToString()


def sources_from_bytes(data: bytes) -> tuple[SourceView, ...]:
    """State of the virtual sources.

    Raises:
        WireError: these bytes are no such message.
    """
    return _all(_message(pb.ListSourceStatusResponse, data).virtual_sources, _source_view)


def statement_request_to_bytes(at_ns: int | None) -> bytes:
    """Asks for the statement of the period around an instant; None: the last closed one."""
    return pb.GetStatementRequest(at_ns=at_ns).SerializeToString()


def statement_request_from_bytes(data: bytes) -> int | None:
    """The instant that is asked for, ns; None: the last closed period.

    Raises:
        WireError: these bytes are no such message.
    """
    request = _message(pb.GetStatementRequest, data)
    if request.at_ns < 0:
        raise WireError(f"at_ns is {request.at_ns}, not a time since 1970")
    return request.at_ns if request.HasField("at_ns") else None


def statement_to_bytes(closed: Statement | None) -> bytes:
    """A statement; None: no period was closed yet."""
    message = None if closed is None else _statement(closed)
    return pb.GetStatementResponse(statement=message).SerializeToString()


def statement_from_bytes(data: bytes) -> Statement | None:
    """A statement; None: no period was closed yet.

    Raises:
        WireError: these bytes are no such message.
    """
    response = _message(pb.GetStatementResponse, data)
    if not response.HasField("statement"):
        return None
    found = response.statement
    return Statement(
        start_ns=found.start_ns,
        end_ns=found.end_ns,
        lines=_all(found.lines, _line_view),
        missing=tuple((SiteId(entry.site_id), entry.reason) for entry in found.missing),
    )


def gaps_request_to_bytes(site_id: str) -> bytes:
    """Asks for the gaps of one site; empty: of all."""
    return pb.ListGapsRequest(site_id=site_id).SerializeToString()


def gaps_request_from_bytes(data: bytes) -> str:
    """The site whose gaps are asked for; empty: all.

    Raises:
        WireError: these bytes are no such message.
    """
    return _message(pb.ListGapsRequest, data).site_id


def gaps_to_bytes(views: Iterable[GapView]) -> bytes:
    """Gaps, ordered by site and start."""
    ordered = sorted(views, key=lambda v: (v.site_id, v.start_ns or 0, v.boot_id, v.first_seq))
    return pb.ListGapsResponse(gaps=[_gap(view) for view in ordered]).SerializeToString()


def gaps_from_bytes(data: bytes) -> tuple[GapView, ...]:
    """Gaps.

    Raises:
        WireError: these bytes are no such message.
    """
    return _all(_message(pb.ListGapsResponse, data).gaps, _gap_view)


def _message(kind: type[MessageT], data: bytes) -> MessageT:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are no {kind.DESCRIPTOR.name}: {error}") from error


def _all(messages: Iterable[MessageT], view: Callable[[MessageT], ValueT]) -> tuple[ValueT, ...]:
    try:
        return tuple(view(message) for message in messages)
    except (ValueError, KeyError) as error:
        raise WireError(f"a message names what does not exist: {error}") from error


def _float(message: Message, name: str) -> float | None:
    return float(getattr(message, name)) if message.HasField(name) else None


def _int(message: Message, name: str) -> int | None:
    return int(getattr(message, name)) if message.HasField(name) else None


def _heat(heat: HeatView) -> pb.HeatQuantity:
    return pb.HeatQuantity(
        heat_rate_w=heat.heat_rate_w,
        heat_rate_w_u=heat.heat_rate_w_u,
        hot_c=heat.hot_c,
        cold_c=heat.cold_c,
        volume_flow_m3_h=heat.volume_flow_m3_h,
        quality_class=pb.QualityClass.ValueType(heat.quality or 0),
        provenance=pb.Provenance.ValueType(heat.provenance or 0),
    )


def _heat_view(heat: pb.HeatQuantity) -> HeatView:
    return HeatView(
        heat_rate_w=_float(heat, "heat_rate_w"),
        heat_rate_w_u=_float(heat, "heat_rate_w_u"),
        hot_c=_float(heat, "hot_c"),
        cold_c=_float(heat, "cold_c"),
        volume_flow_m3_h=_float(heat, "volume_flow_m3_h"),
        quality=QualityClass(heat.quality_class) if heat.quality_class else None,
        provenance=Provenance(heat.provenance) if heat.provenance else None,
    )


def _site(view: SiteView) -> pb.SiteStatus:
    return pb.SiteStatus(
        site_id=view.site_id,
        virtual_source_id=view.virtual_source_id or "",
        heat=_heat(view.heat),
        electric_w=view.electric_w,
        reported_heat_w=view.reported_heat_w,
        computed_heat_w=view.computed_heat_w,
        electric_heat_w=view.electric_heat_w,
        event_ns=view.event_ns,
        is_stale=view.is_stale,
        energy_wh=view.energy_wh,
        setpoint=None if view.setpoint is None else _setpoint(view.setpoint),
        clock_offset_s=view.clock_offset_s,
        is_clock_held=view.is_clock_held,
    )


def _site_view(site: pb.SiteStatus) -> SiteView:
    return SiteView(
        site_id=SiteId(site.site_id),
        virtual_source_id=VirtualSourceId(site.virtual_source_id) or None,
        heat=_heat_view(site.heat),
        electric_w=_float(site, "electric_w"),
        reported_heat_w=_float(site, "reported_heat_w"),
        computed_heat_w=_float(site, "computed_heat_w"),
        electric_heat_w=_float(site, "electric_heat_w"),
        rejection_capacity_w=None,  # the registry tells it
        event_ns=_int(site, "event_ns"),
        is_stale=site.is_stale,
        energy_wh=_int(site, "energy_wh"),
        setpoint=_setpoint_view(site.setpoint) if site.HasField("setpoint") else None,
        clock_offset_s=_float(site, "clock_offset_s"),
        is_clock_held=site.is_clock_held,
    )


def _setpoint(view: SetpointView) -> pb.SetpointStatus:
    return pb.SetpointStatus(
        setpoint_seq=view.setpoint_seq,
        heat_rate_w=view.heat_rate_w,
        applied_heat_rate_w=view.applied_heat_rate_w,
        state=view.state.name.lower(),
        detail=view.detail,
    )


def _setpoint_view(setpoint: pb.SetpointStatus) -> SetpointView:
    return SetpointView(
        setpoint_seq=setpoint.setpoint_seq,
        heat_rate_w=_float(setpoint, "heat_rate_w"),
        applied_heat_rate_w=_float(setpoint, "applied_heat_rate_w"),
        state=SetpointState[setpoint.state.upper()],
        detail=setpoint.detail,
    )


def _source(view: SourceView) -> pb.SourceStatus:
    return pb.SourceStatus(
        virtual_source_id=view.virtual_source_id,
        kind=view.kind,
        heat=_heat(view.heat),
        energy_wh=view.energy_wh,
        members_count=view.members_count,
        fresh_count=view.fresh_count,
        coverage_frac=view.coverage_frac,
        watermark_ns=view.watermark_ns,
        version=view.version,
    )


def _source_view(source: pb.SourceStatus) -> SourceView:
    return SourceView(
        virtual_source_id=VirtualSourceId(source.virtual_source_id),
        kind=source.kind,
        heat=_heat_view(source.heat),
        energy_wh=source.energy_wh,
        members_count=source.members_count,
        fresh_count=source.fresh_count,
        coverage_frac=source.coverage_frac,
        watermark_ns=_int(source, "watermark_ns"),
        version=source.version,
    )


def _statement(closed: Statement) -> pb.Statement:
    return pb.Statement(
        start_ns=closed.start_ns,
        end_ns=closed.end_ns,
        lines=[_line(line) for line in closed.lines],
        is_complete=closed.is_complete,
        missing=[pb.MissingRegister(site_id=who, reason=why) for who, why in closed.missing],
    )


def _line(line: StatementLine) -> pb.StatementLine:
    return pb.StatementLine(
        virtual_source_id=line.virtual_source_id,
        site_id=line.site_id,
        metering_point_id=line.metering_point_id,
        meter_id=line.meter_id,
        register_open_wh=line.register_open_wh,
        register_close_wh=line.register_close_wh,
        energy_wh=line.energy_wh,
        price_eur_mwh=line.price_eur_mwh,
        amount_eur=line.amount_eur,
        agreement_id=line.agreement_id,
        flags=line.flags,
    )


def _line_view(line: pb.StatementLine) -> StatementLine:
    return StatementLine(
        virtual_source_id=VirtualSourceId(line.virtual_source_id),
        site_id=SiteId(line.site_id),
        metering_point_id=MeteringPointId(line.metering_point_id),
        meter_id=MeterId(line.meter_id),
        register_open_wh=line.register_open_wh,
        register_close_wh=line.register_close_wh,
        energy_wh=line.energy_wh,
        price_eur_mwh=line.price_eur_mwh,
        amount_eur=line.amount_eur,
        agreement_id=AgreementId(line.agreement_id),
        flags=tuple(line.flags),
    )


def _gap(view: GapView) -> pb.GapRecord:
    return pb.GapRecord(
        site_id=view.site_id,
        boot_id=view.boot_id,
        first_seq=view.first_seq,
        last_seq=view.last_seq,
        start_ns=view.start_ns,
        end_ns=view.end_ns,
        reason=view.reason,
    )


def _gap_view(gap: pb.GapRecord) -> GapView:
    return GapView(
        site_id=SiteId(gap.site_id),
        boot_id=gap.boot_id,
        first_seq=gap.first_seq,
        last_seq=gap.last_seq,
        start_ns=_int(gap, "start_ns"),
        end_ns=_int(gap, "end_ns"),
        reason=gap.reason,
    )
