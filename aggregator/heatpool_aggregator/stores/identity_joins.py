"""What happens to `identity.db` when somebody joins: all inside the caller's transaction."""

import hashlib
import hmac
import shlex
import sqlite3
from typing import Any

from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import (
    Issued,
    JoinAsk,
    JoinReason,
    JoinRefused,
    JoinToken,
    NotThere,
    Waiting,
)
from heatpool_aggregator.core.principal import SITE

# Who asked in time may wait for the approval beyond the end of the token, over a holiday.
_DAY_NS = 86_400 * 1_000_000_000
APPROVAL_WAIT_NS = 7 * _DAY_NS
WAITING_LIMIT = 8  # requests per token: a stolen one must not bury the true one
RENEWALS_LIMIT = 100  # in a day: one that fails is tried again hourly, at the end faster
_KEPT_NS = 90 * _DAY_NS  # beyond its end: nobody asks about it any more

TOKEN_COLUMNS = (
    "token_id, site_id, owner, uses_count, uses_left, created_ns, expires_ns, is_approval_needed,"
    " revoked_ns"
)
WAITING_COLUMNS = "site_id, token_id, key_sha256, peer, asked_ns, approved_ns"


def admit(
    connection: sqlite3.Connection, ask: JoinAsk, now_ns: int
) -> Issued | Waiting | JoinToken:
    """What a newcomer is to get; only a request for approval is written.

    Raises:
        JoinRefused: nothing.
    """
    token = _token(connection, ask)
    if token.revoked_ns is not None:
        raise JoinRefused(JoinReason.REVOKED, _of(token, "was revoked"))
    if (issued := _issued(connection, token, ask)) is not None:
        return issued
    if token.is_for_fleet:
        _check_new(connection, ask)
    request = _request(connection, token, ask)
    end_ns = token.expires_ns + (APPROVAL_WAIT_NS if request else 0)
    if now_ns >= end_ns:
        raise JoinRefused(JoinReason.EXPIRED, _of(token, "has expired"))
    if token.uses_left <= 0:
        said = f"was used {token.uses_count} of {token.uses_count} times"
        raise JoinRefused(JoinReason.USED, _of(token, said))
    if not token.is_approval_needed:
        return token
    if request is None:
        return _ask(connection, token, ask, now_ns)
    return token if request.approved_ns is not None else request


def enrol(connection: sqlite3.Connection, ask: JoinAsk, issued: Issued, now_ns: int) -> Issued:
    """Spends a use and records certificate and site; an answer given before is given again.

    Raises:
        JoinRefused: `admit` would refuse now.
    """
    token = admit(connection, ask, now_ns)
    if isinstance(token, Issued):
        return token
    if isinstance(token, Waiting):
        raise JoinRefused(JoinReason.REVOKED, "the approval of this request was taken back")
    connection.execute(
        "UPDATE join_tokens SET uses_left = uses_left - 1 WHERE token_id = ?", (token.token_id,)
    )
    _take_in(connection, token, ask.site_id, now_ns)
    record(connection, issued, token_id=token.token_id)
    connection.execute(
        "DELETE FROM requests WHERE token_id = ? AND key_sha256 = ?",
        (token.token_id, ask.key_sha256),
    )
    return issued


def waiting(connection: sqlite3.Connection, now_ns: int) -> list[Waiting]:
    """Who waits, oldest first; those for whom it is too late are taken off the list."""
    connection.execute(
        "DELETE FROM requests WHERE token_id IN"
        " (SELECT token_id FROM join_tokens WHERE expires_ns <= ?)",
        (now_ns - APPROVAL_WAIT_NS,),
    )
    rows = connection.execute(
        f"SELECT {WAITING_COLUMNS} FROM requests WHERE approved_ns IS NULL ORDER BY asked_ns"
    )
    return [waiting_of(row) for row in rows]


