"""Messages of the registry service: settings and site views -> bytes."""

from collections.abc import Sequence

from heatpool.v1 import registry_pb2 as pb
from heatpool_aggregator.board import SiteView
from heatpool_aggregator.config import VirtualSource
from heatpool_aggregator.core.agreement import memberships

SERVICE = "heatpool.v1.RegistryService"


def sites_to_bytes(views: Sequence[SiteView]) -> bytes:
    """Who the sites are, ordered by id."""
    ordered = sorted(views, key=lambda view: view.site_id)
    return pb.ListSitesResponse(sites=[_site(view) for view in ordered]).SerializeToString()


def sources_to_bytes(sources: Sequence[VirtualSource]) -> bytes:
    """Who takes heat, from whom and on what terms, ordered by id."""
    ordered = sorted(sources, key=lambda source: source.id)
    return pb.ListVirtualSourcesResponse(
        virtual_sources=[_source(source) for source in ordered]
    ).SerializeToString()


def _site(view: SiteView) -> pb.Site:
    return pb.Site(
        site_id=view.site_id,
        loop_ids=view.loop_ids,
        metering_points=[
            pb.MeteringPoint(metering_point_id=meter.metering_point_id, meter_id=meter.meter_id)
            for meter in view.meters
        ],
        rejection_capacity_w=view.rejection_capacity_w,
    )


def _source(source: VirtualSource) -> pb.VirtualSourceDefinition:
    return pb.VirtualSourceDefinition(
        virtual_source_id=source.id,
        kind=pb.OfftakerKind.Value(f"OFFTAKER_KIND_{source.kind.upper()}"),
        members=[
            pb.Member(site_id=member.site_id, from_ns=member.from_ns, until_ns=member.until_ns)
            for member in memberships([source])
        ],
        version=source.version,
        agreement_id=source.agreement.id,
        price_eur_mwh=format(source.agreement.price_eur_mwh, "f"),
    )
