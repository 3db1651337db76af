"""What each role and tenant hears of sites, sums, accounts, gaps and terms: its own alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from integration.query import conftest as here

from heatpool.sample import SiteId
from heatpool.v1 import query_pb2, registry_pb2
from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.core.principal import LOCAL, Principal, Role
from heatpool_aggregator.ports import Event, Identities, Store
from heatpool_aggregator.rpc.query import GAPS_LIMIT, Query
from heatpool_aggregator.rpc.refused import Refused
from heatpool_aggregator.rpc.registry import Registry
from heatpool_aggregator.rpc.tenants import Tenants
from heatpool_aggregator.stores.identities import open_identities
from heatpool_aggregator.stores.sqlite import open_store

NORTH = Principal(name="person/nora", role=Role.SITE_OWNER, tenant="north")
SOUTH = Principal(name="machine/south", role=Role.OPERATOR, tenant="south")
EAST = Principal(name="person/eve", role=Role.SITE_OWNER, tenant="east")
OWNERLESS = Principal(name="person/odd", role=Role.SITE_OWNER)
READER = Principal(name="person/rob", role=Role.READ_ONLY)
CLEO = Principal(name="person/cleo", role=Role.SETTLEMENT)
NO_CONTEXT: Any = None
SOURCES = ["vs-greenhouse", "vs-swimming"]


@dataclass(frozen=True, slots=True)
class Known:
    """A door at which one caller stands."""

    caller: Principal

    async def principal(self, context: Any) -> Principal:
        return self.caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The services over a real store and real identities."""

    store: Store
    identities: Identities

    def query(self, caller: Principal) -> Query:
        tenants = Tenants(Known(caller), self.identities)
        return Query(here.full_board(), self.store, here.CONFIG, tenants)

    def registry(self, caller: Principal) -> Registry:
        tenants = Tenants(Known(caller), self.identities)
        return Registry(here.full_board(), here.CONFIG, tenants, None)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Desk]:
    clock = SystemClock()
    async with (
        open_store("", folder) as store,
        open_identities(folder, trust_domain="heatpool", clock=clock) as identities,
    ):
        await identities.add_site(SiteId("site-1"), "north")
        await identities.add_site(SiteId("site-2"), "south")
        yield Desk(store=store, identities=identities)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Two sites of two owners in one virtual source; a third tenant has none."""
    async with opened(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("caller", "sites", "sources"),
    [
        (LOCAL, ["site-1", "site-2"], SOURCES),
        (READER, ["site-1", "site-2"], SOURCES),
        (NORTH, ["site-1"], []),
        (SOUTH, ["site-2"], []),
        (EAST, [], []),
        (OWNERLESS, [], []),
    ],
)
async def test_sites_are_ones_own_and_no_sum_tells_of_a_neighbour(
    desk: Desk, caller: Principal, sites: list[str], sources: list[str]
) -> None:
    query, registry = desk.query(caller), desk.registry(caller)
    shown = query_pb2.ListSiteStatusResponse.FromString(await query.sites(b"", NO_CONTEXT))
    assert [site.site_id for site in shown.sites] == sites
    summed = query_pb2.ListSourceStatusResponse.FromString(await query.sources(b"", NO_CONTEXT))
    assert [source.virtual_source_id for source in summed.virtual_sources] == sources
    watched = await anext(aiter(query.watch(b"", NO_CONTEXT)))
    assert watched == await query.sources(b"", NO_CONTEXT)
    listed = registry_pb2.ListSitesResponse.FromString(await registry.sites(b"", NO_CONTEXT))
    assert [site.site_id for site in listed.sites] == sites
    defined = registry_pb2.ListVirtualSourcesResponse.FromString(
        await registry.sources(b"", NO_CONTEXT)
    )
    assert [m.site_id for one in defined.virtual_sources for m in one.members] == sites


async def test_a_member_hears_the_source_s_name_and_its_own_part(desk: Desk) -> None:
    answer = await desk.registry(NORTH).sources(b"", NO_CONTEXT)
    (defined,) = registry_pb2.ListVirtualSourcesResponse.FromString(answer).virtual_sources
    assert defined.virtual_source_id == SOURCES[0]
    assert [member.site_id for member in defined.members] == ["site-1"]
    answer = await desk.query(NORTH).sites(b"", NO_CONTEXT)
    (own,) = query_pb2.ListSiteStatusResponse.FromString(answer).sites
    assert (own.site_id, own.virtual_source_id) == ("site-1", SOURCES[0])


async def test_who_owns_all_members_hears_the_sum_until_one_is_sold(desk: Desk) -> None:
    query = desk.query(NORTH)
    watch = aiter(query.watch(b"", NO_CONTEXT))
    for owner, names in (("north", SOURCES[:1]), ("", []), ("north", SOURCES[:1]), ("east", [])):
        await desk.identities.add_site(SiteId("site-2"), owner)
        answer = await query.sources(b"", NO_CONTEXT)
        summed = query_pb2.ListSourceStatusResponse.FromString(answer).virtual_sources
        assert [one.virtual_source_id for one in summed] == names
    assert await anext(watch) == answer


@pytest.mark.parametrize(
    ("caller", "lines", "missing"),
    [(CLEO, ["site-1"], ["site-2"]), (NORTH, ["site-1"], []), (SOUTH, [], ["site-2"])],
)
async def test_accounts_are_ones_own(
    desk: Desk, caller: Principal, lines: list[str], missing: list[str]
) -> None:
    answer = await desk.query(caller).statement(b"", NO_CONTEXT)
    found = query_pb2.GetStatementResponse.FromString(answer).statement
    assert [line.site_id for line in found.lines] == lines
    assert [one.site_id for one in found.missing] == missing


@pytest.mark.parametrize(("caller", "price"), [(CLEO, "45.00"), (NORTH, "45.00"), (READER, "")])
async def test_prices_are_for_those_who_see_accounts(
    desk: Desk, caller: Principal, price: str
) -> None:
    answer = await desk.registry(caller).sources(b"", NO_CONTEXT)
    found = registry_pb2.ListVirtualSourcesResponse.FromString(answer).virtual_sources
    assert [source.price_eur_mwh for source in found] == [price]


async def test_gaps_of_others_neither_show_nor_push_out_ones_own(desk: Desk) -> None:
    def gap(site_id: str, number: int) -> Event:
        key, at_ns = f"{site_id}-{number}", number * here.S
        return Event(site_id=SiteId(site_id), name="gap", event_ns=at_ns, detail="{}", key=key)

    await desk.store.events.put([gap("site-1", 1)])
    await desk.store.events.put([gap("site-2", 2 + n) for n in range(GAPS_LIMIT + 5)])
    for caller, named in ((NORTH, {"site-1"}), (SOUTH, {"site-2"}), (EAST, set())):
        answer = await desk.query(caller).gaps(b"", NO_CONTEXT)
        found = query_pb2.ListGapsResponse.FromString(answer).gaps
        assert {one.site_id for one in found} == named
    asked = query_pb2.ListGapsRequest(site_id="site-2").SerializeToString()
    with pytest.raises(Refused, match="'site-2' is not known"):
        await desk.query(NORTH).gaps(asked, NO_CONTEXT)


async def test_a_new_owner_sees_the_site_at_once_and_the_old_one_no_more(desk: Desk) -> None:
    north, east = desk.query(NORTH), desk.query(EAST)
    await north.sites(b"", NO_CONTEXT)
    await desk.identities.add_site(SiteId("site-1"), "east")
    for query, count in ((north, 0), (east, 1)):
        shown = query_pb2.ListSiteStatusResponse.FromString(await query.sites(b"", NO_CONTEXT))
        assert len(shown.sites) == count
