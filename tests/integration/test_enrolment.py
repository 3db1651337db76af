"""A running agent takes up an identity, renews it in time and for ever, and lets it go."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from unit.agent.certificates import START, Ca, key_pem, new_key

from heatpool.errors import UplinkError
from heatpool.sample import SiteId
from heatpool_agent.board import Board
from heatpool_agent.core.identity_view import IdentityState
from heatpool_agent.enrol import files
from heatpool_agent.enrol.files import Enrolled, Papers, Place
from heatpool_agent.enrol.mark import SITE
from heatpool_agent.loops.enrolment import Enrolment, Settings

NS = 10**9
DAY_NS = 86_400 * NS
START_NS = int(START.timestamp()) * NS
CA = Ca()


@dataclass(slots=True)
class Clock:
    """A clock that stands until it is moved."""

    at_ns: int = START_NS

    def event_ns(self) -> int:
        return self.at_ns

    def boot_ns(self) -> int:
        return self.at_ns


def papers(site_id: str = "e1", *, day: int = 0, grpc: str = "127.0.0.1:1") -> Papers:
    """A certificate of 30 days that begins on a day, to be renewed after 20."""
    key = new_key()
    start = START + timedelta(days=day)
    return Papers(
        key_pem=key_pem(key),
        chain_pem=CA.site(key.public_key(), site_id, start=start, life=timedelta(days=30)),
        ca_pem=CA.pem,
        place=Place(site_id=site_id, grpc=grpc, renew_after_ns=START_NS + (day + 20) * DAY_NS),
    )


@dataclass(slots=True)
class Site:
    """An agent's enrolment and what it sees; `next` is what the aggregator answers a renewal."""

    state: Path
    clock: Clock = field(default_factory=Clock)
    board: Board = field(default_factory=lambda: Board(site_id=SiteId("site-1")))
    next: Papers | UplinkError = field(default_factory=lambda: UplinkError("away"))
    targets: list[str] = field(default_factory=list)

    def enrolment(self, **settings: str) -> Enrolment:
        chosen = Settings(state=self.state, **settings)
        return Enrolment(chosen, self.board, self.clock, renew=self._renew)

    def _renew(self, enrolled: Enrolled, target: str) -> Papers:
        self.targets.append(target)
        if isinstance(self.next, UplinkError):
            raise self.next
        return self.next


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("heatpool_agent.loops.enrolment.LOOK_S", 0.01)
    return Site(tmp_path)


@asynccontextmanager
async def running(enrolment: Enrolment) -> AsyncIterator[Enrolment]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(enrolment.run(), name="enrolment")
        try:
            yield enrolment
        finally:
            task.cancel()


async def until(claim: Callable[[], bool]) -> None:
    """Waits, as long as the test may, until it is true."""
    while not claim():  # noqa: ASYNC110  # an agent's loop posts it and tells nobody
        await asyncio.sleep(0.01)


async def tried(site: Site, count: int) -> None:
    """Waits until the aggregator was asked so often."""
    await until(lambda: len(site.targets) >= count)


async def turns(count: int = 20) -> None:
    """So many looks, at the least."""
    await asyncio.sleep(0.01 * count)


async def test_a_running_agent_takes_up_an_identity_and_leaves_with_it(site: Site) -> None:
    async with running(site.enrolment()) as enrolment, asyncio.timeout(30):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await enrolment.line()
        assert site.board.identity.state is IdentityState.NONE
        await asyncio.to_thread(files.keep, site.state, papers("e1"))
        line = await enrolment.line()
        assert line.url == "https://127.0.0.1:1"
        assert (site.board.site_id, site.board.identity.site_id) == ("e1", "e1")
        await asyncio.to_thread(files.forget, site.state)
        await enrolment.moved(line)
        assert site.board.identity.state is IdentityState.NONE


async def test_joining_elsewhere_moves_the_line(site: Site) -> None:
    files.keep(site.state, papers(grpc="127.0.0.1:1"))
    async with running(site.enrolment()) as enrolment, asyncio.timeout(30):
        line = await enrolment.line()
        await asyncio.to_thread(files.keep, site.state, papers(grpc="127.0.0.1:2"))
        await enrolment.moved(line)
        assert (await enrolment.line()).url == "https://127.0.0.1:2"


