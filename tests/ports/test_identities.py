"""What the door to identities owes: tokens spent once, revocations that hold, two processes."""

import asyncio
import hashlib
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import (
    ApiToken,
    Issued,
    JoinAsk,
    JoinReason,
    JoinRefused,
    JoinToken,
    NotThere,
    UserRecord,
    Waiting,
)
from heatpool_aggregator.core.principal import Principal, Role
from heatpool_aggregator.ports import Identities
from heatpool_aggregator.stores.identities import open_identities
from heatpool_aggregator.stores.identity_joins import (
    APPROVAL_WAIT_NS,
    RENEWALS_LIMIT,
    WAITING_LIMIT,
)

HOUR_NS = 3_600 * 10**9
E1, E2 = SiteId("e1"), SiteId("e2")
URI = "spiffe://heatpool/site/e1"
SECRET = "abc123.0123456789abcdef"
TOKEN = JoinToken(
    token_id="abc123",
    site_id=E1,
    owner="north",
    uses_count=1,
    uses_left=1,
    created_ns=0,
    expires_ns=24 * HOUR_NS,
    is_approval_needed=False,
)


@dataclass
class HandClock:
    """A clock that stands until a test moves it."""

    at_ns: int = HOUR_NS

    def now_ns(self) -> int:
        return self.at_ns

    def boot_ns(self) -> int:
        return self.at_ns


@dataclass
class Bench:
    """The door, a second one to the same file as another process has it, and the clock."""

    door: Identities
    beside: Identities
    clock: HandClock
    folder: Path


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = HandClock()
    async with _open(tmp_path, clock) as door, _open(tmp_path, clock) as beside:
        yield Bench(door, beside, clock, tmp_path)


@asynccontextmanager
async def _open(folder: Path, clock: HandClock) -> AsyncIterator[Identities]:
    async with open_identities(folder, trust_domain="heatpool", clock=clock) as door:
        yield door


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def ask(key: str = "key", *, token: str = SECRET, site_id: SiteId = E1) -> JoinAsk:
    return JoinAsk(token=token, site_id=site_id, key_sha256=digest(key), peer="192.0.2.7")


def issued(key: str = "key", serial: str = "a1", name: str = "site/e1") -> Issued:
    return Issued(
        serial=serial,
        name=name,
        key_sha256=digest(key),
        issued_ns=HOUR_NS,
        expires_ns=720 * HOUR_NS,
        chain_pem=f"chain {serial}",
    )


def user(name: str = "person/anna", role: Role = Role.OPERATOR, tenant: str = "") -> UserRecord:
    return UserRecord(
        name=name, role=role, tenant=tenant, added_ns=0, revoked_ns=None, expires_ns=None
    )


async def refused(bench: Bench, wish: JoinAsk) -> JoinReason:
    with pytest.raises(JoinRefused) as told:
        await bench.door.admit(wish)
    with pytest.raises(JoinRefused) as told_late:
        await bench.door.enrol(wish, issued("other", "ff"))
    assert told.value.reason is told_late.value.reason
    assert (wish.token.partition(".")[2] or "no secret") not in str(told.value)
    return told.value.reason


async def test_a_token_lets_its_site_in_once(bench: Bench) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    assert await bench.door.admit(ask()) == TOKEN
    assert await bench.door.enrol(ask(), issued()) == issued()
    assert await refused(bench, ask("another key")) is JoinReason.USED
    (site,) = await bench.beside.sites()
    assert (site.site_id, site.owner, site.revoked_ns) == (E1, "north", None)
    assert site.serials == ("a1",) and site.expires_ns == 720 * HOUR_NS
    assert await bench.door.owner_of(E1) == "north"
    assert await bench.door.owner_of(E2) == ""


async def test_the_same_key_hears_the_same_answer_and_spends_nothing(bench: Bench) -> None:
    await bench.door.add_join_token(replace(TOKEN, uses_count=2, uses_left=2), digest(SECRET))
    await bench.door.enrol(ask(), issued())
    assert await bench.door.admit(ask()) == issued()
    assert await bench.beside.enrol(ask(), issued(serial="b2")) == issued()
    assert [token.uses_left for token in await bench.door.join_tokens()] == [1]


