"""The only room that touches the bindings of NVIDIA's library: handles, names and raw numbers.

Imported by `nvml` after the library itself was loaded, so that hosts without a card never pay for
the bindings. When a card may be asked is decided there, what a number means in `core.gpu_card`.
"""

import ctypes
import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pynvml

from heatpool.errors import SensorGone
from heatpool_agent.core.gpu_card import (
    GPU_FIELDS,
    LIMIT_FIELDS,
    MODULE_FIELDS,
    POWER_FIELDS,
    Field,
    encoded,
    told,
)

# Of each type of value: where it lies, and its bits.
_NUMBERS = {
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: ("uiVal", 32),
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: ("ulVal", 64),
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: ("ullVal", 64),
}
_UNANSWERED = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound)
_LOST = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_NotFound, pynvml.NVMLError_Unknown)
FIX = (
    "install the NVIDIA driver, set [roots].nvml to the path of its libnvidia-ml.so.1, "
    "or leave this sensor out"
)


@dataclass(slots=True)
class _Held:
    """A card's handle, and what is asked of it once."""

    handle: Any
    name: str
    limits: dict[Field, tuple[int, int]] = field(default_factory=dict)


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
        self._held: dict[str, _Held] = {}
        try:
            # Without this flag every card is attached, and woken, at once.
            pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_ATTACH)
        except pynvml.NVMLError as error:
            raise SensorGone(f"nvml: {error}", fix=FIX) from error

    def stop(self) -> None:
        """Ends the session, also where the driver went away meanwhile."""
        self._held = {}
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
            found = map(_address_at, range(pynvml.nvmlDeviceGetCount()))
            return sorted(address for address in found if address is not None)
        except pynvml.NVMLError as error:
            raise SensorGone(f"nvml: {error} while listing cards", fix=FIX) from error

    def answer(self, address: str) -> bytes:
        """Energy and power of the card at a PCI address, as `core.gpu_card` reads them.

        Raises:
            OSError: ENODEV, it fell off its bus.
            SensorGone: the driver does not answer.
        """
        try:
            return self._answer(address)
        except _LOST as error:
            self._held.pop(address, None)
            raise OSError(errno.ENODEV, f"nvml: {address}: {error}") from error
        except pynvml.NVMLError as error:
            raise SensorGone(f"nvml: {address}: {error}", fix=FIX) from error

    def _answer(self, address: str) -> bytes:
        held = self._held.get(address) or self._hold(address)
        # Of a card divided by MIG this is the whole: parts have handles of their own.
        fields = _fields(held.handle, GPU_FIELDS)
        heard = told(fields)
        usage_mw = None if heard & POWER_FIELDS else _power_usage_mw(held.handle)
        if not heard and usage_mw is None:
            fields |= _fields(held.handle, MODULE_FIELDS)
        return encoded(held.name, fields | held.limits, usage=usage_mw)

    def _hold(self, address: str) -> _Held:
        handle = pynvml.nvmlDeviceGetHandleByPciBusId(address.encode())
        held = _Held(handle=handle, name=_text(pynvml.nvmlDeviceGetName(handle)))
        held.limits = _fields(handle, LIMIT_FIELDS)
        self._held[address] = held
        return held


def _fields(handle: Any, asked: Sequence[Field]) -> dict[Field, tuple[int, int]]:
    """Number and bits of those fields that the card answers with a number."""
    try:
        values = pynvml.nvmlDeviceGetFieldValues(handle, list(asked))
    except _UNANSWERED:
        return {}
    return {
        (int(value.fieldId), int(value.scopeId)): (int(getattr(value.value, place)), bits)
        for value in values
        if value.nvmlReturn == pynvml.NVML_SUCCESS and value.valueType in _NUMBERS
        for place, bits in (_NUMBERS[value.valueType],)
    }


def _power_usage_mw(handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetPowerUsage(handle))
    except _UNANSWERED:
        return None


def _address_at(index: int) -> str | None:
    """`00000000:3B:00.0` -> `0000:3b:00.0`; None for a card that fell off its bus."""
    try:
        place = pynvml.nvmlDeviceGetPciInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
    except _LOST:
        return None
    domain, _, rest = _text(place.busId).lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _text(told: bytes | str) -> str:
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else told
