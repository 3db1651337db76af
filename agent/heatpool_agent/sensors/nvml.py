"""NVIDIA GPUs through the driver's library, or its command: energy counter and power of each card.

A card that sleeps is not touched: the kernel says so before anything is asked, and while all
cards sleep the library stays shut. One channel per card, `nvml/<pci address>`, for the GPU with
its memory, or for its whole module where only that is measured; parts of a divided card are not
asked, their parent is.
"""

import asyncio
import ctypes
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from heatpool.errors import SensorGone, WireError
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.gpu_card import Card, card
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.kernel_file import KernelTree, OneAtATime

if TYPE_CHECKING:
    # At run time only where they are needed: the bindings cost 3 MB, the command its XML.
    from heatpool_agent.sensors.nvidia_smi import NvidiaSmi
    from heatpool_agent.sensors.nvml_library import Session

T = TypeVar("T")

LIBRARY = "libnvidia-ml.so.1"
_VENDOR = "0x10de"
# PCI class of display controllers: a card's sound and USB functions are not it.
_DISPLAY = "0x03"
# On its way down or up, a call would hold the card up or wait for it.
_ASLEEP = ("suspended", "suspending", "resuming")
_FIX = f"install the NVIDIA driver, or set [roots].nvml to the path of its {LIBRARY}"
_SLOW_FIX = "see `dmesg | grep NVRM`: a card or its firmware hangs; raise timeout_s if it is slow"
# Our own limit comes a little before the supervisor's, which knows no reason.
_OWN_SHARE_FRAC = 0.95
_BY_LIBRARY, _BY_COMMAND, _BY_NOTHING = b"library", b"smi", b"nothing"


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[[sensor]]` block of this kind; it needs nothing but its id."""

    kind: Literal["nvml"]
    # "auto": the library, or the command where that does not load.
    via: Literal["auto", "library", "smi"] = "auto"
    smi: str = "nvidia-smi"
    # What `nvidia-smi -q -x` printed, read again at each pass in place of running it.
    file: str = ""


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
        self._tree = KernelTree(roots)
        self._clock = clock
        self._generation = ""
        self._displays: dict[str, bool] = {}
        self._session: Session | None = None
        self._smi: NvidiaSmi | None = None
        self._calls = OneAtATime("nvml: the driver")

    async def probe(self) -> Sequence[str]:
        """One channel per card, sleeping ones included; none on a machine without cards.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: cards exist, but neither library nor command answers.
        """
        found, self._smi = await self._on_thread(self._probe)
        if self._smi is None or found:
            return found
        return _channels(await self._in_time(self._smi.cards()))

    async def read(self) -> Sequence[Reading]:
        """Energy as a count of mJ and power, W, of each waking card; a state for sleeping ones.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: the library, the command or the driver went away.
        """
        if self._smi is not None:
            return await self._read_smi(self._smi)
        return await self._on_thread(self._read)

    async def close(self) -> None:
        """Ends the library's session; may be called twice."""
        # A hanging call keeps its thread: the session then ends with that call, or the process.
        await self._calls.end(self._shut)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await self._in_time(self._calls.run(work))

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(_OWN_SHARE_FRAC * self._config.timeout_s):
                return await answer
        except TimeoutError as error:
            raise SensorGone(
                f"nvml: no answer within {self._config.timeout_s:g} s", fix=_SLOW_FIX
            ) from error

    def _probe(self) -> tuple[tuple[str, ...], "NvidiaSmi | None"]:
        """Channels as far as they are known without the command, and the command if it is used."""
        self._generation = self._tree.boot()
        listed = self._listed()
        if listed and all(map(self._sleeps, listed)):
            # Which way is open is not tried: loading the library could wake them.
            return _channels(listed), self._command() if self._is_by_command() else None
        way = self._tape_look("nvml way", self._way)
        if way == _BY_COMMAND:
            return _channels(listed), self._command()
        if way == _BY_NOTHING and (listed or self._roots.nvml != "auto"):
            raise SensorGone(f"nvml: {LIBRARY} does not load ({self._roots.nvml})", fix=_FIX)
        if way == _BY_LIBRARY:
            listed = listed or self._addresses()
        return _channels(listed), None

    def _way(self) -> bytes:
        if self._is_by_command():
            return _BY_COMMAND
        if self._library() is not None:
            # Begun at once, so that a driver that refuses is told by the probe.
            self._started()
            return _BY_LIBRARY
        is_free = self._config.via == "auto" and self._roots.nvml == "auto"
        return _BY_COMMAND if is_free and shutil.which(self._config.smi) else _BY_NOTHING

    def _is_by_command(self) -> bool:
        return self._config.via == "smi" or bool(self._config.file)

    def _command(self) -> "NvidiaSmi":
        room = import_module("heatpool_agent.sensors.nvidia_smi")
        smi: NvidiaSmi = room.NvidiaSmi(self._config.smi, self._config.file, self._roots.tape)
        return smi

    async def _read_smi(self, smi: "NvidiaSmi") -> list[Reading]:
        asleep = await self._on_thread(self._asleep)
        # The command attaches every card: it is not run while one of them sleeps.
        if asleep and not self._config.file:
            return [self._sleeping(address) for address in asleep]
        cards = await self._in_time(smi.cards())
        return [r for address, one in sorted(cards.items()) for r in self._readings(address, one)]

    def _read(self) -> list[Reading]:
        listed = self._listed()
        asleep = [address for address in listed if self._sleeps(address)]
        readings = [self._sleeping(address) for address in asleep]
        if listed and len(asleep) == len(listed):
            # An open session alone can keep a card awake.
            self._shut()
            return readings
        try:
            awake = [name for name in listed or self._addresses() if name not in asleep]
            answers = [(address, self._awake(address)) for address in awake]
            if awake and not any(told for _, told in answers):
                raise SensorGone(f"nvml: no card answers any more: {' '.join(awake)}", fix=_FIX)
        except SensorGone:
            self._shut()
            raise
        found = (self._readings(address, told) for address, told in answers if told)
        return [*readings, *chain.from_iterable(found)]

    def _awake(self, address: str) -> Card | None:
        """What a card tells; None if it fell off its bus, as the others go on."""
        try:
            return card(
                self._tape_look(f"nvml card {address}", lambda: self._started().answer(address))
            )
        except OSError:
            return None
        except WireError as error:
            raise SensorGone(str(error), fix=_FIX) from error

    def _addresses(self) -> list[str]:
        seen = self._tape_look("nvml cards", lambda: " ".join(self._started().addresses()).encode())
        return seen.decode().split()

    def _tape_look(self, request: str, see: Callable[[], bytes]) -> bytes:
        return self._roots.tape.look(request, see)

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

    def _listed(self) -> list[str]:
        """PCI addresses of NVIDIA display functions, from the kernel alone."""
        tree = self._tree.sys / "bus/pci/devices"
        try:
            names = self._tree.names(tree)
        except OSError:
            return []
        # What sits at an address is asked once: a large server has hundreds of devices.
        self._displays = {
            name: self._displays[name] if name in self._displays else self._is_display(tree / name)
            for name in names
        }
        return [name for name, is_display in self._displays.items() if is_display]

    def _is_display(self, device: Path) -> bool:
        if self._tree.text(device / "vendor") != _VENDOR:
            return False
        return (self._tree.text(device / "class") or "").startswith(_DISPLAY)

    def _sleeps(self, address: str) -> bool:
        status = self._tree.sys / "bus/pci/devices" / address / "power/runtime_status"
        return self._tree.text(status) in _ASLEEP

    def _asleep(self) -> list[str]:
        return [address for address in self._listed() if self._sleeps(address)]

    def _readings(self, address: str, told: Card) -> Iterator[Reading]:
        if told.energy_mj is not None:
            yield self._energy(address, told, told.energy_mj)
        if told.power_w is not None:
            # A mean and a moment are not the same figure: say which answered.
            flags = (told.power_source,)
            yield self._watts(address, told, "power_w", told.power_w, flags=flags)
        if told.power_most_w:
            yield self._watts(address, told, "rated_w", told.power_most_w)

    def _energy(self, address: str, told: Card, energy_mj: int) -> Reading:
        return Reading(
            sensor=self._config.id,
            channel=f"nvml/{address}",
            quantity="energy_j",
            kind=ReadingKind.COUNTER,
            value=energy_mj / 1000,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=_node(told),
            label=told.name,
            loop=self._config.loop,
            raw=energy_mj,
            exponent=-3,
            generation=self._generation,
        )

    def _watts(
        self,
        address: str,
        told: Card,
        quantity: str,
        value: float,
        *,
        flags: tuple[str, ...] = (),
    ) -> Reading:
        return Reading(
            sensor=self._config.id,
            channel=f"nvml/{address}",
            quantity=quantity,
            kind=ReadingKind.GAUGE if quantity == "power_w" else ReadingKind.STATE,
            value=value,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=_node(told),
            label=told.name,
            loop=self._config.loop,
            flags=flags,
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


def _node(told: Card) -> Node:
    return Node.MODULE if told.is_module else Node.GPU


def _channels(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"nvml/{address}" for address in sorted(addresses))
