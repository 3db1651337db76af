"""TOML -> frozen Config of one site; each driver validates its own block when it is opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from heatpool.process import settings
from heatpool_agent.ports import Roots

ENV_PREFIX = "HEATPOOL"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who this site is; `auto` makes an id once and keeps it in the state directory."""

    id: Name = "auto"
    state_dir: str = ""


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ticks lie on a grid from the epoch; a row is the mean of its ticks."""

    period_s: Positive = 1.0
    report_period_s: Positive = 10.0
    message_period_s: Positive = 60.0


class Loop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A closed coolant circuit with one hot and one cold pipe."""

    id: Name
    fluid: str = "water"
    cooling: Literal["dlc", "dlc_full", "immersion", "air_coil", "air"] = "dlc"
    sensor_side: Literal["hot", "cold", "unknown"] = "unknown"
    rejection_capacity_w: NotNegative | None = None
    max_heat_rate_w: NotNegative | None = None


class Aggregator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where to send; an empty url sends nowhere."""

    url: str = ""


class Spool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the queue on disk."""

    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000)] = 200_000_000
    keep_s: NotNegative = 86_400.0


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Local status page; an empty listen address serves none."""

    listen: str = "127.0.0.1:9188"
    announce: bool = True


class RootSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the machine's own files lie."""

    sys: str = "/sys"
    proc: str = "/proc"
    dev: str = "/dev"
    nvml: str = "auto"

    def roots(self) -> Roots:
        """The same as paths."""
        return Roots(sys=Path(self.sys), proc=Path(self.proc), dev=Path(self.dev), nvml=self.nvml)


class SensorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every `[[sensor]]` block has; a driver's Config adds its own keys to these."""

    id: Name
    kind: str
    period_s: Positive | None = None
    timeout_s: Positive = 5.0
    loop: str = ""
    role: Literal["", "billing"] = ""


class ActuatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every `[[actuator]]` block has; nothing is written unless armed."""

    id: Name
    kind: str
    loop: str = ""
    armed: bool = False


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One site's settings. No `[[sensor]]` at all means: find what the machine itself has."""

    site: Site = Site()
    sampling: Sampling = Sampling()
    loop: tuple[Loop, ...] = ()
    sensor: tuple[dict[str, Any], ...] = ()
    actuator: tuple[dict[str, Any], ...] = ()
    aggregator: Aggregator = Aggregator()
    spool: Spool = Spool()
    http: Http = Http()
    roots: RootSettings = RootSettings()


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The settings of this agent.

    Raises:
        ConfigError: with every mistake.
    """
    return settings.load(path, Config, environ=environ, prefix=ENV_PREFIX)
