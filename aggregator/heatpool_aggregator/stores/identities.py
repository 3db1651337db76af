"""Sites, people, tokens and certificates in `identity.db`; hashes only, never a secret.

The service and every command open the file side by side: each verb is one transaction.
"""

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import (
    ApiToken,
    Issued,
    JoinAsk,
    JoinToken,
    NotThere,
    SiteRecord,
    UserRecord,
    Waiting,
)
from heatpool_aggregator.core.principal import SITE, Principal, Role, covers, name_of
from heatpool_aggregator.ports import Clock
from heatpool_aggregator.stores import identity_joins as joins
from heatpool_aggregator.stores import own_file
from heatpool_aggregator.stores.files import SqliteFile

VERSION = 1
FILE_NAME = "identity.db"
T = TypeVar("T")

_SITES = """
SELECT s.site_id, s.owner, s.enrolled_ns, s.revoked_ns, s.revoked_reason,
    coalesce((SELECT group_concat(serial, ' ') FROM (SELECT serial FROM certificates c
        WHERE c.name = 'site/' || s.site_id ORDER BY number)), ''),
    (SELECT expires_ns FROM certificates c WHERE c.name = 'site/' || s.site_id
        ORDER BY number DESC LIMIT 1)
FROM sites s
"""
_USERS = """
SELECT u.name, u.role, u.tenant, u.added_ns, u.revoked_ns,
    (SELECT expires_ns FROM certificates c WHERE c.name = u.name ORDER BY number DESC LIMIT 1)
FROM users u
"""
_OF_BEFORE = """
SELECT c.name FROM certificates c WHERE c.issued_ns < ? AND c.expires_ns > ?
    AND c.number = (SELECT max(number) FROM certificates WHERE name = c.name)
    AND c.serial NOT IN (SELECT serial FROM denied)
ORDER BY c.name
"""
# Nobody, where the serial is denied, or has to be one of ours and is not.
_HOLDER = """
FROM {table} WHERE {key} = :key AND revoked_ns IS NULL
    AND NOT EXISTS (SELECT 1 FROM denied WHERE serial = :serial)
    AND (known_only = 0 OR EXISTS (
        SELECT 1 FROM certificates WHERE serial = :serial AND name = :name))
"""
_SITE_HOLDER = "SELECT 'site', owner" + _HOLDER.format(table="sites", key="site_id")
_USER_HOLDER = "SELECT role, tenant" + _HOLDER.format(table="users", key="name")


