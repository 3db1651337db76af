"""NVIDIA GPUs through the driver's own library: energy counter and power of each card.

A card that sleeps is not touched: the kernel says so before the library is asked, and while all
cards sleep the library stays shut. One channel per card, `nvml/<pci address>`, for the GPU with
its memory; parts of a divided card are not asked, their parent is.
"""

import asyncio
import ctypes
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from heatpool.errors import SensorBusy, SensorError, SensorGone
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.kernel_file import kernel_boot, read_text

if TYPE_CHECKING:
    # At run time only where the driver's library has loaded: the bindings cost 3 MB.
    from heatpool_agent.sensors.nvml_library import Answer, Session

T = TypeVar("T")

LIBRARY = "libnvidia-ml.so.1"
_VENDOR = "0x10de"
# PCI class of display controllers: a card's sound and USB functions are not it.
_DISPLAY = "0x03"
# On its way down or up, a call would hold the card up or wait for it.
_ASLEEP = ("suspended", "suspending", "resuming")
_FIX = f"install the NVIDIA driver, or set [roots].nvml to the path of its {LIBRARY}"


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[[sensor]]` block of this kind; it needs nothing but its id."""

    kind: Literal["nvml"]


@asynccontextmanager
async def open(config: Config, roots: Roots, clock: Clock) -> AsyncIterator["Nvml"]:
    """The sensor; opening touches neither library nor card."""
    sensor = Nvml(config, roots, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


class Nvml:
    """All NVIDIA GPUs of this machine."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._roots = roots
        self._clock = clock
        self._generation = ""
        self._session: Session | None = None
        # A call may hang for seconds and cannot be cancelled: no second one is started beside it.
        self._pass: asyncio.Future[Any] | None = None

    async def probe(self) -> Sequence[str]:
        """One channel per card, sleeping ones included; none on a machine without cards.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: cards exist, but the driver's library does not load or answer.
        """
        return await self._on_thread(self._probe)

    async def read(self) -> Sequence[Reading]:
        """Energy as a count of mJ and power, W, of each waking card; a state for sleeping ones.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: the library or the driver went away.
        """
        return await self._on_thread(self._read)

    async def close(self) -> None:
        """Ends the library's session; may be called twice."""
        # A hanging call keeps its thread: the session then ends with the process.
        if self._pass is None or self._pass.done():
            await asyncio.to_thread(self._shut)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._pass is not None and not self._pass.done():
            raise SensorBusy("nvml: the driver has not answered the last call yet", wait_s=5.0)
        job = asyncio.get_running_loop().run_in_executor(None, work)
        # A pass that nobody waits for any more may fail unheard.
        job.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._pass = job
        # Shielded: a cancelled wait must not forget that the thread is still in the driver.
        return await asyncio.shield(job)

    def _probe(self) -> tuple[str, ...]:
        self._generation = kernel_boot(self._roots.proc)
        listed = _listed(self._roots.sys)
        if not listed and self._library() is None:
            if self._roots.nvml == "auto":
                return ()
            raise SensorGone(f"nvml: {self._roots.nvml} does not load", fix=_FIX)
        if not listed:
            listed = self._started().addresses()
        elif not all(_sleeps(self._roots.sys, address) for address in listed):
            self._started()
        return tuple(f"nvml/{address}" for address in listed)

    def _read(self) -> list[Reading]:
        listed = _listed(self._roots.sys)
        asleep = [address for address in listed if _sleeps(self._roots.sys, address)]
        readings = [self._sleeping(address) for address in asleep]
        if listed and len(asleep) == len(listed):
            # An open session alone can keep a card awake.
            self._shut()
            return readings
        try:
            awake = listed or self._started().addresses()
            for address in awake:
                readings += [] if address in asleep else self._awake(address)
        except SensorGone:
            self._shut()
            raise
        return readings

    def _awake(self, address: str) -> list[Reading]:
        try:
            answer = self._started().answer(address)
        except SensorGone:
            raise
        except SensorError:
            # This card fell off its bus; the others go on.
            return []
        found = (self._energy(address, answer), self._power(address, answer))
        return [reading for reading in found if reading is not None]

    def _library(self) -> ctypes.CDLL | None:
        try:
            return ctypes.CDLL(LIBRARY if self._roots.nvml == "auto" else self._roots.nvml)
        except OSError:
            return None

    def _started(self) -> "Session":
        if self._session is None:
            library = self._library()
            if library is None:
                raise SensorGone(f"nvml: {LIBRARY} does not load ({self._roots.nvml})", fix=_FIX)
            module = import_module("heatpool_agent.sensors.nvml_library")
            self._session = module.Session(library)
        return self._session

    def _shut(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.stop()

    def _energy(self, address: str, answer: "Answer") -> Reading | None:
        if answer.energy_mj is None:
            return None
        return Reading(
            sensor=self._config.id,
            channel=f"nvml/{address}",
            quantity="energy_j",
            kind=ReadingKind.COUNTER,
            value=answer.energy_mj / 1000,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=Node.GPU,
            label=answer.name,
            loop=self._config.loop,
            raw=answer.energy_mj,
            exponent=-3,
            generation=self._generation,
        )

    def _power(self, address: str, answer: "Answer") -> Reading | None:
        if answer.power_mw is None:
            return None
        return Reading(
            sensor=self._config.id,
            channel=f"nvml/{address}",
            quantity="power_w",
            kind=ReadingKind.GAUGE,
            value=answer.power_mw / 1000,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=Node.GPU,
            label=answer.name,
            loop=self._config.loop,
            # A mean and a moment are not the same figure: say which answered.
            flags=(answer.power_source,),
        )

    def _sleeping(self, address: str) -> Reading:
        return Reading(
            sensor=self._config.id,
            channel=f"nvml/{address}",
            quantity="is_suspended",
            kind=ReadingKind.STATE,
            value=1.0,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=Node.GPU,
            loop=self._config.loop,
        )


def _listed(sys: Path) -> list[str]:
    """PCI addresses of NVIDIA display functions, from the kernel alone."""
    tree = sys / "bus/pci/devices"
    if not tree.is_dir():
        return []
    return sorted(
        device.name
        for device in tree.iterdir()
        if read_text(device / "vendor") == _VENDOR
        and (read_text(device / "class") or "").startswith(_DISPLAY)
    )


def _sleeps(sys: Path, address: str) -> bool:
    return read_text(sys / "bus/pci/devices" / address / "power/runtime_status") in _ASLEEP
