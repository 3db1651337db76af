"""An aggregator whose disk is full while a site joins: nothing is half done, and it is told."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import https_bench
import pytest
from https_bench import Bench, csr
from integration.test_join import left, post, wish

from heatpool.errors import StoreError
from heatpool_aggregator.core.audit import first_break
from heatpool_aggregator.stores.files import SqliteFile

Write = Callable[[int], Awaitable[object]]


@asynccontextmanager
async def full(file: SqliteFile, write: Write) -> AsyncIterator[None]:
    """Not one more page, and the last one is full as well; until there is room again."""
    ((pages,),) = await file.rows("PRAGMA page_count")
    await file.rows(f"PRAGMA max_page_count = {pages}")
    with suppress(StoreError):
        for number in count():
            await write(number)
    yield
    await file.rows("PRAGMA max_page_count = 1000000")


async def certified(bench: Bench, number: int) -> None:
    """Somebody else's certificate."""
    sql = (
        "INSERT INTO certificates (serial, name, key_sha256, issued_ns, expires_ns, chain_pem)"
        " VALUES (?, 'site/other', x'', 0, 0, '')"
    )
    await bench.identities.file.write([(sql, [(f"{number}",)])])


async def noted(bench: Bench, number: int) -> None:
    """Somebody else's deed."""
    await bench.audit.append(who="person/ada", action="look", subject="", at_ns=number)


@pytest.mark.parametrize("which", ["identities", "audit"])
async def test_a_site_that_meets_a_full_disk_is_told_to_wait_and_is_let_in_once_there_is_room(
    tmp_path: Path, which: str
) -> None:
    async with https_bench.opened(tmp_path) as bench:
        token, request = await bench.join_token(), csr()
        file, write = {
            "identities": (bench.identities.file, certified),
            "audit": (bench.audit.file, noted),
        }[which]
        async with full(file, lambda number: write(bench, number)):
            for _ in range(2):
                status, problem = await post(bench, wish(token.text, request))
                assert (status, "free room" in problem["detail"]) == (503, True), problem
                assert "CERTIFICATE" not in json.dumps(problem)
        status, answer = await post(bench, wish(token.text, request))
        assert status == 200 and "BEGIN CERTIFICATE" in answer["chain_pem"]
        (site,) = await bench.identities.sites()
        assert len(site.serials) == 1 and await left(bench) == 0
        entries = await bench.audit.read(100_000)
        assert first_break(entries[::-1]) is None
        assert sum(entry.action.startswith("site.enrol") for entry in entries) == 1
