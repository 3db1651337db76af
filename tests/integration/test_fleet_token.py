"""One token for a whole fleet: each new site once, whose name begins so, and nobody else."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import https_bench
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from https_bench import Bench, csr
from integration.test_identity_commands import ran, said

from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import is_fleet
from heatpool_aggregator.identity.certificates import named
from heatpool_aggregator.web import join


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(join, "PLACE_BURST_COUNT", 15)
    async with https_bench.opened(tmp_path) as opened:
        yield opened


async def asked(
    bench: Bench, token: str, site_id: str, request: bytes | None = None
) -> tuple[int, Any]:
    """Status and JSON of a join."""
    body = {"token": token, "csr_pem": (request or csr()).decode(), "site_id": site_id}
    async with bench.session.post("/v1/join", json=body) as response:
        return response.status, await response.json(content_type=None)


async def test_each_new_site_of_a_fleet_joins_once_by_one_token(bench: Bench) -> None:
    token = await bench.join_token("load-*", uses_count=40)
    for number in range(20):  # more than a single site may ask in that time
        status, answer = await asked(bench, token.text, f"load-{number}")
        assert status == 200, answer
        mine = named(answer["chain_pem"].encode())
        assert mine.uri == f"spiffe://heatpool/site/load-{number}"
        found = await bench.identities.principal_of_cert(mine.uri, mine.serial)
        assert found is not None and found.tenant == https_bench.TENANT
    (left,) = await bench.identities.join_tokens()
    assert left.uses_left == 20
    newest = (await bench.audit.read(1))[0]
    assert newest.subject == "site/load-19"
    assert json.loads(newest.detail)["token_id"] == token.token_id


@pytest.mark.parametrize("site_id", ["lod-1", "load", "e1", "Load-1", "xload-1"])
async def test_a_site_of_another_name_does_not_join_by_it(bench: Bench, site_id: str) -> None:
    token = await bench.join_token("load-*", uses_count=5)
    status, problem = await asked(bench, token.text, site_id)
    assert status == 403 and "for another" in problem["detail"]


@pytest.mark.parametrize("is_revoked", [False, True])
async def test_a_stolen_fleet_token_puts_nobody_in_an_enrolled_sites_place(
    bench: Bench, *, is_revoked: bool
) -> None:
    own = await bench.join_token("load-7")
    _, answer = await asked(bench, own.text, "load-7")
    if is_revoked:
        await bench.identities.revoke_site(SiteId("load-7"), "stolen")
    token = await bench.join_token("load-*", uses_count=5)
    status, problem = await asked(bench, token.text, "load-7")
    assert status == 403 and "--site-id load-7" in problem["detail"]
    mine = named(answer["chain_pem"].encode())
    found = await bench.identities.principal_of_cert(mine.uri, mine.serial)
    assert (found is None) == is_revoked


async def test_a_site_that_lost_the_answer_hears_it_again_and_a_second_key_does_not(
    bench: Bench,
) -> None:
    token, request = await bench.join_token("load-*", uses_count=5), csr()
    first, again = [await asked(bench, token.text, "load-1", request) for _ in range(2)]
    assert first == again and first[0] == 200
    assert (await asked(bench, token.text, "load-1"))[0] == 403
    (left,) = await bench.identities.join_tokens()
    assert left.uses_left == 4


@pytest.mark.parametrize("is_approval_needed", [False, True])
async def test_no_two_sites_of_a_fleet_share_a_key(
    bench: Bench, *, is_approval_needed: bool
) -> None:
    token = await bench.join_token("load-*", uses_count=5, is_approval_needed=is_approval_needed)
    request = csr(ec.generate_private_key(ec.SECP256R1()))
    assert (await asked(bench, token.text, "load-1", request))[0] in (200, 202)
    status, problem = await asked(bench, token.text, "load-2", request)
    assert status == 400 and "load-1" in problem["detail"]


async def test_each_of_a_fleet_waits_for_its_own_approval(bench: Bench) -> None:
    token = await bench.join_token("load-*", uses_count=20, is_approval_needed=True)
    requests = [csr() for _ in range(12)]  # more than may wait for a single site
    for number, request in enumerate(requests):
        assert (await asked(bench, token.text, f"load-{number}", request))[0] == 202
    await bench.identities.approve(SiteId("load-3"), "")
    assert (await asked(bench, token.text, "load-3", requests[3]))[0] == 200
    assert (await asked(bench, token.text, "load-4", requests[4]))[0] == 202


async def test_a_fleet_behind_one_address_is_not_held_up(bench: Bench) -> None:
    token = await bench.join_token("load-*", uses_count=200)
    for number in range(30):
        assert (await asked(bench, token.text, f"load-{number}"))[0] == 200, number
    told = [(await asked(bench, token.text, f"e{number}"))[0] for number in range(20)]
    assert told[0] == 403 and told[-1] == 429  # who is refused is


@pytest.mark.parametrize("pattern", ["load-*", "a*", "load-000*"])
def test_a_beginning_and_one_star_name_a_fleet(pattern: str) -> None:
    assert is_fleet(pattern)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aggregator") / "state"
    ran(folder, "init", "--host", "agg.example")
    return folder


@pytest.mark.parametrize("pattern", ["*", "*-load", "lo*d", "load-**", "-*", "lo ad*", "load-*\n"])
def test_any_other_pattern_is_refused_in_words(state: Path, pattern: str) -> None:
    refused = ran(state, "token", "new", "--site-id", pattern, code=2)
    assert "cannot name a fleet" in refused.stderr and "'load-*'" in refused.stderr


def test_a_token_of_a_fleet_is_listed_and_in_the_audit_log(state: Path) -> None:
    words = ("--site-id", "load-*", "--uses", "10000", "--expires", "24h")
    new = said(state, "token", "new", *words)
    assert new["site_id"] == "load-*"
    (row,) = [row for row in said(state, "token", "list") if row["token_id"] == new["token_id"]]
    assert (row["site_id"], row["uses_left"], row["state"]) == ("load-*", 10_000, "open")
    (entry,) = said(state, "audit", "--limit", "1")
    assert (entry["action"], entry["subject"]) == ("token.new", "site/load-*")
    assert "once each, 10000 in all" in ran(state, "token", "new", *words).stdout


def test_one_site_has_no_use_for_ten_thousand_joins(state: Path) -> None:
    refused = ran(state, "token", "new", "--site-id", "e1", "--uses", "10000", code=2)
    assert "at most 1000 for one site" in refused.stderr