class SqliteIdentities:
    """The file; `trust_domain` is whose URIs count."""

    def __init__(self, directory: Path, *, trust_domain: str, clock: Clock) -> None:
        self.file = SqliteFile(directory / FILE_NAME, version=VERSION, synchronous="FULL")
        self._trust_domain = trust_domain
        self._clock = clock

    async def principal_of_cert(self, uri: str, serial: str) -> Principal | None:
        """Whose certificate this is; None: unknown, revoked or denied."""
        name = name_of(self._trust_domain, uri)
        if name is None:
            return None
        kind, _, rest = name.partition("/")
        is_site = kind == SITE
        values: Any = {"key": rest if is_site else name, "serial": serial, "name": name}
        rows = await self.file.rows(_SITE_HOLDER if is_site else _USER_HOLDER, values)
        return Principal(name=name, role=Role(rows[0][0]), tenant=rows[0][1]) if rows else None

    async def principal_of_token(self, token: str) -> Principal | None:
        """Whose API token this is; None: unknown, expired or revoked."""
        return await self.principal_of_digest(hashlib.sha256(token.encode()).digest())

    async def principal_of_digest(self, token_sha256: bytes) -> Principal | None:
        """As `principal_of_token`, for who keeps only the token's hash."""
        # 256 random bits: finding a row by their hash tells nobody who is near to one.
        rows = await self.file.rows(
            "SELECT t.name, t.role, u.role, u.tenant FROM api_tokens t JOIN users u USING (name)"
            " WHERE t.token_sha256 = ? AND t.expires_ns > ? AND t.revoked_ns IS NULL"
            " AND u.revoked_ns IS NULL",
            (token_sha256, self._clock.now_ns()),
        )
        if not rows or not covers(Role(rows[0][2]), Role(rows[0][1])):
            return None
        name, role, _, tenant = rows[0]
        return Principal(name=name, role=Role(role), tenant=tenant)

    async def owner_of(self, site_id: SiteId) -> str:
        """The tenant that owns a site; empty: nobody, or the site is unknown."""
        rows = await self.file.rows("SELECT owner FROM sites WHERE site_id = ?", (site_id,))
        return rows[0][0] if rows else ""

    async def sites(self) -> Sequence[SiteRecord]:
        """Every site ever enrolled, by id; the revoked ones too."""
        return [_site(row) for row in await self.file.rows(_SITES + "ORDER BY s.site_id")]

    async def version(self) -> int:
        """Rises with every write, of other processes too."""
        return int((await self.file.rows("SELECT count FROM version"))[0][0])

    async def add_site(self, site_id: SiteId, owner: str) -> None:
        """Takes in a site whose certificates come from elsewhere; there already: a new owner."""
        now_ns = self._clock.now_ns()
        await self._write(
            lambda connection: connection.execute(
                "INSERT INTO sites (site_id, owner, enrolled_ns) VALUES (?, ?, ?)"
                " ON CONFLICT (site_id) DO UPDATE SET owner = excluded.owner",
                (site_id, owner, now_ns),
            )
        )

    async def revoke_site(self, site_id: SiteId, reason: str) -> SiteRecord:
        """Denies a site with all its certificates, join tokens and requests."""
        now_ns = self._clock.now_ns()

        def work(connection: sqlite3.Connection) -> SiteRecord:
            found = connection.execute(
                "UPDATE sites SET revoked_ns = coalesce(revoked_ns, ?), revoked_reason = ?,"
                " known_only = 1 WHERE site_id = ?",
                (now_ns, reason, site_id),
            )
            if not found.rowcount:
                raise NotThere(
                    f"site {site_id!r} is not enrolled: see `heatpool-aggregator site list`"
                )
            joins.deny_all(connection, f"{SITE}/{site_id}", reason, now_ns)
            connection.execute(
                "UPDATE join_tokens SET revoked_ns = ? WHERE site_id = ? AND revoked_ns IS NULL",
                (now_ns, site_id),
            )
            connection.execute("DELETE FROM requests WHERE site_id = ?", (site_id,))
            return _site(connection.execute(_SITES + "WHERE s.site_id = ?", (site_id,)).fetchone())

        return await self._write(work)

    async def add_join_token(self, token: JoinToken, token_sha256: bytes) -> None:
        """Keeps a new token's hash."""
        row = (
            token.token_id,
            token_sha256,
            token.site_id,
            token.owner,
            token.uses_count,
            token.uses_left,
            token.created_ns,
            token.expires_ns,
            token.is_approval_needed,
            token.revoked_ns,
        )
        sql = "INSERT INTO join_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        await self._write(lambda connection: connection.execute(sql, row))

    async def join_tokens(self) -> Sequence[JoinToken]:
        """Every join token, newest first."""
        rows = await self.file.rows(
            f"SELECT {joins.TOKEN_COLUMNS} FROM join_tokens ORDER BY created_ns DESC, token_id"
        )
        return [joins.token_of(row) for row in rows]

    async def revoke_join_token(self, token_id: str) -> JoinToken:
        """Nobody joins by it any more."""
        now_ns = self._clock.now_ns()

        def work(connection: sqlite3.Connection) -> JoinToken:
            row = connection.execute(
                "UPDATE join_tokens SET revoked_ns = coalesce(revoked_ns, ?) WHERE token_id = ?"
                f" RETURNING {joins.TOKEN_COLUMNS}",
                (now_ns, token_id),
            ).fetchone()
            if row is None:
                raise NotThere(f"token {token_id!r} is unknown: see `token list` for their ids")
            connection.execute("DELETE FROM requests WHERE token_id = ?", (token_id,))
            return joins.token_of(row)

        return await self._write(work)

    async def admit(self, ask: JoinAsk) -> Issued | Waiting | JoinToken:
        """What a newcomer is to get, nothing spent yet."""
        now_ns = self._clock.now_ns()
        return await self.file.transact(lambda connection: joins.admit(connection, ask, now_ns))

    async def enrol(self, ask: JoinAsk, issued: Issued) -> Issued:
        """Spends a use of the token and records the certificate, both or neither."""
        now_ns = self._clock.now_ns()
        return await self._write(lambda connection: joins.enrol(connection, ask, issued, now_ns))

    async def waiting(self) -> Sequence[Waiting]:
        """Newcomers not yet approved, oldest first."""
        now_ns = self._clock.now_ns()
        return await self.file.transact(lambda connection: joins.waiting(connection, now_ns))

    async def approve(self, site_id: SiteId, key_sha256_start: str) -> Waiting:
        """Lets a waiting newcomer in."""
        now_ns = self._clock.now_ns()
        return await self._write(
            lambda connection: joins.approve(connection, site_id, key_sha256_start, now_ns)
        )

    async def of_before(self, issued_ns: int) -> Sequence[str]:
        """Whose newest certificate is older than that, and has neither ended nor been denied."""
        rows = await self.file.rows(_OF_BEFORE, (issued_ns, self._clock.now_ns()))
        return [name for (name,) in rows]

    async def renewed(self, issued: Issued) -> None:
        """Records another certificate of somebody known."""
        kind, _, rest = issued.name.partition("/")
        table, key = ("sites", "site_id") if kind == SITE else ("users", "name")

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                f"SELECT 1 FROM {table} WHERE {key} = ? AND revoked_ns IS NULL",
                (rest if kind == SITE else issued.name,),
            ).fetchone()
            if row is None:
                raise NotThere(f"{issued.name} is unknown or revoked: it has to join anew")
            joins.check_pace(connection, issued)
            joins.record(connection, issued)

        await self._write(work)

    async def deny_certificate(self, serial: str, reason: str) -> None:
        """Puts one certificate on the denylist, ours or one from elsewhere."""
        row = (serial, self._clock.now_ns(), reason)
        sql = "INSERT OR IGNORE INTO denied VALUES (?, ?, ?)"
        await self._write(lambda connection: connection.execute(sql, row))

    async def add_user(self, user: UserRecord, issued: Issued | None) -> None:
        """Adds a person or machine, or changes role and tenant; a revoked one is back."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO users (name, role, tenant, added_ns) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET role = excluded.role, tenant = excluded.tenant,"
                " revoked_ns = NULL, revoked_reason = ''",
                (user.name, user.role, user.tenant, user.added_ns),
            )
            if issued is not None:
                joins.record(connection, issued)

        await self._write(work)

    async def users(self) -> Sequence[UserRecord]:
        """People and machines by name, the revoked ones too."""
        return [_user(row) for row in await self.file.rows(_USERS + "ORDER BY u.name")]

    async def revoke_user(self, name: str, reason: str) -> UserRecord:
        """Denies somebody with all certificates and API tokens."""
        now_ns = self._clock.now_ns()

        def work(connection: sqlite3.Connection) -> UserRecord:
            found = connection.execute(
                "UPDATE users SET revoked_ns = coalesce(revoked_ns, ?), revoked_reason = ?,"
                " known_only = 1 WHERE name = ?",
                (now_ns, reason, name),
            )
            if not found.rowcount:
                raise NotThere(f"{name!r} is nobody's name here: see `user list`")
            joins.deny_all(connection, name, reason, now_ns)
            connection.execute(
                "UPDATE api_tokens SET revoked_ns = ? WHERE name = ? AND revoked_ns IS NULL",
                (now_ns, name),
            )
            return _user(connection.execute(_USERS + "WHERE u.name = ?", (name,)).fetchone())

        return await self._write(work)

    async def add_api_token(self, token: ApiToken, token_sha256: bytes) -> None:
        """Keeps a new token's hash."""
        row = (
            token.token_id,
            token_sha256,
            token.name,
            token.role,
            token.created_ns,
            token.expires_ns,
            token.revoked_ns,
        )

        def work(connection: sqlite3.Connection) -> None:
            known = connection.execute("SELECT 1 FROM users WHERE name = ?", (token.name,))
            if known.fetchone() is None:
                raise NotThere(f"{token.name!r} is nobody's name here: see `user list`")
            connection.execute("INSERT INTO api_tokens VALUES (?, ?, ?, ?, ?, ?, ?)", row)

        await self._write(work)

    async def api_tokens(self) -> Sequence[ApiToken]:
        """Every API token, newest first."""
        rows = await self.file.rows(
            "SELECT token_id, name, role, created_ns, expires_ns, revoked_ns FROM api_tokens"
            " ORDER BY created_ns DESC, token_id"
        )
        return [
            ApiToken(
                token_id=token_id,
                name=name,
                role=Role(role),
                created_ns=created_ns,
                expires_ns=expires_ns,
                revoked_ns=revoked_ns,
            )
            for token_id, name, role, created_ns, expires_ns, revoked_ns in rows
        ]

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def counted(connection: sqlite3.Connection) -> T:
            result = work(connection)
            connection.execute("UPDATE version SET count = count + 1")
            return result

        return await self.file.transact(counted)


