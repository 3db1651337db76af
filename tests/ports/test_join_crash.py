"""Kill -9 in the midst of joins: no use is spent twice, none serves two, none gets lost."""

import asyncio
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from https_bench import csr

from heatpool.sample import SiteId
from heatpool_aggregator.core.audit import first_break
from heatpool_aggregator.core.enrolment import JoinToken
from heatpool_aggregator.identity import authority
from heatpool_aggregator.identity.certificates import named
from heatpool_aggregator.identity.places import make_folder, places
from heatpool_aggregator.identity.tokens import new_join_token
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities

JOINER = Path(__file__).with_name("joiner.py")
SITES_COUNT = 40
HOUR_NS = 3_600 * 10**9


class Clock:
    """The machine's, as the joiner has it."""

    def now_ns(self) -> int:
        return time.time_ns()

    def boot_ns(self) -> int:
        return time.monotonic_ns()


async def prepare(folder: Path) -> list[tuple[str, str, str]]:
    """A CA, a token for one use per site, and for each site the true key and a thief's."""

    def make_ca() -> None:
        files = places(folder)
        make_folder(files.folder)
        authority.make(files, now_ns=time.time_ns())

    await asyncio.to_thread(make_ca)
    newcomers = []
    async with open_identities(folder, trust_domain="heatpool", clock=Clock()) as identities:
        for number in range(SITES_COUNT):
            secret, site_id, now_ns = new_join_token(), f"e{number}", time.time_ns()
            token = JoinToken(
                token_id=secret.token_id,
                site_id=SiteId(site_id),
                owner="",
                uses_count=1,
                uses_left=1,
                created_ns=now_ns,
                expires_ns=now_ns + HOUR_NS,
                is_approval_needed=False,
            )
            await identities.add_join_token(token, secret.sha256)
            newcomers += [(site_id, secret.text, csr().decode()) for _ in range(2)]
    return newcomers


async def run_joiner(folder: Path, *, lines_count: int | None) -> list[list[str]]:
    """What was handed out until the kill; None: nobody kills it."""
    joiner = await asyncio.create_subprocess_exec(
        sys.executable, str(JOINER), str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert joiner.stdout is not None
    assert await joiner.stdout.readline() == b"ready\n"
    lines = []
    if lines_count is not None:
        lines = [await joiner.stdout.readline() for _ in range(lines_count)]
        joiner.kill()
    lines += (await joiner.stdout.read()).splitlines(keepends=True)
    await joiner.wait()
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


@pytest.mark.parametrize("kills", [(0, 1, 7, 16)])
async def test_a_killed_process_gives_one_certificate_per_use(
    tmp_path: Path, kills: tuple[int, ...]
) -> None:
    newcomers = await prepare(tmp_path)
    (tmp_path / "newcomers.json").write_text(json.dumps(newcomers))
    told = []
    for lines_count in (*kills, None):
        told += await run_joiner(tmp_path, lines_count=lines_count)
    handed_out = defaultdict(set)
    for site_id, csr_pem, chain_pem in told:
        handed_out[site_id].add((csr_pem, named(chain_pem.encode()).serial))
    assert {len(one) for one in handed_out.values()} == {1}, "two for one use"
    assert len(handed_out) == SITES_COUNT, "a use was spent and nobody has it"
    async with (
        open_identities(tmp_path, trust_domain="heatpool", clock=Clock()) as identities,
        open_audit(tmp_path) as audit,
    ):
        assert {token.uses_left for token in await identities.join_tokens()} == {0}
        recorded = {site.site_id: site.serials for site in await identities.sites()}
        entries = list(await audit.read(9_999))[::-1]
    assert recorded == {
        SiteId(site_id): (serial,) for site_id, ((_, serial),) in handed_out.items()
    }
    assert first_break(entries) is None
    in_log = {json.loads(entry.detail)["serial"] for entry in entries}
    assert {serial for ((_, serial),) in handed_out.values()} <= in_log
