"""What never gets into a recording: passwords, tokens, users, hosts, numbers of meters.

A placeholder stands in the manifest that the driver still accepts, and the same one wherever the
word itself would show in a request, an answer or an error, so that both still fit together.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from heatpool.errors import ConfigError

HIDDEN = "***"
# A shorter secret is found in every number; whoever has one is told instead of trusted.
_SECRET_LEAST = 4
_SECRET_FILE = re.compile(r"(password|token|secret|key)_file$")
_SECRET = re.compile(r"(password|token|secret|community|passphrase|kg)$")
_USER = re.compile(r"user(_?name)?$")
_URL = re.compile(r"^[a-z][a-z0-9+.-]*:")
# /proc/cpuinfo of small ARM boards shows the number of the board.
_BOARD_SERIAL = re.compile(r"^(Serial[ \t]*: *)\S+", re.MULTILINE)
_HOST_KEYS = ("host", "address", "broker", "server")


class Redaction:
    """Words of one site's settings and what stands in their place."""

    def __init__(self, blocks: Iterable[Mapping[str, Any]]) -> None:
        """Reads the secret files that the blocks name; blocking.

        Raises:
            ConfigError: a secret is too short to be found where it must not be.
        """
        self._words: dict[str, str] = {}
        self._users: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        secrets: set[str] = set()
        self.blocks = [self._hidden_block(dict(block), secrets) for block in blocks]
        self._secrets = _patterns(secrets)
        self._pattern = _word_pattern(self._words)

    def text(self, told: str) -> str:
        """A request, or the text of an error."""
        for user, name in self._users.items():
            told = told.replace(repr(user), repr(name))
        return self._pattern.sub(self._word, _without(told.encode(), self._secrets).decode())

    def answer(self, data: bytes) -> bytes:
        """An answer; one that is not text loses secrets alone, as its numbers are its driver's."""
        data = _without(data, self._secrets)
        try:
            told = data.decode()
        except UnicodeDecodeError:
            return data
        told = _BOARD_SERIAL.sub(rf"\g<1>{HIDDEN}", told)
        return self._pattern.sub(self._word, told).encode()

    def _word(self, found: re.Match[str]) -> str:
        return self._words[found[0].lower()]

    def _hidden_block(self, block: dict[str, Any], secrets: set[str]) -> dict[str, Any]:
        users = [str(value) for key, value in block.items() if _USER.search(key)]
        for key, value in block.items():
            if not isinstance(value, str) or not value or key in ("id", "kind", "loop"):
                continue
            if _SECRET_FILE.search(key):
                secrets |= set(_spellings(_secret_in(value, block), users))
            elif _SECRET.search(key):
                secrets |= set(_spellings(_checked(value, block, key), users))
            elif _URL.match(value) and (password := urlsplit(value).password):
                secrets |= set(_spellings(_checked(password, block, key), users))
            block[key] = self._placeholder(key, value)
        return block

    def _placeholder(self, key: str, value: str) -> str:
        if _SECRET.search(key):
            return HIDDEN
        if _USER.search(key):
            return self._users.setdefault(value, f"user-{len(self._users) + 1}")
        if key == "meter_id":
            return self._known(value, f"meter-{len(self._words) + 1}")
        if key == "secondary":
            return self._known(value, re.sub(r"[0-9]", "0", value[:8]) + value[8:])
        if key == "fingerprint":
            return self._known(value, "0" * 64)
        if key.endswith("_file") or key == "file":
            return self._known(value, f"/recorded/{key}-{len(self._words) + 1}")
        if _URL.match(value):
            return self._url(value)
        return self._host(value) if key in _HOST_KEYS else value

    def _url(self, url: str) -> str:
        """The url with another host and without a login; the place of a folder is nobody's."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            return f"file:{self._known(parts.path, f'/recorded/{len(self._words) + 1}')}"
        if not parts.netloc:
            return url
        host = parts.hostname or ""
        place = parts.netloc.rpartition("@")[2]
        stand_in = self._host(host)
        if f"[{host}]" in place.lower() and ":" not in stand_in:
            host = f"[{host}]"
        at = place.lower().find(host)
        return url.replace(parts.netloc, place[:at] + stand_in + place[at + len(host) :], 1)

    def _host(self, host: str) -> str:
        """Another host; this machine may keep its own loopback, which tells nothing."""
        if not host or _is_loopback(host):
            return host
        name = host.lower()
        if name not in self._hosts:
            # RFC 5737, for documentation: nobody's address.
            self._hosts[name] = f"192.0.2.{len(self._hosts) % 254 + 1}"
        return self._known(name, self._hosts[name])

    def _known(self, word: str, stand_in: str) -> str:
        return self._words.setdefault(word.lower(), stand_in)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secret_in(path: str, block: Mapping[str, Any]) -> str:
    try:
        told = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        # The driver says so itself; what cannot be read cannot leak.
        return ""
    return _checked(told, block, path) if told.strip() else ""


def _checked(secret: str, block: Mapping[str, Any], where: str) -> str:
    if len(secret.strip()) < _SECRET_LEAST:
        text = (
            f"sensor {block.get('id', '?')!r}: {where} holds fewer than {_SECRET_LEAST} letters, "
            "which no recording can hide; set a longer one first"
        )
        raise ConfigError([text])
    return secret


def _spellings(secret: str, users: Sequence[str]) -> Iterator[str]:
    """A secret as it may stand in a text: plain, in a url, in JSON, in a header."""
    for plain in {secret.strip(), secret.strip("\r\n")} - {""}:
        yield from (plain, quote(plain, safe=""), json.dumps(plain)[1:-1])
        yield b64encode(plain.encode()).decode()
        yield from (b64encode(f"{user}:{plain}".encode()).decode() for user in users)


def _patterns(secrets: Iterable[str]) -> re.Pattern[bytes] | None:
    # The longest first: a spelling may lie inside another.
    words = sorted(secrets, key=lambda word: (-len(word), word))
    return re.compile(b"|".join(re.escape(word.encode()) for word in words)) if words else None


def _without(data: bytes, secrets: re.Pattern[bytes] | None) -> bytes:
    return secrets.sub(HIDDEN.encode(), data) if secrets else data


def _word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    told = "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))
    # Without any word: a pattern that fits nowhere.
    return re.compile(rf"(?<![A-Za-z0-9])(?:{told or '(?!)'})(?![A-Za-z0-9])", re.IGNORECASE)
