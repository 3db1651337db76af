"""Browsers that logged in: a random cookie stands for an API token, of which a hash is kept."""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass

LIFE_S = 12 * 3600  # a shift
SESSIONS_LIMIT = 1_000
_SECRET_BYTES = 32
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Session:
    token_sha256: bytes
    until_ns: int


class Sessions:
    """Sessions of this process; whoever restarts it logs everybody out."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, _Session] = OrderedDict()

    def begin(self, token_sha256: bytes, boot_ns: int) -> str:
        """The cookie of a new session."""
        cookie = secrets.token_urlsafe(_SECRET_BYTES)
        self._open[_key(cookie)] = _Session(token_sha256, boot_ns + LIFE_S * _NS_PER_S)
        if len(self._open) > SESSIONS_LIMIT:
            self._open.popitem(last=False)
        return cookie

    def token_of(self, cookie: str, boot_ns: int) -> bytes | None:
        """The hash of the token behind a cookie; None: there is no such session any more."""
        session = self._open.get(_key(cookie))
        if session is None or boot_ns >= session.until_ns:
            self.end(cookie)
            return None
        return session.token_sha256

    def end(self, cookie: str) -> None:
        """Ends a session; one that is not there is over already."""
        self._open.pop(_key(cookie), None)


def _key(cookie: str) -> bytes:
    # Found by its hash, so that the time to find it tells nothing about cookies that are near.
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