async def test_an_address_in_the_settings_wins_and_so_does_a_name(site: Site) -> None:
    files.keep(site.state, papers("e1"))
    enrolment = site.enrolment(url="https://heat.example:8443", site_id="e2")
    await enrolment.look()
    assert (await enrolment.line()).url == "https://heat.example:8443"
    assert site.board.site_id == "site-1"
    assert site.board.identity.state is IdentityState.UNUSABLE
    assert "site.id" in site.board.identity.fix


async def test_it_is_renewed_at_two_thirds_and_not_before(site: Site) -> None:
    files.keep(site.state, papers())
    async with running(site.enrolment()) as enrolment, asyncio.timeout(30):
        line = await enrolment.line()
        site.next = papers(day=20)
        site.clock.at_ns = START_NS + 20 * DAY_NS - 1
        await turns()
        assert site.targets == []
        # Each site has its own place within a tenth of what is left.
        site.clock.at_ns = START_NS + 21 * DAY_NS
        await enrolment.moved(line)
        assert site.targets == ["127.0.0.1:1"]
        await turns(3)
        assert site.board.identity.end_ns == START_NS + 50 * DAY_NS
        assert site.board.identity.state is IdentityState.VALID
    found = files.load(site.state)
    assert found is not None
    assert found.identity.key_pem.decode() == site.next.key_pem


async def test_renewal_is_tried_for_ever_and_said_so(site: Site) -> None:
    files.keep(site.state, papers())
    async with running(site.enrolment()), asyncio.timeout(30):
        for hours in range(1, 30):
            site.clock.at_ns = START_NS + 29 * DAY_NS + hours * 3_600 * NS
            await tried(site, hours)
            await turns(3)
            assert len(site.targets) == hours
        assert site.board.identity.state is IdentityState.EXPIRED
        assert "away" in site.board.identity.detail
        site.next = papers(day=30)
        site.clock.at_ns += 2 * 3_600 * NS
        await until(lambda: site.board.identity.state is IdentityState.VALID)


async def test_who_joins_while_a_renewal_is_under_way_is_not_overwritten(site: Site) -> None:
    files.keep(site.state, papers("e1"))
    newer = papers("e1", day=21)

    def slow(enrolled: Enrolled, target: str) -> Papers:
        files.keep(site.state, newer)
        return papers("e1", day=22)

    enrolment = Enrolment(Settings(state=site.state), site.board, site.clock, renew=slow)
    site.clock.at_ns = START_NS + 25 * DAY_NS
    async with running(enrolment), asyncio.timeout(30):
        await turns()
    found = files.load(site.state)
    assert found is not None
    assert found.identity.key_pem.decode() == newer.key_pem


async def test_an_identity_that_cannot_be_read_is_told_and_ends_nothing(site: Site) -> None:
    files.keep(site.state, papers())
    path = files.folder_of(site.state) / SITE
    path.write_text("spoilt")
    async with running(site.enrolment()), asyncio.timeout(30):
        await until(lambda: site.board.identity.state is IdentityState.UNUSABLE)
        assert "join" in site.board.identity.fix
        await asyncio.to_thread(files.keep, site.state, papers())
        await until(lambda: site.board.identity.state is IdentityState.VALID)


async def test_what_a_kill_interrupted_is_ended_at_the_start(site: Site) -> None:
    files.keep(site.state, papers("e1"))
    newer = papers("e2")
    folder = files.folder_of(site.state)
    texts = {
        "site.pem": newer.key_pem + newer.chain_pem,
        "ca.pem": newer.ca_pem,
        "place.json": msgspec.json.encode(newer.place).decode(),
    }
    # As if the kill had come after the promise, and before any of the three files had it.
    files.write(folder / "whole.json", json.dumps(texts))
    await site.enrolment().look()
    assert site.board.site_id == "e2"
    assert not (folder / "whole.json").exists()
    assert (folder / "site.pem").read_text() == texts["site.pem"]