async def test_of_two_that_race_for_one_use_exactly_one_wins(bench: Bench) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    tries = [
        (door.enrol(ask(f"key {number}"), issued(f"key {number}", f"{number:x}")))
        for number in range(1, 21)
        for door in [(bench.door, bench.beside)[number % 2]]
    ]
    results = await asyncio.gather(*tries, return_exceptions=True)
    won = [result for result in results if isinstance(result, Issued)]
    lost = [result for result in results if isinstance(result, JoinRefused)]
    assert len(won) == 1 and len(lost) == 19
    assert {error.reason for error in lost} == {JoinReason.USED}
    assert [site.serials for site in await bench.door.sites()] == [(won[0].serial,)]


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (ask(token="zzz999.0123456789abcdef"), JoinReason.UNKNOWN_TOKEN),
        (ask(token="abc123.0123456789abcdee"), JoinReason.UNKNOWN_TOKEN),
        (ask(token="abc123"), JoinReason.UNKNOWN_TOKEN),
        (ask(token=""), JoinReason.UNKNOWN_TOKEN),
        (ask(site_id=E2), JoinReason.WRONG_SITE),
    ],
)
async def test_who_has_no_token_for_the_site_gets_nothing(
    bench: Bench, wish: JoinAsk, reason: JoinReason
) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    assert await refused(bench, wish) is reason
    assert not await bench.door.sites()
    assert (await bench.door.join_tokens())[0].uses_left == 1


async def test_an_expired_and_a_revoked_token_let_nobody_in(bench: Bench) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    bench.clock.at_ns = TOKEN.expires_ns
    assert await refused(bench, ask()) is JoinReason.EXPIRED
    bench.clock.at_ns = HOUR_NS
    assert (await bench.beside.revoke_join_token("abc123")).revoked_ns == HOUR_NS
    assert await refused(bench, ask()) is JoinReason.REVOKED
    with pytest.raises(NotThere):
        await bench.door.revoke_join_token("nobody")


async def test_who_has_to_wait_gets_in_when_a_person_says_so(bench: Bench) -> None:
    token = replace(TOKEN, is_approval_needed=True)
    await bench.door.add_join_token(token, digest(SECRET))
    first, again = await bench.door.admit(ask()), await bench.door.admit(ask())
    assert isinstance(first, Waiting) and isinstance(again, Waiting)
    assert first.is_new and not again.is_new
    with pytest.raises(JoinRefused):
        await bench.door.enrol(ask(), issued())
    (waiting,) = await bench.beside.waiting()
    assert (waiting.site_id, waiting.peer) == (E1, "192.0.2.7")
    bench.clock.at_ns = token.expires_ns + HOUR_NS  # asked in time, approved after a week-end
    assert (await bench.beside.approve(E1, "")).key_sha256 == digest("key")
    assert await bench.door.admit(ask()) == token
    assert await bench.door.enrol(ask(), issued()) == issued()
    assert not await bench.door.waiting()


async def test_an_approval_is_for_one_key_and_not_for_ever(bench: Bench) -> None:
    await bench.door.add_join_token(replace(TOKEN, is_approval_needed=True), digest(SECRET))
    await bench.door.admit(ask("true"))
    await bench.door.admit(ask("thief"))
    with pytest.raises(NotThere, match="2 keys wait"):
        await bench.door.approve(E1, "")
    await bench.door.approve(E1, digest("true").hex()[:12])
    assert isinstance(await bench.door.admit(ask("thief")), Waiting)
    bench.clock.at_ns = TOKEN.expires_ns + APPROVAL_WAIT_NS
    assert await refused(bench, ask("true")) is JoinReason.EXPIRED
    assert not await bench.door.waiting()  # the thief's request has gone by itself
    with pytest.raises(NotThere):
        await bench.door.approve(E2, "")


async def test_a_stolen_token_cannot_fill_the_list_of_who_waits(bench: Bench) -> None:
    await bench.door.add_join_token(replace(TOKEN, is_approval_needed=True), digest(SECRET))
    for number in range(WAITING_LIMIT):
        await bench.door.admit(ask(f"key {number}"))
    assert await refused(bench, ask("one more")) is JoinReason.TOO_MANY_WAITING
    assert isinstance(await bench.door.admit(ask("key 0")), Waiting)