@asynccontextmanager
async def open_identities(
    directory: Path, *, trust_domain: str, clock: Clock
) -> AsyncIterator[SqliteIdentities]:
    """The identities in this folder.

    Raises:
        StoreError: the file cannot be used.
    """
    identities = SqliteIdentities(directory, trust_domain=trust_domain, clock=clock)
    try:
        await own_file.start(identities.file, lambda: _migrate(identities.file.path))
        yield identities
    finally:
        await identities.file.close()


def _migrate(path: Path) -> None:
    # sqlite-utils costs 0.1 s, which a file that is up to date need not pay.
    from heatpool_aggregator.stores import migrations  # noqa: PLC0415

    migrations.migrate(path, migrations.identity, version=VERSION)


def _site(row: tuple[Any, ...]) -> SiteRecord:
    site_id, owner, enrolled_ns, revoked_ns, reason, serials, expires_ns = row
    return SiteRecord(
        site_id=SiteId(site_id),
        owner=owner,
        enrolled_ns=enrolled_ns,
        revoked_ns=revoked_ns,
        revoked_reason=reason,
        serials=tuple(serials.split()),
        expires_ns=expires_ns,
    )


def _user(row: tuple[Any, ...]) -> UserRecord:
    name, role, tenant, added_ns, revoked_ns, expires_ns = row
    return UserRecord(
        name=name,
        role=Role(role),
        tenant=tenant,
        added_ns=added_ns,
        revoked_ns=revoked_ns,
        expires_ns=expires_ns,
    )
