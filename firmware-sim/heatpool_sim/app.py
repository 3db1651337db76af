"""Composition root: how a fleet starts and stops, and what the demo is made of."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from heatpool.errors import ConfigError
from heatpool_sim import loops, premises
from heatpool_sim.demo import one_site, settings, story
from heatpool_sim.demo.story import Cast
from heatpool_sim.demo.summary import Findings
from heatpool_sim.devices import memory
from heatpool_sim.devices.memory import SavedFleet
from heatpool_sim.plant.meter import MODULUS, Meter
from heatpool_sim.ports import LOOPBACK
from heatpool_sim.premises import SiteDoor as SiteDoor
from heatpool_sim.programs import page
from heatpool_sim.programs.child import Child, Order
from heatpool_sim.programs.page import Pages
from heatpool_sim.programs.place import Place
from heatpool_sim.scenario import Scenario

_SAVE_S = 3.0  # what a killed simulator forgets at most; its registers begin behind that


class Fleet:
    """A served fleet, and the door through which a story changes it while it runs."""

    def __init__(self, scenario: Scenario, doors: Mapping[str, SiteDoor]) -> None:
        self.scenario = scenario
        self.doors = doors

    def register_wh(self, site_id: str) -> int:
        """What a site's meter shows now, Wh."""
        return self.doors[site_id].running.state.metered.register_wh

    def meter(self, site_id: str) -> Meter:
        """The meter that hangs at a site now."""
        return self.doors[site_id].running.state.meter

    def inject(
        self,
        site_id: str,
        fault: str,
        *,
        length_s: float = float("inf"),
        size: float | None = None,
    ) -> None:
        """Makes a fault last from now, or an event happen now."""
        self.doors[site_id].running.inject(fault, length_s=length_s, size=size)

    def clear(self, site_id: str, fault: str) -> None:
        """Ends a fault that was injected."""
        self.doors[site_id].running.clear(fault)

    def exchange_meter(
        self, site_id: str, *, number: int | None = None, register_wh: int = 0
    ) -> Meter:
        """The new meter at a site: another number, a register of its own."""
        return self.doors[site_id].running.exchange_meter(number=number, register_wh=register_wh)

    def approach_rollover(self, site_id: str, *, left_wh: int) -> None:
        """Sets a site's register `left_wh` before its end."""
        self.doors[site_id].running.set_register(MODULUS - left_wh)

    def addresses(self) -> list[dict[str, object]]:
        """Where every site's devices answer, one row a site."""
        return [_row(site_id, door) for site_id, door in self.doors.items()]

    def saved(self, *, is_final: bool) -> SavedFleet:
        """What a restart needs to go on from here; before the end, the meters still count."""
        ahead_s = 0.0 if is_final else 2 * _SAVE_S
        sites = {site_id: premises.saved(door, ahead_s) for site_id, door in self.doors.items()}
        return SavedFleet(fleet=self.scenario.name, sites=sites)


