"""Secrets that people carry from place to place: made here, shown once, kept as hashes."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH, _SECRET_LENGTH = 6, 16
JOIN_PATTERN = r"^[a-z0-9]{6}\.[a-z0-9]{16}\Z"
_API_START = "heatpool-"
_API_BYTES = 32
_API = re.compile(r"heatpool-[a-z0-9]{6}-[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A fresh secret; `text` is for the person's eyes only and in no repr."""

    token_id: str
    text: str = field(repr=False)

    @property
    def sha256(self) -> bytes:
        """What is kept of it."""
        return hashlib.sha256(self.text.encode()).digest()


def new_join_token() -> Secret:
    """A token `id.secret` with 82 random bits, which a person can still type."""
    token_id = _letters(_ID_LENGTH)
    return Secret(token_id=token_id, text=f"{token_id}.{_letters(_SECRET_LENGTH)}")


def new_api_token() -> Secret:
    """A token with 256 random bits; its start lets scanners of leaked secrets know it."""
    token_id = _letters(_ID_LENGTH)
    return Secret(token_id=token_id, text=f"{_API_START}{token_id}-{secrets.token_hex(_API_BYTES)}")


def is_api_token(text: str) -> bool:
    """Whether a text has the shape of an API token."""
    return _API.fullmatch(text) is not None


def _letters(count: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))
