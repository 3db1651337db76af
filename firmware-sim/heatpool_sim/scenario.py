"""Fleet TOML -> sites ready to run; every mistake in the file is listed."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from heatpool.errors import ConfigError
from heatpool.process import settings
from heatpool_sim.plant import faults, sizing
from heatpool_sim.plant.control import Mode
from heatpool_sim.plant.faults import Fault, Pipe
from heatpool_sim.plant.feed import GPU_SHARE
from heatpool_sim.plant.load import Daily, Load, Trace
from heatpool_sim.plant.loop_gauges import GaugeErrors
from heatpool_sim.plant.meter import Meter
from heatpool_sim.plant.site import Plant

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Temperature = Annotated[float, msgspec.Meta(ge=5, le=95)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Kind = Literal["greenhouse", "swimming_pool", "district_loop", "snow_melt", "hot_water", "process"]
DeviceName = Literal[
    "modbus_cdu", "mbus_meter", "redfish_cdu", "redfish_bmc", "ipmi_bmc", "mqtt_cdu", "machine"
]
USUAL: tuple[DeviceName, ...] = ("modbus_cdu", "mbus_meter")
MODES = {"local": Mode.LOCAL, "network": Mode.NETWORK}


class VirtualSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who takes the heat of some sites, at what temperatures of the network, at what price."""

    id: Name
    kind: Kind
    hot_c: Temperature
    cold_c: Temperature
    price_eur_mwh: Decimal


class DailyLoad(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="kind",
    tag="daily",
):
    """A day's wave with jobs and noise, in shares of `it_w`."""

    base_frac: Share = 0.6
    day_frac: Share = 0.12
    job_frac: Share = 0.2
    noise_frac: Share = 0.03
    idle_frac: Share = 0.25


class TraceLoad(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="kind",
    tag="trace",
):
    """A CSV file with a header: seconds or ISO times in one column, watts in another."""

    file: str
    time: str
    watts: str
    scale: Positive = 1.0


class MeterPlate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The heat meter; number and register are drawn where they are left out."""

    manufacturer: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}$")] = "HPS"
    number: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{8}$")] | None = None
    version: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    address: Annotated[int, msgspec.Meta(ge=1, le=250)] = 1
    register_wh: Annotated[int, msgspec.Meta(ge=0, lt=10**8)] | None = None


class MachinePlate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The server as its own kernel sees it: two packages with memory, and four GPUs.

    What they draw are shares of `it_w`: 13 % each package, 15 % each GPU, 8 % the memory.
    """

    cpu_name: str = "Simulated CPU @ 2.00GHz"
    cpu_most_w: Positive = 350.0
    gpu_name: str = "Simulated GPU"
    gpu_idle_w: Positive = 20.0
    gpu_most_w: Positive = 400.0


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One site's nameplate; `mode` is what the local operator has set at the coolant unit."""

    id: Name
    virtual_source: Name
    it_w: Annotated[float, msgspec.Meta(ge=100, le=10_000_000)]
    cooling: Literal["dlc", "immersion"] = "dlc"
    mode: Literal["local", "network"] = "network"
    load: DailyLoad | TraceLoad = DailyLoad()
    meter: MeterPlate = MeterPlate()
    devices: tuple[DeviceName, ...] = USUAL
    models: tuple[str, ...] = ()  # of the Modbus shelf, each one more device
    machine: MachinePlate = MachinePlate()


class FaultLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes wrong, where, when after the start, for how long, and how much.

    `size` and `pipe` are for those faults of the plant that have them.
    """

    id: str
    site: Name
    at_s: NotNegative
    length_s: NotNegative = 0.0
    size: float | None = None
    pipe: Pipe = "hot"


class FleetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fleet as it stands in the file."""

    name: Name
    seed: int
    step_s: Annotated[float, msgspec.Meta(ge=0.05, le=1)] = 0.25
    virtual_source: tuple[VirtualSource, ...]
    site: tuple[Site, ...]
    fault: tuple[FaultLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSpec:
    """A site ready to run."""

    site_id: str
    virtual_source_id: str
    cooling: str
    mode: Mode
    plant: Plant
    errors: GaugeErrors
    meter: Meter
    meter_address: int
    register_wh: int
    register_l: int
    faults: tuple[Fault, ...]
    devices: tuple[DeviceName, ...] = USUAL
    models: tuple[str, ...] = ()
    machine: MachinePlate = field(default_factory=MachinePlate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet ready to run."""

    name: str
    step_s: float
    virtual_sources: tuple[VirtualSource, ...]
    sites: tuple[SiteSpec, ...]


def load(fleet: str, *, seed: int | None = None) -> Scenario:
    """The fleet in a file, or the one that comes with the simulator under this name.

    `seed` draws other sites from the same nameplates.

    Raises:
        ConfigError: with every mistake.
    """
    path = Path(fleet)
    # What lies here under that name hides none of ours: `./demo` is the file, `demo` the fleet.
    if fleet in _shipped() or not (path.suffix or path.exists()):
        return _named(fleet, seed=seed)
    return parse(path, seed=seed)


def parse(path: Path, *, seed: int | None = None) -> Scenario:
    """The fleet in a file; `seed` takes the place of its own.

    Raises:
        ConfigError: with every mistake.
    """
    fleet = settings.convert(settings.read_toml(path), FleetFile, file=str(path))
    if seed is not None:
        fleet = msgspec.structs.replace(fleet, seed=seed)
    mistakes = [mistake for check in _CHECKS for mistake in check(fleet)]
    loads = {site.id: _load(fleet, site, path.parent, mistakes) for site in fleet.site}
    if mistakes:
        raise ConfigError(mistakes, file=str(path))
    sources = {source.id: source for source in fleet.virtual_source}
    return Scenario(
        name=fleet.name,
        step_s=fleet.step_s,
        virtual_sources=fleet.virtual_source,
        sites=tuple(
            _spec(fleet, site, loads[site.id], sources[site.virtual_source]) for site in fleet.site
        ),
    )


def _shipped() -> dict[str, Path]:
    shelf = files("heatpool_sim") / "fleets"
    return {item.name.removesuffix(".toml"): Path(str(item)) for item in shelf.iterdir()}


def _named(name: str, *, seed: int | None) -> Scenario:
    shipped = _shipped()
    if name not in shipped:
        known = ", ".join(sorted(shipped))
        raise ConfigError([f"fleet {name!r} is neither a file nor one of ours: {known}"])
    return parse(shipped[name], seed=seed)


def _spec(fleet: FleetFile, site: Site, load: Load, source: VirtualSource) -> SiteSpec:
    seed, plate = _seed(fleet, site), site.meter
    return SiteSpec(
        site_id=site.id,
        virtual_source_id=source.id,
        cooling=site.cooling,
        mode=MODES[site.mode],
        plant=sizing.plant(
            site.id,
            seed=seed,
            load=load,
            it_w=site.it_w,
            cooling=site.cooling,
            hot_c=source.hot_c,
            cold_c=source.cold_c,
        ),
        errors=sizing.gauge_errors(seed),
        meter=sizing.meter(
            seed,
            manufacturer=plate.manufacturer,
            number=None if plate.number is None else int(plate.number),
            version=plate.version,
        ),
        meter_address=plate.address,
        register_wh=sizing.register_wh(seed) if plate.register_wh is None else plate.register_wh,
        register_l=sizing.register_l(seed),
        faults=tuple(_fault(line) for line in fleet.fault if line.site == site.id),
        devices=site.devices,
        models=site.models,
        machine=site.machine,
    )


def _fault(line: FaultLine) -> Fault:
    return Fault(
        id=line.id,
        site_id=line.site,
        at_s=line.at_s,
        length_s=line.length_s,
        size=line.size,
        pipe=line.pipe,
    )


def _load(fleet: FleetFile, site: Site, folder: Path, mistakes: list[str]) -> Load:
    if isinstance(site.load, TraceLoad):
        try:
            return _trace(site.load, folder)
        except (OSError, KeyError, ValueError) as error:
            mistakes.append(f"site {site.id!r}: load.file {site.load.file!r}: {error}")
    shape = site.load if isinstance(site.load, DailyLoad) else DailyLoad()
    return Daily(
        nominal_w=site.it_w,
        seed=f"{_seed(fleet, site)}/load",
        **{field: getattr(shape, field) for field in shape.__struct_fields__},
    )


def _trace(load: TraceLoad, folder: Path) -> Trace:
    with (folder / load.file).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return Trace(
        times_s=tuple(_second(row[load.time]) for row in rows),
        it_ws=tuple(float(row[load.watts]) * load.scale for row in rows),
    )


def _second(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _seed(fleet: FleetFile, site: Site) -> str:
    return f"{fleet.seed}/{site.id}"


def _doubles(fleet: FleetFile) -> Iterator[str]:
    for kind, ids in (
        ("virtual_source", [source.id for source in fleet.virtual_source]),
        ("site", [site.id for site in fleet.site]),
        ("meter.number", [site.meter.number for site in fleet.site if site.meter.number]),
    ):
        yield from (f"{kind}: {name!r} is there twice" for name in set(ids) if ids.count(name) > 1)


def _strangers(fleet: FleetFile) -> Iterator[str]:
    sources = {source.id for source in fleet.virtual_source}
    sites = {site.id for site in fleet.site}
    for site in fleet.site:
        if site.virtual_source not in sources:
            yield f"site {site.id!r}: virtual_source {site.virtual_source!r} is not in this file"
    for line in fleet.fault:
        if line.site not in sites:
            yield f"fault {line.id!r}: site {line.site!r} is not in this file"


def _twice_named(fleet: FleetFile) -> Iterator[str]:
    for site in fleet.site:
        named = (*site.devices, *site.models)
        twice = {name for name in named if named.count(name) > 1}
        yield from (f"site {site.id!r}: device {name!r} is there twice" for name in sorted(twice))


def _unknown_models(fleet: FleetFile) -> Iterator[str]:
    shelf = files("heatpool_sim") / "devices" / "modbus_models"
    known = sorted(item.name.removesuffix(".toml") for item in shelf.iterdir())
    for site in fleet.site:
        for name in site.models:
            if name not in known:
                yield f"site {site.id!r}: model {name!r} is unknown; known: {', '.join(known)}"


def _small_machines(fleet: FleetFile) -> Iterator[str]:
    """A card that cannot draw what the plant gives it would lose energy."""
    for site in fleet.site:
        need_w = round(1.2 * GPU_SHARE * site.it_w)
        most_w = site.machine.gpu_most_w
        if "machine" in site.devices and most_w < need_w:
            yield (
                f"site {site.id!r}: machine.gpu_most_w {most_w:g} is below {need_w}, "
                f"a GPU's share of it_w {site.it_w:g} with its wander"
            )


def _bad_faults(fleet: FleetFile) -> Iterator[str]:
    for line in fleet.fault:
        yield from faults.mistakes(_fault(line))


def _narrow_sources(fleet: FleetFile) -> Iterator[str]:
    for source in fleet.virtual_source:
        if source.hot_c - source.cold_c < 4.0:  # no exchanger and no meter works on less
            apart = f"hot_c {source.hot_c} and cold_c {source.cold_c}"
            yield f"virtual_source {source.id!r}: {apart} are less than 4 K apart"


_CHECKS: tuple[Callable[[FleetFile], Iterator[str]], ...] = (
    _doubles,
    _strangers,
    _twice_named,
    _unknown_models,
    _small_machines,
    _bad_faults,
    _narrow_sources,
)
