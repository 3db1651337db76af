"""TOML -> frozen Config of one site; each driver validates its own block when it is opened."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from heatpool.codec import ROWS_LIMIT
from heatpool.process import settings
from heatpool.water import FLUIDS
from heatpool_agent.core.estimate import LoopPriors
from heatpool_agent.core.loop_sample import LoopModel
from heatpool_agent.core.obedience import HOLD_DEFAULT_S, HOLD_MOST_S
from heatpool_agent.ports import Roots

ENV_PREFIX = "HEATPOOL"
# Beside the code, as wheels install it; importlib.resources would cost 2 MB.
_DATA = Path(__file__).parent / "data"
# A tick a minute is the least that a loop can be watched with; below a millisecond no machine
# keeps the grid, and its clock counts whole ns.
PERIOD_LEAST_S, PERIOD_MOST_S = 0.001, 60.0
# Coolant below is no heat for anybody; above, an open loop boils.
HOT_LIMITS_C = (20.0, 95.0)
SECURE = "https"
_SCHEMES = (SECURE, "http", "grpc", "")

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
    hot_limit_c: float = 75.0
    has_leak_sensor: bool = True
    # Thermal mass and way of the water, where they are known; learnt otherwise.
    tau_s: Positive | None = None
    delay_s: NotNegative | None = None


class Aggregator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where to send; empty: where this site has joined, and nowhere until then."""

    url: str = ""


class Orders(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long the site keeps to itself, s, after its start and after a lease that ran out."""

    hold_s: Annotated[float, msgspec.Meta(ge=0, le=HOLD_MOST_S)] = HOLD_DEFAULT_S


class Spool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the queue on disk."""

    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000)] = 200_000_000
    keep_s: NotNegative = 86_400.0


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Local status page; an empty listen address serves none."""

    listen: str = "127.0.0.1:9188"
    announce: bool = True
    # Beyond loopback there is no TLS yet: say that you know, and nothing can be changed from there.
    insecure_lan: bool = False


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
    # Which server is measured; empty is the machine that the agent runs on.
    host: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
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
    orders: Orders = Orders()
    spool: Spool = Spool()
    http: Http = Http()
    roots: RootSettings = RootSettings()


def state_dir(config: Config, environ: Mapping[str, str]) -> Path:
    """Where this agent keeps its spool: settings, systemd's folder, else the user's own."""
    told = config.site.state_dir or environ.get("STATE_DIRECTORY", "")
    if told:
        return Path(told)
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "heatpool" / "agent"


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The settings of this agent, each key by itself; how they fit together says `mistakes`.

    Raises:
        ConfigError: with every mistake.
    """
    return settings.load(path, Config, environ=environ, prefix=ENV_PREFIX)


def load_what_holds(
    path: Path | None, environ: Mapping[str, str]
) -> tuple[Config | None, list[str]]:
    """The settings without what is wrong in them, to look on for mistakes; and those found."""
    return settings.load_what_holds(path, Config, environ=environ, prefix=ENV_PREFIX)


def mistakes(config: Config) -> list[str]:
    """What does not fit together, each with its key."""
    return [
        *_off_the_grid(config),
        *_unknown_fluids(config),
        *_hot_limits(config),
        *_open_doors(config),
    ]


def _off_the_grid(config: Config) -> Iterator[str]:
    sampling = config.sampling
    if not sampling.period_s <= PERIOD_MOST_S:
        yield f"sampling.period_s: is {sampling.period_s:g}, must be at most {PERIOD_MOST_S:g}"
    if sampling.period_s < PERIOD_LEAST_S:
        yield f"sampling.period_s: is {sampling.period_s:g}, must be at least {PERIOD_LEAST_S:g}"
    if sampling.message_period_s > sampling.report_period_s * ROWS_LIMIT:
        yield (
            f"sampling.message_period_s: is {sampling.message_period_s:g}, must be at most "
            f"{ROWS_LIMIT} times report_period_s, {sampling.report_period_s:g}"
        )
    for name, long_s, short_s in (
        ("report_period_s", sampling.report_period_s, sampling.period_s),
        ("message_period_s", sampling.message_period_s, sampling.report_period_s),
    ):
        times = long_s / short_s
        if not isfinite(times) or times < 1 or abs(times - round(times)) > 1e-9:
            yield f"sampling.{name}: is {long_s:g}, must be a whole multiple of {short_s:g}"


