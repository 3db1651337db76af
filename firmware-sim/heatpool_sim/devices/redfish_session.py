"""Who is logged in: a few slots, as on a BMC, and one account."""

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatpool_sim.devices.redfish_tree import ROOT

SERVICE = f"{ROOT}/SessionService"
SESSIONS = f"{SERVICE}/Sessions"
LIFE_S = 1800  # an unused session ends by itself, as SessionTimeout says


@dataclass(slots=True, kw_only=True)
class Session:
    """One slot in use."""

    id: str
    token: str
    user: str
    used_s: float


class Sessions:
    """Open sessions; without an account everybody may log in, and nobody has to."""

    def __init__(self, *, user: str, password: str, slots: int) -> None:
        self._user = user
        self._password = password
        self._slots = slots
        self._by_token: dict[str, Session] = {}
        self._last_id = 0

    @property
    def is_locked(self) -> bool:
        """Whether one must log in."""
        return bool(self._user)

    @property
    def open_count(self) -> int:
        """Slots in use."""
        return len(self._living())

    def is_account(self, user: str, password: str) -> bool:
        """Whether the account's name and password are these."""
        name_fits = hmac.compare_digest(user.encode(), self._user.encode())
        word_fits = hmac.compare_digest(password.encode(), self._password.encode())
        return not self._user or (name_fits and word_fits)

    def open(self, user: str) -> Session | None:
        """A new session; None when all slots are taken."""
        if self.open_count >= self._slots:
            return None
        self._last_id += 1
        token = secrets.token_hex(16)
        new = Session(id=str(self._last_id), token=token, user=user, used_s=time.monotonic())
        self._by_token[token] = new
        return new

    def close(self, session_id: str) -> bool:
        """Whether there was such a session to end."""
        tokens = [token for token, held in self._living().items() if held.id == session_id]
        for token in tokens:
            del self._by_token[token]
        return bool(tokens)

    def lose_all(self) -> None:
        """Forgets every session, as a BMC does that starts anew."""
        self._by_token.clear()

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers comes from somebody known."""
        token = headers.get("X-Auth-Token")
        if token is not None:
            session = self._living().get(token)
            if session is not None:
                session.used_s = time.monotonic()
            return session is not None
        if not self._user:
            return True
        return self.is_account(*_basic(headers.get("Authorization", "")))

    def resource(self, session_id: str) -> dict[str, Any] | None:
        """The resource of an open session."""
        for session in self._living().values():
            if session.id == session_id:
                return {
                    "@odata.id": f"{SESSIONS}/{session.id}",
                    "@odata.type": "#Session.v1_3_0.Session",
                    "Id": session.id,
                    "Name": f"Session {session.id}",
                    "UserName": session.user,
                    "SessionType": "Redfish",
                }
        return None

    def members(self) -> list[dict[str, str]]:
        """Links to the open sessions."""
        held = self._living().values()
        return [{"@odata.id": f"{SESSIONS}/{session.id}"} for session in held]

    def _living(self) -> dict[str, Session]:
        oldest_s = time.monotonic() - LIFE_S
        for token in [token for token, held in self._by_token.items() if held.used_s < oldest_s]:
            del self._by_token[token]
        return self._by_token


def service() -> dict[str, Any]:
    """The session service of a tree that has none."""
    return {
        "@odata.id": SERVICE,
        "@odata.type": "#SessionService.v1_1_9.SessionService",
        "Id": "SessionService",
        "Name": "Session Service",
        "ServiceEnabled": True,
        "SessionTimeout": LIFE_S,
        "Sessions": {"@odata.id": SESSIONS},
    }


def _basic(header: str) -> tuple[str, str]:
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(coded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password