async def test_a_certificate_names_its_site_until_the_site_is_revoked(bench: Bench) -> None:
    await bench.door.add_join_token(replace(TOKEN, uses_count=2, uses_left=2), digest(SECRET))
    await bench.door.enrol(ask(), issued())
    expected = Principal(name="site/e1", role=Role.SITE, tenant="north")
    assert await bench.door.principal_of_cert(URI, "a1") == expected
    before = await bench.door.version()
    record = await bench.beside.revoke_site(E1, "sold")
    assert (record.revoked_ns, record.revoked_reason) == (HOUR_NS, "sold")
    assert await bench.door.version() > before
    assert await bench.door.principal_of_cert(URI, "a1") is None
    assert await refused(bench, ask("new key")) is JoinReason.REVOKED
    with pytest.raises(NotThere):
        await bench.door.renewed(issued(serial="a2"))


async def test_a_revoked_site_that_is_back_has_its_new_certificate_only(bench: Bench) -> None:
    await bench.door.add_site(E1, "north")
    assert await bench.door.principal_of_cert(URI, "from-elsewhere") is not None
    await bench.door.revoke_site(E1, "stolen")
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    await bench.door.enrol(ask(), issued())
    assert await bench.door.principal_of_cert(URI, "from-elsewhere") is None
    assert await bench.door.principal_of_cert(URI, "a1") is not None


async def test_joining_anew_ends_the_older_certificate(bench: Bench) -> None:
    await bench.door.add_join_token(replace(TOKEN, uses_count=2, uses_left=2), digest(SECRET))
    await bench.door.enrol(ask(), issued())
    await bench.door.enrol(ask("key 2"), issued("key 2", "a2"))
    assert await bench.door.principal_of_cert(URI, "a1") is None
    assert await bench.door.principal_of_cert(URI, "a2") is not None
    with pytest.raises(JoinRefused):  # what is denied is not handed out again either
        await bench.door.admit(ask())


async def test_renewing_keeps_both_certificates_until_the_old_one_runs_out(bench: Bench) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    await bench.door.enrol(ask(), issued())
    await bench.door.renewed(issued("key 2", "a2"))
    assert await bench.door.principal_of_cert(URI, "a1") is not None
    assert await bench.door.principal_of_cert(URI, "a2") is not None
    await bench.door.deny_certificate("a1", "key lost")
    assert await bench.door.principal_of_cert(URI, "a1") is None
    assert await bench.door.principal_of_cert(URI, "a2") is not None


async def test_a_site_that_renews_without_end_is_stopped(bench: Bench) -> None:
    await bench.door.add_site(E1, "")
    for number in range(RENEWALS_LIMIT):
        await bench.door.renewed(issued(f"key {number}", f"{number:x}"))
    with pytest.raises(JoinRefused) as told:
        await bench.door.renewed(issued("more", "ffff"))
    assert told.value.reason is JoinReason.TOO_OFTEN
    next_day = replace(issued("more", "ffff"), issued_ns=HOUR_NS + 24 * HOUR_NS)
    await bench.door.renewed(next_day)


async def test_certificates_that_ran_out_long_ago_are_forgotten(bench: Bench) -> None:
    await bench.door.add_site(E1, "")
    await bench.door.renewed(issued("key", "a1"))
    later_ns = (720 + 91 * 24) * HOUR_NS
    await bench.door.renewed(
        replace(issued("key 2", "a2"), issued_ns=later_ns, expires_ns=later_ns + HOUR_NS)
    )
    assert (await bench.door.sites())[0].serials == ("a2",)


@pytest.mark.parametrize(
    "uri",
    ["spiffe://elsewhere/site/e1", "spiffe://heatpool/site/e2", "spiffe://heatpool/person/e1"],
)
async def test_a_certificate_that_names_another_is_nobodys(bench: Bench, uri: str) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    await bench.door.enrol(ask(), issued())
    assert await bench.door.principal_of_cert(uri, "a1") is None


