"""The settings of one BMC that is read by IPMI, and what in them does not fit together."""

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from heatpool_agent.config import Positive, SensorSettings

# BMCs measure once a second at best, and have slow processors.
PERIOD_LEAST_S = 10.0
PERIOD_S = 30.0
PORT = 623


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """This machine's own BMC, or one on the network by its `url`."""

    kind: Literal["ipmi"]
    url: str = ""
    user: str = ""
    password_file: str = ""
    # "auto": the kernel's device for this machine's own BMC, ipmitool over the network.
    via: Literal["auto", "device", "ipmitool"] = "auto"
    # Number of a cipher suite, 3 or 17; by default the best that the BMC names.
    cipher: Annotated[int, msgspec.Meta(ge=0, le=17)] | None = None
    privilege: Literal["user", "operator", "administrator"] = "user"
    # Reads the BMC's own list of sensors too, for its power supplies.
    sdr: bool = False
    ipmitool: str = "ipmitool"
    period_s: Annotated[float, msgspec.Meta(ge=PERIOD_LEAST_S)] | None = PERIOD_S
    timeout_s: Positive = 15.0

    @property
    def is_by_device(self) -> bool:
        """Whether power is asked through the kernel, without a fork."""
        return self.via == "device" or (self.via == "auto" and not self.url)

    @property
    def where(self) -> str:
        """One BMC, one spelling."""
        return self.url.rstrip("/").lower() or "ipmi"

    @property
    def address(self) -> tuple[str, int]:
        """Host and UDP port of the BMC's url."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or PORT

    @property
    def bmc(self) -> str:
        """Which BMC this is, with its port: alike for all sensors that ask the same."""
        host, port = self.address
        return f"{host}:{port}" if self.url else "ipmi"

    @property
    def login(self) -> tuple[str, ...]:
        """What the BMC judges: who comes, with which secret, and as what."""
        return (self.user, self.password_file, self.privilege)


def mistakes(config: Config) -> list[str]:
    """Everything that does not fit together, each with its key."""
    if not config.url:
        return list(_of_own(config))
    try:
        parts = urlsplit(config.url)
        _ = parts.port
    except ValueError as error:
        return [f"url: {config.url!r} cannot be read: {error}"]
    return [*_of_url(config, parts), *_of_login(config)]


def _of_own(config: Config) -> Iterator[str]:
    for key in ("user", "password_file", "cipher"):
        if getattr(config, key) not in ("", None):
            yield f"{key}: is set, and this machine's own BMC asks for none; set url, or drop it"
    if config.via == "device" and config.sdr:
        yield 'sdr: needs ipmitool, and via is "device"; set via = "auto"'


def _of_url(config: Config, parts: SplitResult) -> Iterator[str]:
    if parts.scheme != "ipmi" or not parts.hostname or parts.path not in ("", "/"):
        yield f"url: {config.url!r} must be ipmi://HOST[:PORT]"
    elif parts.query or parts.fragment:
        yield f"url: {config.url!r} must be ipmi://HOST[:PORT], with nothing after the port"
    elif parts.username or parts.password:
        yield "url: holds a login; set user and password_file instead"
    if config.via == "device":
        yield 'via: is "device", which is this machine\'s own BMC; drop url, or via'


def _of_login(config: Config) -> Iterator[str]:
    for key in ("user", "password_file"):
        if not getattr(config, key):
            yield f"{key}: is missing, and a BMC on the network lets nobody in without"
