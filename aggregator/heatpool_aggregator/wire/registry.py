"""Messages of the registry service: settings and site views -> bytes."""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from heatpool.errors import WireError
from heatpool.v1 import registry_pb2 as pb
from heatpool_aggregator.board import SiteView
from heatpool_aggregator.config import VirtualSource
from heatpool_aggregator.core.agreement import memberships

SERVICE = "heatpool.v1.RegistryService"


def sites_to_bytes(views: Sequence[SiteView]) -> bytes:
    """Who the sites are, ordered by id."""
    ordered = sorted(views, key=lambda view: view.site_id)
    return pb.ListSitesResponse(sites=[_site(view) for view in ordered]).SerializeToString()


def sources_to_bytes(sources: Sequence[VirtualSource], *, has_prices: bool = True) -> bytes:
    """Who takes heat, from whom and on what terms, ordered by id; without prices they are empty."""
    ordered = sorted(sources, key=lambda source: source.id)
    return pb.ListVirtualSourcesResponse(
        virtual_sources=[_source(source, has_prices=has_prices) for source in ordered]
    ).SerializeToString()


def renew_request_from_bytes(data: bytes) -> bytes:
    """The signing request, DER.

    Raises:
        WireError: these bytes are no such message.
    """
    try:
        csr_der: bytes = pb.RenewCertificateRequest.FromString(data).csr_der
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are no RenewCertificateRequest: {error}") from error
    return csr_der


def renewed_to_bytes(*, chain_pem: str, ca_pem: str, renew_after_ns: int) -> bytes:
    """The new certificate, and when it should be renewed, ns."""
    return pb.RenewCertificateResponse(
        chain_pem=chain_pem, ca_pem=ca_pem, renew_after_ns=renew_after_ns
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


def _source(source: VirtualSource, *, has_prices: bool) -> pb.VirtualSourceDefinition:
    return pb.VirtualSourceDefinition(
        virtual_source_id=source.id,
        kind=pb.OfftakerKind.Value(f"OFFTAKER_KIND_{source.kind.upper()}"),
        members=[
            pb.Member(site_id=member.site_id, from_ns=member.from_ns, until_ns=member.until_ns)
            for member in memberships([source])
        ],
        version=source.version,
        agreement_id=source.agreement.id,
        price_eur_mwh=format(source.agreement.price_eur_mwh, "f") if has_prices else "",
    )
