"""A tenant hears of its own sites, whatever the board knows of yet."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from heatpool.sample import SiteId
from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.orders import Commanded
from heatpool_aggregator.core.principal import Principal, Role
from heatpool_aggregator.ports import Event
from heatpool_aggregator.rpc.command import Command
from heatpool_aggregator.rpc.guard import _hung_up
from heatpool_aggregator.rpc.query import GAP_EVENT, Query
from heatpool_aggregator.rpc.tenants import Tenants
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.stores.identities import open_identities
from heatpool_aggregator.wire import query as wire

OWNER = Principal(name="person/nora", role=Role.SITE_OWNER, tenant="north")
OPERATOR = Principal(name="machine/scada", role=Role.OPERATOR)
CONTEXT: Any = None  # who asks is told by Asked


class Asked:
    """Always the same one."""

    def __init__(self, who: Principal) -> None:
        self._who = who

    async def principal(self, _: Any) -> Principal:
        return self._who


class Book:
    """Remembers of which sites it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[SiteId] | None] = []

    async def listed(self, site_ids: Sequence[SiteId] | None, _: int) -> list[Commanded]:
        self.asked.append(site_ids)
        return []


@pytest.mark.parametrize(("who", "count"), [(OWNER, 0), (OPERATOR, 1)])
async def test_after_a_start_gaps_of_others_are_not_shown(
    tmp_path: Path, who: Principal, count: int
) -> None:
    async with (
        open_store("sqlite:", tmp_path) as store,
        open_identities(tmp_path, trust_domain="heatpool", clock=SystemClock()) as identities,
    ):
        gap = Event(key="k", site_id=SiteId("e2"), name=GAP_EVENT, event_ns=1, detail="{}")
        await store.events.put([gap])
        await store.flush()
        query = Query(Board(), store, Config(), Tenants(Asked(who), identities))
        assert len(wire.gaps_from_bytes(await query.gaps(b"", CONTEXT))) == count


@pytest.mark.parametrize(("who", "asked"), [(OWNER, []), (OPERATOR, None)])
async def test_after_a_start_orders_of_others_are_not_shown(
    tmp_path: Path, who: Principal, asked: list[SiteId] | None
) -> None:
    clock = SystemClock()
    async with open_identities(tmp_path, trust_domain="heatpool", clock=clock) as identities:
        book, rest = Book(), SimpleNamespace()
        command = Command(
            orders=rest,  # not asked for a list
            book=book,
            board=Board(),
            audit=rest,
            clock=clock,
            tenants=Tenants(Asked(who), identities),
        )
        await command.list(b"", CONTEXT)
    assert book.asked == [asked]


def test_a_line_that_went_while_tasks_wrote_is_no_fault_of_ours() -> None:
    gone = grpc.aio.AbortError("gone")
    assert _hung_up(ExceptionGroup("a", [ExceptionGroup("b", [gone])])) is gone
    assert _hung_up(ExceptionGroup("a", [gone, ValueError("ours")])) is None
    assert _hung_up(ValueError("ours")) is None
