"""What a witness asks an operator's door afterwards."""

from heatpool.v1 import query_pb2

SITES_METHOD = "/heatpool.v1.QueryService/ListSiteStatus"


def sites_request() -> bytes:
    """Asks for the state of all sites."""
    return query_pb2.ListSiteStatusRequest().SerializeToString()


def energies_wh(data: bytes) -> dict[str, int]:
    """Metered energy of each site that has any, Wh."""
    answer = query_pb2.ListSiteStatusResponse.FromString(data)
    return {site.site_id: site.energy_wh for site in answer.sites if site.HasField("energy_wh")}
