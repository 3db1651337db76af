"""A heat meter that speaks M-Bus, called by its address or selected by its number."""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from heatpool_sim.devices import mbus_telegram as telegram
from heatpool_sim.devices.mbus_bus import MbusBus
from heatpool_sim.devices.mbus_telegram import Request
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.ports import Address, Twin

_SILENT = frozenset({"offline", "meter_offline"})
_MOST_NUMBER = 99_999_999
_FRAME_COUNT, _IS_COUNTED = 0x20, 0x10  # the frame count bit, and the one that says it counts


class MbusMeter:
    """One meter; `is_fixed` makes it an old one, which sends two counters and nothing else."""

    def __init__(self, *, port: int = 0, address: int = 1, is_fixed: bool = False) -> None:
        self.address = address
        self._port = port
        self._is_fixed = is_fixed
        self._access = 0
        self._frozen: tuple[Meter, MeterState] | None = None

    def serve(self, plant: Twin) -> AbstractAsyncContextManager[Address]:
        """Answers alone on a bus of its own, at a TCP port, while the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """
        return MbusBus([lambda: MeterTalk(self, plant)], port=self._port).serve()

    def serve_pty(self, plant: Twin) -> AbstractAsyncContextManager[str]:
        """The same at a pseudo terminal, whose path this gives."""
        return MbusBus([lambda: MeterTalk(self, plant)]).serve_pty()

    def telegram(self, plant: Twin) -> bytes:
        """What the meter says of itself now, or why it says nothing."""
        if "busy" in plant.faults:
            return telegram.busy(address=self.address)
        if "meter_too_many_readouts" in plant.faults:
            return telegram.too_many_readouts(address=self.address)
        self._access = (self._access + 1) % 256
        meter, state = self._shown(plant)
        frame = self._frame(plant, meter, state)
        if "meter_collision" in plant.faults:
            # A second meter of the same address speaks in the same moment.
            twin = replace(meter, number=_MOST_NUMBER - meter.number)
            frame = telegram.together([frame, self._frame(plant, twin, state)])
        return telegram.with_wrong_checksum(frame) if "checksum_wrong" in plant.faults else frame

    def _shown(self, plant: Twin) -> tuple[Meter, MeterState]:
        if "meter_frozen" not in plant.faults:
            self._frozen = None
            meter, state = plant.meter()
        else:
            meter, state = self._frozen = self._frozen or plant.meter()
        if "meter_sensor_broken" in plant.faults:
            broken_c = telegram.BROKEN_SENSOR_C
            state = replace(state, hot_c=broken_c, cold_c=broken_c)
        return meter, state

    def _frame(self, plant: Twin, meter: Meter, state: MeterState) -> bytes:
        is_frozen = "meter_frozen" in plant.faults
        answer = telegram.fixed_answer if self._is_fixed else telegram.answer
        return answer(
            meter,
            state,
            address=self.address,
            access=self._access,
            status=telegram.STATUS_FROZEN if is_frozen else telegram.STATUS_OK,
        )


class MeterTalk:
    """One meter in talk with one master: whether it is selected, and what it said last.

    A data request with the frame count bit of the one before is answered by the same telegram.
    """

    def __init__(self, meter: MbusMeter, plant: Twin) -> None:
        self._meter = meter
        self._plant = plant
        self._is_selected = False
        self._last: tuple[int, bytes] | None = None

    def reply(self, request: Request) -> bytes:
        """What the meter says; nothing to what is not for it."""
        if self._plant.faults & _SILENT:
            return b""
        if request.selection is not None:
            return self._selected(request.selection)
        is_called = request.address == self._meter.address
        if not is_called and not (self._is_selected and request.address == telegram.SELECTED):
            return b""
        if request.is_reset:
            self._is_selected = self._is_selected and is_called
            self._last = None
            return telegram.ACK
        if request.is_user_data:
            return telegram.ACK
        return self._data(request) if request.is_data_request else b""

    def _selected(self, selection: bytes) -> bytes:
        meter, _ = self._plant.meter()
        self._is_selected = telegram.is_selected(meter, selection)
        self._last = None
        return telegram.ACK if self._is_selected else b""

    def _data(self, request: Request) -> bytes:
        count = request.control & _FRAME_COUNT
        is_again = self._last is not None and self._last[0] == count
        if self._last is None or not is_again or not request.control & _IS_COUNTED:
            self._last = count, self._meter.telegram(self._plant)
        return self._last[1]