def approve(connection: sqlite3.Connection, site_id: SiteId, start: str, now_ns: int) -> Waiting:
    """Lets one waiting newcomer in.

    Raises:
        NotThere: none waits, or more than one fits.
    """
    rows = connection.execute(
        f"SELECT {WAITING_COLUMNS} FROM requests WHERE site_id = ? AND approved_ns IS NULL"
        " AND substr(lower(hex(key_sha256)), 1, ?) = ?",
        (site_id, len(start), start.lower()),
    ).fetchall()
    if not rows:
        raise NotThere(
            f"site {site_id!r}: nobody waits{f' with a key {start}…' if start else ''}: "
            "see `heatpool-aggregator site waiting`"
        )
    if len(rows) > 1:
        keys = ", ".join(row[2].hex()[:16] for row in rows)
        raise NotThere(
            f"site {site_id!r}: {len(rows)} keys wait ({keys}): compare with what the agent at the "
            "site prints, and say --key with the first digits of the right one"
        )
    found = waiting_of(rows[0])
    connection.execute(
        "UPDATE requests SET approved_ns = ? WHERE token_id = ? AND key_sha256 = ?",
        (now_ns, found.token_id, found.key_sha256),
    )
    return found


def check_pace(connection: sqlite3.Connection, issued: Issued) -> None:
    """Lets a renewal through; a site that runs wild shall not fill the disk with certificates.

    Raises:
        JoinRefused: there were too many within a day.
    """
    (count,) = connection.execute(
        "SELECT count(*) FROM certificates WHERE name = ? AND issued_ns > ?",
        (issued.name, issued.issued_ns - _DAY_NS),
    ).fetchone()
    if count >= RENEWALS_LIMIT:
        raise JoinRefused(
            JoinReason.TOO_OFTEN,
            f"{issued.name} had {count} certificates within a day: look at what renews there",
        )


def record(connection: sqlite3.Connection, issued: Issued, *, token_id: str | None = None) -> None:
    """Keeps a certificate that was signed, and forgets those that ran out long ago."""
    connection.execute(
        "DELETE FROM certificates WHERE name = ? AND expires_ns < ?",
        (issued.name, issued.issued_ns - _KEPT_NS),
    )
    connection.execute(
        "INSERT INTO certificates (serial, name, key_sha256, token_id, issued_ns, expires_ns,"
        " chain_pem) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            issued.serial,
            issued.name,
            issued.key_sha256,
            token_id,
            issued.issued_ns,
            issued.expires_ns,
            # Handed out again only to who asks again with the same token.
            issued.chain_pem if token_id else "",
        ),
    )


def deny_all(connection: sqlite3.Connection, name: str, reason: str, now_ns: int) -> None:
    """Puts every certificate of a name on the denylist; run out ones too, clocks go back."""
    connection.execute(
        "INSERT OR IGNORE INTO denied SELECT serial, ?, ? FROM certificates WHERE name = ?",
        (now_ns, reason, name),
    )


def token_of(row: tuple[Any, ...]) -> JoinToken:
    """A row of TOKEN_COLUMNS."""
    token_id, site_id, owner, count, left, created_ns, expires_ns, approval, revoked_ns = row
    return JoinToken(
        token_id=token_id,
        site_id=SiteId(site_id),
        owner=owner,
        uses_count=count,
        uses_left=left,
        created_ns=created_ns,
        expires_ns=expires_ns,
        is_approval_needed=bool(approval),
        revoked_ns=revoked_ns,
    )


def waiting_of(row: tuple[Any, ...]) -> Waiting:
    """A row of WAITING_COLUMNS."""
    site_id, token_id, key_sha256, peer, asked_ns, approved_ns = row
    return Waiting(
        site_id=SiteId(site_id),
        token_id=token_id,
        key_sha256=key_sha256,
        peer=peer,
        asked_ns=asked_ns,
        approved_ns=approved_ns,
    )


def _token(connection: sqlite3.Connection, ask: JoinAsk) -> JoinToken:
    given = hashlib.sha256(ask.token.encode()).digest()
    row = connection.execute(
        f"SELECT {TOKEN_COLUMNS}, token_sha256 FROM join_tokens WHERE token_id = ?",
        (ask.token.partition(".")[0],),
    ).fetchone()
    # An unknown id takes the same path as a wrong secret, and gets the same words.
    kept = bytes(32) if row is None else row[-1]
    if not hmac.compare_digest(kept, given) or row is None:
        raise JoinRefused(
            JoinReason.UNKNOWN_TOKEN,
            "this token is unknown here: copy it whole, or have a new one made by "
            "`heatpool-aggregator token new`",
        )
    token = token_of(row[:-1])
    if not token.is_for(ask.site_id):
        raise JoinRefused(
            JoinReason.WRONG_SITE,
            f"the site is {ask.site_id!r}, this token is for another: say its name by site.id or "
            "--site-id, or have a token made for this one",
        )
    return token