async def test_an_api_token_speaks_for_its_holder_until_either_ends(bench: Bench) -> None:
    await bench.door.add_user(user(tenant="north"), None)
    token = ApiToken(
        token_id="q",
        name="person/anna",
        role=Role.READ_ONLY,
        created_ns=0,
        expires_ns=2 * HOUR_NS,
    )
    await bench.door.add_api_token(token, digest("secret"))
    expected = Principal(name="person/anna", role=Role.READ_ONLY, tenant="north")
    assert await bench.door.principal_of_token("secret") == expected
    assert await bench.door.principal_of_digest(digest("secret")) == expected
    assert await bench.door.principal_of_token("Secret") is None
    bench.clock.at_ns = 2 * HOUR_NS
    assert await bench.door.principal_of_token("secret") is None
    bench.clock.at_ns = HOUR_NS
    await bench.beside.revoke_user("person/anna", "left")
    assert await bench.door.principal_of_token("secret") is None
    await bench.beside.add_user(user(), None)  # back, and the old token stays dead
    assert await bench.door.principal_of_token("secret") is None
    with pytest.raises(NotThere):
        await bench.door.add_api_token(replace(token, name="person/nobody"), digest("x"))


async def test_who_is_made_less_has_no_token_that_is_more(bench: Bench) -> None:
    await bench.door.add_user(user(role=Role.ADMIN), None)
    token = ApiToken(
        token_id="q", name="person/anna", role=Role.ADMIN, created_ns=0, expires_ns=9 * HOUR_NS
    )
    await bench.door.add_api_token(token, digest("secret"))
    await bench.door.add_user(user(role=Role.READ_ONLY), None)
    assert await bench.door.principal_of_token("secret") is None


async def test_a_persons_certificate_has_the_role_that_the_person_has_now(bench: Bench) -> None:
    uri = "spiffe://heatpool/person/anna"
    await bench.door.add_user(user(), issued(name="person/anna"))
    found = await bench.door.principal_of_cert(uri, "a1")
    assert found is not None and found.role is Role.OPERATOR
    await bench.door.add_user(user(role=Role.READ_ONLY, tenant="north"), None)
    assert await bench.door.principal_of_cert(uri, "a1") == Principal(
        name="person/anna", role=Role.READ_ONLY, tenant="north"
    )
    revoked = await bench.door.revoke_user("person/anna", "left")
    assert revoked.revoked_ns == HOUR_NS
    assert await bench.door.principal_of_cert(uri, "a1") is None


async def test_every_write_moves_the_version_that_all_see(bench: Bench) -> None:
    seen = [await bench.beside.version()]
    await bench.door.add_site(E1, "north")
    seen.append(await bench.beside.version())
    await bench.door.add_user(user(), None)
    seen.append(await bench.beside.version())
    await bench.door.deny_certificate("a1", "why")
    seen.append(await bench.beside.version())
    assert seen == sorted(set(seen))


async def test_no_secret_is_in_the_file_and_nobody_else_may_read_it(bench: Bench) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    await bench.door.enrol(ask(), issued())
    for path in bench.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert SECRET.partition(".")[2].encode() not in path.read_bytes()


async def test_many_that_open_a_new_file_at_once_all_can(tmp_path: Path) -> None:
    async def once() -> int:
        async with _open(tmp_path, HandClock()) as door:
            return await door.version()

    assert set(await asyncio.gather(*(once() for _ in range(8)))) == {0}
    with closing(sqlite3.connect(tmp_path / "identity.db")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_serial_counts_for_its_own_site_alone(bench: Bench) -> None:
    await bench.door.add_join_token(TOKEN, digest(SECRET))
    await bench.door.enrol(ask(), issued())
    await bench.door.revoke_site(E1, "stolen")
    await bench.door.add_site(E2, "")
    await bench.door.renewed(issued("other", "b2", "site/e2"))
    with closing(sqlite3.connect(bench.folder / "identity.db")) as db, db:
        db.execute("UPDATE sites SET revoked_ns = NULL")  # it joined anew
    assert await bench.door.principal_of_cert(URI, "b2") is None


@pytest.mark.parametrize("by_site", [True, False], ids=["its site", "its token"])
async def test_who_is_revoked_waits_for_nobody(bench: Bench, *, by_site: bool) -> None:
    await bench.door.add_site(E1, "north")
    await bench.door.add_join_token(replace(TOKEN, is_approval_needed=True), digest(SECRET))
    await (door := bench.door).admit(ask())
    await (door.revoke_site(E1, "stolen") if by_site else door.revoke_join_token(TOKEN.token_id))
    with closing(sqlite3.connect(bench.folder / "identity.db")) as db:
        assert not db.execute("SELECT * FROM requests").fetchall()