def _unknown_fluids(config: Config) -> Iterator[str]:
    for index, loop in enumerate(config.loop):
        if loop.fluid not in FLUIDS:
            yield f"loop[{index}].fluid: is {loop.fluid!r}; known: {', '.join(FLUIDS)}"


def _hot_limits(config: Config) -> Iterator[str]:
    least_c, most_c = HOT_LIMITS_C
    for index, loop in enumerate(config.loop):
        if not least_c <= loop.hot_limit_c <= most_c:
            yield (
                f"loop[{index}].hot_limit_c: is {loop.hot_limit_c:g}, "
                f"must be {least_c:g} to {most_c:g}"
            )


def _open_doors(config: Config) -> Iterator[str]:
    """Without TLS nothing leaves this machine unless the owner says so."""
    if config.http.listen and not is_loopback(config.http.listen) and not config.http.insecure_lan:
        yield (
            f"http.listen: is {config.http.listen!r}, beyond loopback and without TLS; "
            "set http.insecure_lan = true to allow reading from there"
        )
    if not config.aggregator.url:
        return
    if aggregator_address(config.aggregator.url) is None:
        yield (
            f"aggregator.url: is {config.aggregator.url!r}, must be https://HOST:PORT, or http:// "
            "on this machine"
        )
    elif not is_secure(config.aggregator.url) and not is_loopback(config.aggregator.url):
        yield (
            f"aggregator.url: is {config.aggregator.url!r}, beyond this machine and without TLS; "
            "say https://, or leave it empty: `heatpool-agent join` notes where to send"
        )


def aggregator_address(url: str) -> str | None:
    """The `host:port` behind an aggregator url; None if there is none or its scheme is unknown."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number, or half an IPv6 address
        return None
    if parts.scheme not in _SCHEMES or not host or not port:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_secure(url: str) -> bool:
    """Whether an aggregator url asks for TLS."""
    return url.lower().startswith(f"{SECURE}://")


def is_loopback(address: str) -> bool:
    """Whether `host:port` or a url names this machine alone."""
    if "@" in address and "//" not in address:  # no host bears a user's name, a url may
        return False
    try:
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:  # half an IPv6 address
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_announced(http: Http, address: str | None) -> bool:
    """Whether others on the network may find the page: only one that they can reach."""
    return http.announce and address is not None and not is_loopback(address)


def _priors() -> dict[str, Any]:
    return tomllib.loads((_DATA / "loop_priors.toml").read_text(encoding="utf-8"))


def loop_priors(cooling: str) -> tuple[LoopPriors, float]:
    """What is assumed of a loop with this cooling; and of a device's own figure, u as a share."""
    data = _priors()
    capture = data["capture"][cooling]
    priors = LoopPriors(
        capture_frac=capture["value"],
        capture_frac_u=capture["u"],
        lag_s=data["lag"]["value"],
        flow_u_frac=data["volume_flow"]["value"],
        flow_u_m3_h=data["volume_flow_floor"]["value"],
        delta_k_u=data["temperature_pair"]["value"],
        unknown_side_u_frac=data["unknown_side"]["value"],
    )
    return priors, data["reported"]["value"]


# What is told is known to a sixth of itself: from a drawing, or from one step of the load.
_TOLD_LN_U = 0.15
_TOLD_DELAY_U_S = 5.0
# Nothing is known better than to a thousandth.
_LEAST_U_FRAC = 1e-3


def loop_model(loop: Loop) -> LoopModel:
    """What the filter assumes of a loop until its own data say better."""
    data = _priors()
    capture, told = data["capture"][loop.cooling], data["filter"]
    model = replace(
        LoopModel(**{name: entry["value"] for name, entry in told.items()}),
        fluid=loop.fluid,
        sensor_side=loop.sensor_side,
        capture_frac=capture["value"],
        flow_u_m3_h=data["volume_flow_floor"]["value"],
        gain_u_frac=max(capture["u"] / capture["value"], _LEAST_U_FRAC),
        # The makers' shares are of what the coolant brings away: the loss is off already.
        loss_frac=0.0,
    )
    if not capture["u"]:
        # All of it leaves the IT by conservation: what is lost to the room has left it, too.
        model = replace(model, loss_frac_u=_LEAST_U_FRAC)
    if loop.tau_s is not None:
        model = replace(model, tau_s=loop.tau_s, tau_ln_u=_TOLD_LN_U)
    if loop.delay_s is not None:
        model = replace(model, delay_s=loop.delay_s, delay_s_u=_TOLD_DELAY_U_S)
    return model