def _of(token: JoinToken, what: str) -> str:
    return (
        f"token {token.token_id} for site {token.site_id!r} {what}: have a new one made by "
        f"`heatpool-aggregator token new --site-id {shlex.quote(token.site_id)}`"
    )


def _check_new(connection: sqlite3.Connection, ask: JoinAsk) -> None:
    """Whoever steals a fleet's token must not put itself in the place of one that is there."""
    known = connection.execute("SELECT 1 FROM sites WHERE site_id = ?", (ask.site_id,))
    if known.fetchone() is not None:
        raise JoinRefused(
            JoinReason.ENROLLED,
            f"site {ask.site_id!r} was enrolled before, and this token of a fleet is for new "
            "sites: have one made for it alone by `heatpool-aggregator token new --site-id "
            f"{ask.site_id}`",
        )


def _check_key(ask: JoinAsk, site_id: str) -> None:
    if site_id != ask.site_id:
        raise JoinRefused(
            JoinReason.BAD_REQUEST, f"the key is that of site {site_id!r}: each makes its own"
        )


def _issued(connection: sqlite3.Connection, token: JoinToken, ask: JoinAsk) -> Issued | None:
    row = connection.execute(
        "SELECT serial, name, key_sha256, issued_ns, expires_ns, chain_pem,"
        " serial IN (SELECT serial FROM denied) FROM certificates"
        " WHERE token_id = ? AND key_sha256 = ?",
        (token.token_id, ask.key_sha256),
    ).fetchone()
    if row is None:
        return None
    if row[-1]:
        raise JoinRefused(
            JoinReason.REVOKED, _of(token, "gave this key a certificate that was revoked")
        )
    serial, name, key_sha256, issued_ns, expires_ns, chain_pem, _ = row
    _check_key(ask, name.removeprefix(f"{SITE}/"))
    return Issued(
        serial=serial,
        name=name,
        key_sha256=key_sha256,
        issued_ns=issued_ns,
        expires_ns=expires_ns,
        chain_pem=chain_pem,
    )


def _request(connection: sqlite3.Connection, token: JoinToken, ask: JoinAsk) -> Waiting | None:
    row = connection.execute(
        f"SELECT {WAITING_COLUMNS} FROM requests WHERE token_id = ? AND key_sha256 = ?",
        (token.token_id, ask.key_sha256),
    ).fetchone()
    if row is None:
        return None
    found = waiting_of(row)
    _check_key(ask, found.site_id)
    return found


def _ask(connection: sqlite3.Connection, token: JoinToken, ask: JoinAsk, now_ns: int) -> Waiting:
    (count,) = connection.execute(
        "SELECT count(*) FROM requests WHERE token_id = ?", (token.token_id,)
    ).fetchone()
    if count >= WAITING_LIMIT + (token.uses_left if token.is_for_fleet else 0):
        raise JoinRefused(
            JoinReason.TOO_MANY_WAITING,
            f"{count} others wait for approval with this token: have them looked at, or a new "
            "token made",
        )
    connection.execute(
        "INSERT INTO requests (token_id, key_sha256, site_id, peer, asked_ns)"
        " VALUES (?, ?, ?, ?, ?)",
        (token.token_id, ask.key_sha256, ask.site_id, ask.peer, now_ns),
    )
    return Waiting(
        site_id=ask.site_id,
        token_id=token.token_id,
        key_sha256=ask.key_sha256,
        peer=ask.peer,
        asked_ns=now_ns,
        is_new=True,
    )


def _take_in(
    connection: sqlite3.Connection, token: JoinToken, site_id: SiteId, now_ns: int
) -> None:
    """The site is enrolled; one that was here before has none but its new certificate."""
    deny_all(connection, f"{SITE}/{site_id}", "joined anew", now_ns)
    connection.execute(
        "INSERT INTO sites (site_id, owner, enrolled_ns) VALUES (?, ?, ?)"
        " ON CONFLICT (site_id) DO UPDATE SET enrolled_ns = excluded.enrolled_ns,"
        " owner = iif(excluded.owner = '', owner, excluded.owner),"
        " revoked_ns = NULL, revoked_reason = '', known_only = 1",
        (site_id, token.owner, now_ns),
    )
