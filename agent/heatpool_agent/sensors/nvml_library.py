"""The only room that touches the bindings of NVIDIA's library: handles, names, numbers, blanks.

Imported by `nvml` after the library itself was loaded, so that hosts without a card never pay for
the bindings. When a card may be asked is decided there.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import pynvml

from heatpool.errors import SensorError, SensorGone

# Energy in mJ since the driver was loaded; power in mW as a 1-s mean; power at this moment.
ENERGY_FIELD = 83
POWER_FIELDS = (185, 186)
POWER_USAGE = "power_usage"
# The library marks "no value" by the topmost numbers of either width.
_BLANK_64 = 2**63 - 16
_BLANK_32 = 2**31 - 16
_WIDE = {
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
}
_UNANSWERED = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound)
_LOST = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_NotFound, pynvml.NVMLError_Unknown)
FIX = (
    "install the NVIDIA driver, set [roots].nvml to the path of its libnvidia-ml.so.1, "
    "or leave this sensor out"
)


class CardLost(SensorError):
    """One card does not answer any more; the others go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one card tells; absent is None. `power_source` names the field that answered."""

    name: str
    energy_mj: int | None
    power_mw: int | None
    power_source: str


class Session:
    """The library between start and stop; every call may block."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Starts it.

        Raises:
            SensorGone: the driver refuses.
        """
        if pynvml.nvmlLib is not library:
            pynvml.nvmlLib = library
            # The bindings remember functions of the library before.
            pynvml._nvmlGetFunctionPointer_cache.clear()
        self._handles: dict[str, Any] = {}
        try:
            # Without this flag every card is attached, and woken, at once.
            pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_ATTACH)
        except pynvml.NVMLError as error:
            raise SensorGone(f"nvml: {error}", fix=FIX) from error

    def stop(self) -> None:
        """Ends the session, also where the driver went away meanwhile."""
        self._handles = {}
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            # Then nothing is left to shut down.
            return

    def addresses(self) -> list[str]:
        """PCI addresses, as the kernel writes them, of the cards that the library lists.

        Raises:
            SensorGone: the driver does not answer.
        """
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                self._handles[_address(pynvml.nvmlDeviceGetPciInfo(handle))] = handle
        except pynvml.NVMLError as error:
            raise SensorGone(f"nvml: {error} while listing cards", fix=FIX) from error
        return sorted(self._handles)

    def answer(self, address: str) -> Answer:
        """Energy and power of the card at a PCI address.

        Raises:
            CardLost: it fell off its bus.
            SensorGone: the driver does not answer.
        """
        try:
            return self._answer(address)
        except _LOST as error:
            self._handles.pop(address, None)
            raise CardLost(f"nvml: {address}: {error}") from error
        except pynvml.NVMLError as error:
            raise SensorGone(f"nvml: {address}: {error}", fix=FIX) from error

    def _answer(self, address: str) -> Answer:
        if address not in self._handles:
            self._handles[address] = pynvml.nvmlDeviceGetHandleByPciBusId(address.encode())
        handle = self._handles[address]
        told = _fields(handle)
        power = [(f"field:{field}", told[field]) for field in POWER_FIELDS if field in told]
        source, power_mw = power[0] if power else (POWER_USAGE, _power_usage_mw(handle))
        return Answer(
            name=_text(pynvml.nvmlDeviceGetName(handle)),
            energy_mj=told.get(ENERGY_FIELD),
            power_mw=power_mw,
            power_source=source,
        )


def _fields(handle: Any) -> dict[int, int]:
    """Field id -> value, of those that the card answers with a number."""
    try:
        values = pynvml.nvmlDeviceGetFieldValues(handle, [ENERGY_FIELD, *POWER_FIELDS])
    except _UNANSWERED:
        return {}
    answered = [value for value in values if value.nvmlReturn == pynvml.NVML_SUCCESS]
    numbers = {int(value.fieldId): _number(value) for value in answered}
    return {field: number for field, number in numbers.items() if number is not None}


def _power_usage_mw(handle: Any) -> int | None:
    try:
        told = int(pynvml.nvmlDeviceGetPowerUsage(handle))
    except _UNANSWERED:
        return None
    return told if told < _BLANK_32 else None


def _number(value: Any) -> int | None:
    if value.valueType in _WIDE:
        number = int(getattr(value.value, _WIDE[value.valueType]))
        return number if number < _BLANK_64 else None
    if value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT:
        number = int(value.value.uiVal)
        return number if number < _BLANK_32 else None
    return None


def _address(place: Any) -> str:
    """`00000000:3B:00.0` -> `0000:3b:00.0`."""
    domain, _, rest = _text(place.busId).lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _text(told: bytes | str) -> str:
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else told
