"""Composition root: which device stands before which plant, and how a fleet starts and stops."""

import asyncio
import logging
import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_sim import loops
from heatpool_sim.demo import settings, story
from heatpool_sim.demo.story import Cast
from heatpool_sim.demo.summary import Findings
from heatpool_sim.devices import memory
from heatpool_sim.devices.mbus_meter import MbusMeter
from heatpool_sim.devices.memory import SavedFleet, SavedSite
from heatpool_sim.devices.modbus_cdu import ModbusCdu
from heatpool_sim.loops import RunningSite
from heatpool_sim.plant import site as plants
from heatpool_sim.plant.control import Control
from heatpool_sim.plant.meter import MODULUS, Meter, MeterState
from heatpool_sim.ports import LOOPBACK, Address, Device, Twin
from heatpool_sim.programs import page
from heatpool_sim.programs.child import Child, Order
from heatpool_sim.programs.page import Pages
from heatpool_sim.programs.place import Place
from heatpool_sim.scenario import Scenario, SiteSpec

logger = logging.getLogger(__name__)

_SAVE_S = 3.0  # what a killed simulator forgets at most; its registers begin behind that


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDoor:
    """A served site: its running plant and where its devices answer."""

    spec: SiteSpec
    running: RunningSite
    cdu: Address
    meter: Address


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

    def inject(self, site_id: str, fault: str, *, length_s: float = float("inf")) -> None:
        """Makes a fault last from now, or an event happen now."""
        self.doors[site_id].running.inject(fault, length_s=length_s)

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
        sites = {site_id: _saved(door, ahead_s) for site_id, door in self.doors.items()}
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
        doors = {}
        for spec in scenario.sites:
            doors[spec.site_id] = await _open(stack, spec, saved.sites.get(spec.site_id))
        fleet = Fleet(scenario, doors)
        if state_file is not None:
            stack.push_async_callback(_save, fleet, state_file, is_final=True)
        async with asyncio.TaskGroup() as tasks:
            running = [door.running for door in doors.values()]
            turns = [tasks.create_task(loops.run(running, step_s=scenario.step_s), name="plants")]
            if state_file is not None:
                turns.append(tasks.create_task(_keep(fleet, state_file), name="state"))
            try:
                yield fleet
            finally:
                for turn in turns:
                    turn.cancel()


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


async def _open(stack: AsyncExitStack, spec: SiteSpec, saved: SavedSite | None) -> SiteDoor:
    running = _running(spec, saved)
    cdu_port, meter_port = (saved.cdu_port, saved.meter_port) if saved else (0, 0)
    cdu = await _at(stack, running, ModbusCdu(port=cdu_port), ModbusCdu())
    address = spec.meter_address
    meter = await _at(
        stack, running, MbusMeter(port=meter_port, address=address), MbusMeter(address=address)
    )
    return SiteDoor(spec=spec, running=running, cdu=cdu, meter=meter)


async def _at(stack: AsyncExitStack, plant: Twin, wished: Device, other: Device) -> Address:
    """Where the device answers: at its old port, or at a free one if that is taken by now."""
    try:
        return await stack.enter_async_context(wished.serve(plant))
    except HeatpoolError as error:
        logger.warning("device.moved", extra=facts(reason=str(error)))
        return await stack.enter_async_context(other.serve(plant))


def _running(spec: SiteSpec, saved: SavedSite | None) -> RunningSite:
    boot_ns = time.monotonic_ns()
    first = plants.steady(
        spec.plant,
        at_ns=time.time_ns(),
        meter=spec.meter,
        metered=MeterState(register_wh=spec.register_wh, register_l=spec.register_l),
    )
    first = replace(first, control=Control(mode=spec.mode, written_ns=boot_ns))
    return RunningSite(
        spec.plant,
        first if saved is None else _resumed(first, saved),
        errors=spec.errors,
        planned=spec.faults,
        boot_ns=boot_ns,
    )


def _resumed(first: plants.SiteState, saved: SavedSite) -> plants.SiteState:
    return replace(
        first,
        meter=replace(first.meter, number=saved.meter_number),
        metered=MeterState(
            register_wh=(saved.register_wh + saved.ahead_wh) % MODULUS,
            remainder_wh=saved.remainder_wh,
            register_l=saved.register_l,
            remainder_l=saved.remainder_l,
        ),
        loop=replace(first.loop, hot_c=saved.hot_c),
        held_j=saved.held_j,
    )


def _saved(door: SiteDoor, ahead_s: float) -> SavedSite:
    now = door.running.state
    # Twice the present load: it may rise before the kill, and too far ahead hurts nobody.
    most_w = 2 * door.spec.plant.load.it_w(time.time_ns())
    return SavedSite(
        meter_number=now.meter.number,
        register_wh=now.metered.register_wh,
        ahead_wh=math.ceil(most_w * ahead_s / 3600),
        remainder_wh=now.metered.remainder_wh,
        register_l=now.metered.register_l,
        remainder_l=now.metered.remainder_l,
        hot_c=now.loop.hot_c,
        held_j=now.held_j,
        cdu_port=door.cdu.port,
        meter_port=door.meter.port,
    )


def _row(site_id: str, door: SiteDoor) -> dict[str, object]:
    meter = door.running.state.meter
    return {
        "site_id": site_id,
        "virtual_source_id": door.spec.virtual_source_id,
        "cdu": door.cdu.url,
        "meter": door.meter.url,
        "meter_address": door.spec.meter_address,
        "meter_id": f"{meter.manufacturer}.{meter.number:08d}",
    }
