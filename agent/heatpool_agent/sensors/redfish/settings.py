"""The settings of one Redfish sensor, and what in them does not fit together."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from heatpool_agent.config import Positive, SensorSettings

# BMCs have slow processors and a few slots for their own work; sensors in them move in seconds.
PERIOD_LEAST_S = 10.0
_SHA256_HEX = re.compile(r"[0-9A-Fa-f]{64}")


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One BMC or cooling unit, or a folder of its documents."""

    kind: Literal["redfish"]
    url: str
    user: str = ""
    password_file: str = ""
    auth: Literal["session", "basic", "none"] = "session"
    fingerprint: str = ""
    ca_file: str = ""
    primary_loop: str = ""
    period_s: Annotated[float, msgspec.Meta(ge=PERIOD_LEAST_S)] | None = 30.0
    timeout_s: Positive = 60.0

    @property
    def has_login(self) -> bool:
        """Whether the service is asked as somebody."""
        return self.auth != "none" and self.user != ""

    @property
    def pin(self) -> bytes:
        """SHA-256 of the certificate; empty where none is pinned."""
        return bytes.fromhex(self.fingerprint.replace(":", ""))

    @property
    def base(self) -> str:
        """The url without a slash at its end, in small letters: one BMC, one spelling."""
        return self.url.rstrip("/").lower()


def mistakes(config: Config) -> list[str]:
    """Everything that does not fit together, each with its key."""
    try:
        parts = urlsplit(config.url)
        _ = parts.port
    except ValueError as error:
        return [f"url: {config.url!r} cannot be read: {error}"]
    if parts.scheme == "file":
        return list(_of_folder(config, parts))
    return [*_of_url(config, parts), *_of_login(config), *_of_trust(config, parts)]


def _of_folder(config: Config, parts: SplitResult) -> Iterator[str]:
    if parts.netloc not in ("", "localhost") or not parts.path:
        yield f"url: {config.url!r} names no folder; write file:/FOLDER"
    for key in ("user", "password_file", "fingerprint", "ca_file"):
        if getattr(config, key):
            yield f"{key}: is set, and a folder of files has no use for it"


def _of_url(config: Config, parts: SplitResult) -> Iterator[str]:
    known = "https://HOST[:PORT], http:// on this machine, or file:/FOLDER"
    if parts.scheme not in ("http", "https"):
        yield f"url: {config.url!r} must begin with {known}"
    elif not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        yield f"url: {config.url!r} must be {known}, with nothing after the port"
    elif parts.username or parts.password:
        yield "url: holds a login; set user and password_file instead"
    elif parts.scheme == "http" and not _is_loopback(parts.hostname):
        yield f"url: {config.url!r} would send the login in clear; use https://"


def _of_login(config: Config) -> Iterator[str]:
    if config.auth == "none" and (config.user or config.password_file):
        yield 'auth: is "none", and user or password_file is set'
    elif config.user and not config.password_file:
        yield "password_file: is missing, and user is set"
    elif config.password_file and not config.user:
        yield "user: is missing, and password_file is set"
    elif config.auth == "basic" and not config.user:
        yield 'user: is missing, and auth is "basic"'


def _of_trust(config: Config, parts: SplitResult) -> Iterator[str]:
    if config.fingerprint and not _SHA256_HEX.fullmatch(config.fingerprint.replace(":", "")):
        yield "fingerprint: must be 64 hexadecimal digits, the SHA-256 of the certificate"
    if config.fingerprint and config.ca_file:
        yield "ca_file: has no effect beside fingerprint; keep one of them"
    if (config.fingerprint or config.ca_file) and parts.scheme == "http":
        yield "url: has no certificate to check; use https:// or drop fingerprint and ca_file"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
