"""Steps every plant: on real time for those who listen, on simulated time for those who compute."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from heatpool.process.journal import facts
from heatpool_sim.plant import control, faults, gauges, meter, site, steering
from heatpool_sim.plant.faults import Fault, Lasting, Pipe
from heatpool_sim.plant.fed import Fed, grown
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.plant.loop_gauges import GaugeErrors, shown_power_frac
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.plant.server_gauges import true_feed
from heatpool_sim.plant.site import Plant, SiteHeat, SiteState
from heatpool_sim.plant.steering import Wished

logger = logging.getLogger(__name__)

_LONGEST_STEP_S = 1.0  # inputs are held over a step; a load held for longer is another load
_MOST_BEHIND_S = 60.0  # a machine that slept longer did not heat anything meanwhile
_ROLLOVER_WH = 20  # how far before its end a register is set by the fault of that name


class RunningSite:
    """A plant with its present state; devices read it and write its cells."""

    def __init__(
        self,
        plant: Plant,
        state: SiteState,
        *,
        errors: GaugeErrors | None = None,
        planned: Sequence[Fault] = (),
        boot_ns: int = 0,
    ) -> None:
        self.plant = plant
        self.state = state
        self.heat: SiteHeat | None = None
        self.fed = Fed()
        self.happened: tuple[str, ...] = ()
        self._errors = errors or GaugeErrors()
        self._planned = tuple(planned)
        self._injected: dict[str, Fault] = {}
        self._boot_ns = boot_ns
        self._since_start_s = 0.0

    @property
    def faults(self) -> frozenset[str]:
        """Names of the faults that last now, planned or injected."""
        return frozenset(self._lasting())

    def gauges(self) -> Gauges:
        """The coolant unit's display."""
        return gauges.gauges(self.plant, self.state, self._errors, lasting=self._lasting())

    def meter(self) -> tuple[Meter, MeterState]:
        """The heat meter's plate and its registers."""
        return self.state.meter, self.state.metered

    def cells(self) -> tuple[int, int, int, int]:
        """The coolant unit's holding block."""
        return control.cells(self.state.control)

    def write(self, values: list[int], *, at: int) -> bool:
        """Whether the block took these cells; a write restarts the watchdog."""
        block = control.written(self.state.control, values, at=at, boot_ns=self._boot_ns)
        if block is not None:
            self.state = replace(self.state, control=block)
        return block is not None

    def adjust(self, name: Wished, value: float | None) -> bool:
        """Whether the cooling loop took this setting; None: as it was commissioned."""
        wishes = steering.adjusted(self.plant.loop, self.state.wishes, name, value)
        if wishes is not None:
            self.state = replace(self.state, wishes=wishes)
        return wishes is not None

    def inject(
        self, name: str, *, length_s: float, size: float | None = None, pipe: Pipe = "hot"
    ) -> None:
        """Makes a fault last for `length_s` from now, or an event happen now.

        Raises:
            ValueError: there is no such fault, or none of this size.
        """
        fault = Fault(
            id=name,
            site_id=self.plant.site_id,
            at_s=self._since_start_s,
            length_s=length_s,
            size=size,
            pipe=pipe,
        )
        if wrong := faults.mistakes(fault):
            raise ValueError("; ".join(wrong))
        if name in faults.EVENTS:
            self._happen(name)
        else:
            self._injected[name] = fault
        logger.info("fault.start", extra=facts(site=self.plant.site_id, fault=name))

    def clear(self, name: str) -> None:
        """Ends an injected fault now."""
        self._injected.pop(name, None)

    def exchange_meter(self, *, number: int | None = None, register_wh: int = 0) -> Meter:
        """The new meter: another number, registers as delivered by its maker."""
        old = self.state.meter
        new = meter.exchanged(old, number=old.number + 1 if number is None else number)
        self.state = replace(self.state, meter=new, metered=MeterState(register_wh=register_wh))
        return new

    def set_register(self, register_wh: int) -> None:
        """Sets the energy register, as no meter in the field would allow."""
        metered = replace(self.state.metered, register_wh=register_wh % meter.MODULUS)
        self.state = replace(self.state, metered=metered)

    def advance(self, dt_s: float, *, boot_ns: int) -> None:
        """Moves the plant `dt_s` seconds on; `boot_ns` drives the watchdog."""
        while dt_s > 0.0:
            part_s = min(dt_s, _LONGEST_STEP_S)
            self._step(part_s)
            dt_s -= part_s
        self._boot_ns = boot_ns
        self.state = replace(
            self.state, control=control.watched(self.state.control, boot_ns=boot_ns)
        )

    def _step(self, dt_s: float) -> None:
        until_s = self._since_start_s + dt_s
        lasting = self._lasting()
        self.state, self.heat = site.step(self.plant, self.state, dt_s=dt_s, lasting=lasting)
        self.fed = grown(
            self.fed,
            true_feed(self.plant, self.state),
            dt_s=dt_s,
            power_frac=shown_power_frac(lasting),
        )
        for name in faults.due(self._planned, after_s=self._since_start_s, until_s=until_s):
            self._happen(name)
        self._since_start_s = until_s

    def _lasting(self) -> dict[str, Lasting]:
        planned = (*self._planned, *self._injected.values())
        return faults.lasting(planned, since_start_s=self._since_start_s)

    def _happen(self, name: str) -> None:
        if name == "meter_exchange":
            self.exchange_meter()
        elif name == "register_rollover":
            self.set_register(meter.MODULUS - _ROLLOVER_WH)
        self.happened = (*self.happened, name)


async def run(
    sites: Sequence[RunningSite],
    *,
    step_s: float,
    followers: Sequence[Callable[[], Awaitable[None]]] = (),
) -> None:
    """Steps all sites on real time until cancelled; a late step is longer, never left out.

    `followers` are called after each step: what counts the plant's energies must not lag behind.
    """
    last_ns = time.monotonic_ns()
    while True:
        await asyncio.sleep(step_s)
        now_ns = time.monotonic_ns()
        passed_s = min((now_ns - last_ns) / 1e9, _MOST_BEHIND_S)
        last_ns = now_ns
        for running in sites:
            running.advance(passed_s, boot_ns=now_ns)
        for follow in followers:
            await follow()
