"""Orders of a large fleet over a restart: each that holds is taken up, none that was ended."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from heatpool.sample import SiteId
from heatpool_aggregator.core.orders import Ask, Order
from heatpool_aggregator.loops.order_book import OrderBook
from heatpool_aggregator.stores.sqlite import SqliteStore, open_store

NOW_NS = 1_750_000_000 * 10**9
MANY = 1_100  # more than anybody lists at once


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store("", tmp_path) as opened:
        yield opened


def order(number: int) -> Order:
    ask = Ask(
        site_id=SiteId(f"s{number}"),
        heat_rate_w=1.0,
        lease_s=60.0,
        reason="cold",
        until_ns=NOW_NS + 10**18,
    )
    return Order(ask=ask, number=number, asked_by="person/anna", asked_ns=NOW_NS)


async def test_every_order_that_holds_is_taken_up(store: SqliteStore) -> None:
    book = OrderBook(store)
    for number in range(1, MANY + 1):
        await book.sending(order(number), number)
    held, highest, _ = await OrderBook(store).restore(now_ns=NOW_NS)
    assert {one.number for one in held} == set(range(1, MANY + 1)) == set(highest.values())
    assert book.order_of(SiteId("s1"), 1) is not None


async def test_no_order_that_was_ended_comes_back_however_many_ended_since(
    store: SqliteStore,
) -> None:
    book = OrderBook(store)
    newest = order(MANY + 1)
    await book.sending(newest, newest.number)
    await book.ended(newest, at_ns=NOW_NS)
    others = [replace(newest, number=number) for number in range(1, MANY + 1)]
    for number, other in enumerate(others, 1):
        await book.ended(other, at_ns=NOW_NS + number)
    held, _, _ = await OrderBook(store).restore(now_ns=NOW_NS)
    assert held == []


async def test_what_was_only_tried_takes_no_order_s_place(store: SqliteStore) -> None:
    book, real = OrderBook(store), order(1)
    await book.sending(real, 1)
    await book.sending(replace(real, number=2, ask=replace(real.ask, dry_run=True)), 2)
    held, highest, _ = await OrderBook(store).restore(now_ns=NOW_NS)
    assert ([one.number for one in held], highest) == ([1], {SiteId("s1"): 2})


async def test_an_order_whose_end_has_passed_is_a_record(store: SqliteStore) -> None:
    real = order(1)
    await OrderBook(store).sending(real, 1)
    held, _, _ = await OrderBook(store).restore(now_ns=real.end_ns)
    assert held == []
