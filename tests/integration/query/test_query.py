"""The query and registry services, asked by generated stubs that share no code with ours."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from heatpool.errors import WireError
from heatpool.period import Period
from heatpool.sample import SiteId
from heatpool.v1 import query_pb2, query_pb2_grpc, registry_pb2, registry_pb2_grpc
from heatpool_aggregator.core.settlement import reconcile
from heatpool_aggregator.ports import Event
from heatpool_aggregator.wire import query as wire

S = 10**9
T0 = 1_790_000_100 * S
QUARTER = Period(start_ns=T0, end_ns=T0 + 900 * S)


@pytest.fixture
async def stub(rig: Any) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(rig.address) as channel:
        yield query_pb2_grpc.QueryServiceStub(channel)


def question(name: str, **terms: Any) -> Any:
    return getattr(query_pb2, f"{name}Request")(**terms)


async def test_a_site_is_told_whole(rig: Any, stub: Any) -> None:
    answer = await stub.ListSiteStatus(question("ListSiteStatus"))
    site = answer.sites[0]
    assert (site.site_id, site.heat.heat_rate_w, site.heat.heat_rate_w_u) == (
        "site-1",
        41_250.0,
        820.5,
    )
    assert (site.heat.quality_class, site.heat.provenance) == (2, 4)
    assert (site.energy_wh, site.setpoint.state) == (1_234_567, "effect_seen")


async def test_what_is_absent_stays_unset(rig: Any, stub: Any) -> None:
    answer = await stub.ListSiteStatus(question("ListSiteStatus"))
    site = answer.sites[1]
    assert [field.name for field, _ in site.ListFields()] == [
        *("site_id", "heat", "is_stale", "clock_offset_s", "is_clock_held")
    ]
    assert site.heat.ListFields() == []


async def test_views_survive_the_wire(board: Any) -> None:
    shown = tuple(
        replace(v, meters=(), loop_ids=(), rejection_capacity_w=None) for v in board.sites
    )
    assert wire.sites_from_bytes(wire.sites_to_bytes(board.sites)) == shown
    assert wire.sources_from_bytes(wire.sources_to_bytes(board.sources)) == board.sources
    assert wire.statement_from_bytes(wire.statement_to_bytes(board.statement)) == board.statement
    assert wire.statement_from_bytes(wire.statement_to_bytes(None)) is None


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(WireError, match="no ListSiteStatusResponse"):
        wire.sites_from_bytes(b"\x0a\xff")


def test_a_class_that_does_not_exist_is_refused() -> None:
    heat = query_pb2.HeatQuantity(quality_class=9)  # type: ignore[arg-type]
    message = query_pb2.ListSiteStatusResponse(sites=[query_pb2.SiteStatus(heat=heat)])
    with pytest.raises(WireError, match="does not exist"):
        wire.sites_from_bytes(message.SerializeToString())


async def test_sources_are_told_in_order(rig: Any, stub: Any) -> None:
    rig.board.post(sources=rig.board.sources[::-1])
    answer = await stub.ListSourceStatus(question("ListSourceStatus"))
    assert [s.virtual_source_id for s in answer.virtual_sources] == ["vs-greenhouse", "vs-swimming"]
    assert not answer.virtual_sources[1].HasField("watermark_ns")


async def test_a_watch_tells_of_each_change_once(rig: Any, stub: Any) -> None:
    watch = stub.WatchSourceStatus(question("WatchSourceStatus"))
    first = await watch.read()
    rig.board.post(log_position=99)
    rig.board.post(sources=rig.board.sources[:1])
    async with asyncio.timeout(60):
        second = await watch.read()
    assert (len(first.virtual_sources), len(second.virtual_sources)) == (2, 1)
    watch.cancel()


async def test_the_last_statement_is_told(rig: Any, stub: Any) -> None:
    found = (await stub.GetStatement(question("GetStatement"))).statement
    assert (found.start_ns, found.end_ns, found.is_complete) == (T0, T0 + 900 * S, False)
    assert (found.lines[0].energy_wh, found.lines[0].amount_eur) == (10_312, "0.46")
    assert [m.site_id for m in found.missing] == ["site-2"]


async def test_without_a_closed_period_there_is_no_statement(rig: Any, stub: Any) -> None:
    rig.board.post(statement=None)
    answer = await stub.GetStatement(question("GetStatement"))
    assert not answer.HasField("statement")


async def test_an_earlier_statement_comes_from_the_ledger(rig: Any, stub: Any) -> None:
    line = replace(rig.board.statement.lines[0], energy_wh=5)
    await rig.store.ledger.post(reconcile([], [line], period=QUARTER, posted_ns=1))
    await rig.registers("site-2", (0, 100), (800, 200))
    rig.board.post(statement=replace(rig.board.statement, end_ns=T0 + 9000 * S))
    found = (await stub.GetStatement(question("GetStatement", at_ns=T0 + 450 * S))).statement
    assert [line.energy_wh for line in found.lines] == [5]
    assert [(m.site_id, "no register" in m.reason) for m in found.missing] == [("site-2", True)]


@pytest.mark.parametrize(
    ("at_s", "reason"), [(900, "is not closed"), (-1, "has no metered member")]
)
async def test_a_statement_that_is_not_there_is_said_so(
    rig: Any, stub: Any, at_s: int, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetStatement(question("GetStatement", at_ns=T0 + at_s * S))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason in (caught.value.details() or "")


@pytest.mark.parametrize("at_ns", [-1, -(2**63)])
async def test_a_statement_of_before_1970_is_no_question(stub: Any, at_ns: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="not a time since 1970") as caught:
        await stub.GetStatement(question("GetStatement", at_ns=at_ns))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_before_any_period_no_time_has_a_statement(rig: Any, stub: Any) -> None:
    rig.board.post(statement=None)
    with pytest.raises(grpc.aio.AioRpcError, match="no settlement period was closed yet"):
        await stub.GetStatement(question("GetStatement", at_ns=T0))


async def test_gaps_are_told_with_their_reason(rig: Any, stub: Any) -> None:
    facts = {"boot_id": "b1", "first_seq": 3, "last_seq": 9, "reason": "dropped", "end_ns": T0 + 5}
    await rig.store.events.put(
        [
            Event(
                site_id=SiteId(site), name="gap", event_ns=T0, detail=detail, key=f"{site}/{detail}"
            )
            for site, detail in (("site-2", "damaged"), ("site-1", json.dumps(facts)))
        ]
    )
    both = (await stub.ListGaps(question("ListGaps"))).gaps
    assert [(gap.site_id, gap.first_seq, gap.last_seq, gap.reason) for gap in both] == [
        ("site-1", 3, 9, "dropped"),
        ("site-2", 0, 0, "damaged"),
    ]
    assert (both[0].start_ns, both[0].end_ns, both[1].HasField("end_ns")) == (T0, T0 + 5, False)
    one = (await stub.ListGaps(question("ListGaps", site_id="site-2"))).gaps
    assert [gap.site_id for gap in one] == ["site-2"]


async def test_gaps_of_an_unknown_site_are_not_found(rig: Any, stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="'site-9' is not known"):
        await stub.ListGaps(question("ListGaps", site_id="site-9"))


async def test_the_registry_tells_sites_members_and_terms(rig: Any) -> None:
    async with grpc.aio.insecure_channel(rig.address) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        sites = await stub.ListSites(registry_pb2.ListSitesRequest())
        sources = await stub.ListVirtualSources(registry_pb2.ListVirtualSourcesRequest())
    site = sites.sites[0]
    assert (list(site.loop_ids), site.rejection_capacity_w) == (["rack"], 60_000.0)
    assert site.metering_points[0].meter_id == "ACW.12345678.1.4"
    (source,) = sources.virtual_sources
    assert (source.kind, source.price_eur_mwh, source.version) == (1, "45.00", 3)
    assert [member.HasField("from_ns") for member in source.members] == [True, False]