def told_to_stop() -> asyncio.Event:
    """Set once this process gets TERM or INT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def serve(scenario: Scenario, *, state_file: Path | None = None) -> AsyncIterator[Fleet]:
    """Serves a fleet on loopback for as long as the context is open.

    Raises:
        ConfigError: the state file cannot be used.
    """
    saved = SavedFleet(fleet=scenario.name, sites={})
    if state_file is not None:
        saved = await asyncio.to_thread(memory.load, state_file, fleet=scenario.name)
    async with AsyncExitStack() as stack:
        folder = await _machines(stack, scenario, state_file)
        served = {}
        for spec in scenario.sites:
            before = saved.sites.get(spec.site_id)
            served[spec.site_id] = await premises.opened(stack, spec, before, folder=folder)
        fleet = Fleet(scenario, served)
        if state_file is not None:
            stack.push_async_callback(_save, fleet, state_file, is_final=True)
        async with asyncio.TaskGroup() as tasks:
            turns = [tasks.create_task(_step(fleet), name="plants")]
            if state_file is not None:
                turns.append(tasks.create_task(_keep(fleet, state_file), name="state"))
            try:
                yield fleet
            finally:
                for turn in turns:
                    turn.cancel()


async def _step(fleet: Fleet) -> None:
    sites = fleet.doors.values()
    await loops.run(
        [door.running for door in sites],
        step_s=fleet.scenario.step_s,
        followers=[door.follow for door in sites if door.follow is not None],
    )


async def _machines(stack: AsyncExitStack, scenario: Scenario, state_file: Path | None) -> Path:
    """Where machines keep their files: beside the state, so that agents find them again."""
    if not any("machine" in spec.devices for spec in scenario.sites):
        return Path()
    if state_file is not None:
        return state_file.with_name(f"{state_file.name}.machines").absolute()
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="heatpool-sim-"))
    stack.push_async_callback(asyncio.to_thread, shutil.rmtree, folder, ignore_errors=True)
    return folder


def site_named(scenario: Scenario, site_id: str | None) -> str:
    """The site of this name; without a name the only one.

    Raises:
        ConfigError: the site is unknown, or several are there and none is named.
    """
    known = [spec.site_id for spec in scenario.sites]
    if site_id is None and len(known) == 1:
        return known[0]
    if site_id is None or site_id not in known:
        told = "is missing" if site_id is None else f"is {site_id!r}"
        raise ConfigError([f"--site: {told}; this fleet has {', '.join(known)}"])
    return site_id


def write_agent(fleet: Fleet, site_id: str, file: Path) -> None:
    """Writes the settings of an agent that reads a whole site, and its password beside them."""
    door = fleet.doors[site_id]
    file = file.absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    password_file = file.with_suffix(".password")
    password_file.touch(mode=0o600)
    password_file.write_text(premises.PASSWORD, encoding="utf-8")
    told = one_site.Told(
        spec=door.spec,
        urls=door.urls,
        roots=_roots(door),
        user=premises.USER,
        password_file=password_file,
    )
    state_dir = file.with_suffix(".state")
    file.write_text(one_site.agent(told, state_dir=state_dir), encoding="utf-8")


async def demo(
    scenario: Scenario,
    place: Place,
    *,
    ports: Mapping[str, int],
    seconds: float | None,
    announce: Callable[[str, str], None],
) -> Findings:
    """What the demo found, after so many seconds or once it was told to stop.

    `announce` is told the addresses of the page and of the operator's client.

    Raises:
        HeatpoolError: the aggregator did not come up.
    """
    stop = told_to_stop()
    async with serve(scenario, state_file=place.sites_file) as fleet, page.opened() as pages:
        await asyncio.to_thread(_write_settings, fleet, place, ports)
        cast = _cast(fleet, place, pages, ports)
        try:
            async with asyncio.TaskGroup() as tasks:
                turns = await story.start(cast, tasks)
                announce(cast.page_address, f"127.0.0.1:{ports['grpc']}")
                await _told_or_over(stop, seconds)
                findings = await story.finish(cast)
                for turn in turns:
                    turn.cancel()
        finally:
            await story.abandon(cast)
    return findings


async def _told_or_over(stop: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def _cast(fleet: Fleet, place: Place, pages: Pages, ports: Mapping[str, int]) -> Cast:
    def child(name: str, module: str) -> Child:
        return Child(
            Order(
                name=name,
                module=module,
                config=place.config(name),
                ready_file=place.ready(name),
                log_file=place.log(name),
            )
        )

    names = (*fleet.doors, settings.MACHINE)
    return Cast(
        aggregator=child("aggregator", "heatpool_aggregator"),
        agents=[child(name, "heatpool_agent") for name in names],
        pages=pages,
        page_address=f"{LOOPBACK}:{ports['http']}",
        registers=lambda: {site_id: fleet.register_wh(site_id) for site_id in fleet.doors},
    )


def _write_settings(fleet: Fleet, place: Place, ports: Mapping[str, int]) -> None:
    specs = [door.spec for door in fleet.doors.values()]
    texts = {
        "aggregator": settings.aggregator(
            specs,
            fleet.scenario.virtual_sources,
            ports=ports,
            state_dir=place.state("aggregator"),
        ),
        settings.MACHINE: settings.machine(
            grpc_port=ports["grpc"], state_dir=place.state(settings.MACHINE)
        ),
    }
    for site_id, door in fleet.doors.items():
        devices = settings.Devices(cdu_url=door.cdu.url, meter_url=door.meter.url)
        texts[site_id] = settings.simulated_site(
            door.spec, devices, grpc_port=ports["grpc"], state_dir=place.state(site_id)
        )
    for name, text in texts.items():
        place.config(name).write_text(text, encoding="utf-8")


async def _keep(fleet: Fleet, state_file: Path) -> None:
    while True:
        await asyncio.sleep(_SAVE_S)
        await _save(fleet, state_file, is_final=False)


async def _save(fleet: Fleet, state_file: Path, *, is_final: bool) -> None:
    await asyncio.to_thread(memory.save, state_file, fleet.saved(is_final=is_final))


def _row(site_id: str, door: SiteDoor) -> dict[str, object]:
    meter = door.running.state.meter
    row: dict[str, object] = {
        "site_id": site_id,
        "virtual_source_id": door.spec.virtual_source_id,
        "devices": door.urls,
    }
    # The names that the first two devices have had since there were no others.
    row |= {"cdu": door.cdu.url} if "modbus_cdu" in door.addresses else {}
    if "mbus_meter" in door.addresses:
        row |= {
            "meter": door.meter.url,
            "meter_address": door.spec.meter_address,
            "meter_id": f"{meter.manufacturer}.{meter.number:08d}",
        }
    if roots := _roots(door):
        row["roots"] = roots
    return row


def _roots(door: SiteDoor) -> dict[str, str]:
    """The machine's folders by their keys of an agent's settings; none without a machine."""
    if door.roots is None:
        return {}
    return {name: str(getattr(door.roots, name)) for name in ("sys", "proc", "nvml")}
