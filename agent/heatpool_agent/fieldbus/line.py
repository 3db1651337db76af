"""One line to a Modbus bus, shared by every sensor and actuator of this process that is on it.

The only file that imports pymodbus. A line carries one request at a time; who may speak next is
asked between two requests, and an actuator goes first. Any failure closes the connection: a late
answer must not meet the next request.
"""

import asyncio
import os
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.core.device_map import Block
from heatpool_agent.core.endpoint import LineAddress, line_address, silence_s

Client = AsyncModbusTcpClient | AsyncModbusSerialClient
Found = TypeVar("Found")

# How much longer a sensor may wait for its answer once an actuator wants to speak.
GIVE_WAY_S = 0.5
# After an unanswered request a slow device may still begin to speak (V1.02 of the serial line
# guide, 2.4.1, lets the bus rest 100 to 200 ms after a request without an answer).
REST_S = 0.1
# Limits and repetitions are ours: pymodbus would wait its own time and answer late.
_NEVER_S = 3600.0
_READ_INPUT = 4

_lines: dict[str, "Line"] = {}


class Hold:
    """One user's share of a line; the last one to release it closes the connection."""

    def __init__(self, line: "Line") -> None:
        self.line = line
        self._is_held = True
        line.users_count += 1

    def release(self) -> None:
        """Gives the share back; may be called twice."""
        if not self._is_held:
            return
        self._is_held = False
        self.line.users_count -= 1
        if not self.line.users_count:
            _lines.pop(self.line.address.place, None)
            self.line.close()


async def hold(url: str, *, unit_id: int) -> Hold:
    """A share of the line behind a url, for one unit on it; nothing is opened yet.

    Raises:
        ConfigError: the url is none, nobody answers to the unit id, or another block gives the
            same line other settings.
    """
    try:
        address = line_address(url)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    if address.is_rtu and not unit_id:
        raise ConfigError(["unit_id: is 0, which is everybody on a serial line; must be 1 to 247"])
    if address.serial:
        # One port has many names, such as those in /dev/serial/by-id.
        place = await asyncio.to_thread(os.path.realpath, address.place)
        address = LineAddress(place=place, is_rtu=True, serial=address.serial)
    line = _lines.setdefault(address.place, Line(address))
    if line.address != address:
        raise ConfigError(
            [f"url: {url!r}: another block opens {address.place} differently; write both alike"]
        )
    return Hold(line)


async def _heeding_cancellation(work: Awaitable[Found]) -> Found:
    """What comes of it, unless somebody wanted it ended meanwhile.

    pymodbus waits with `asyncio.wait_for`, which in Python 3.11 forgets a cancellation that meets
    its result in one turn of the loop: a deadline would be gone, and nobody would end what follows.
    """
    task = asyncio.current_task()
    before_count = task.cancelling() if task else 0
    found = await work
    if task and task.cancelling() > before_count:
        raise asyncio.CancelledError
    return found


class Line:
    """The connection to one endpoint or serial port, opened when first needed and after failures.

    Answers are the words as big-endian bytes, or the one byte of a Modbus exception.
    """

    def __init__(self, address: LineAddress) -> None:
        self.address = address
        self.users_count = 0
        self._client: Client | None = None
        self._lock = asyncio.Lock()
        self._urgent_count = 0
        self._limit: asyncio.Timeout | None = None
        self._is_urgent = False
        self._has_given_way = False
        self._quiet_until_s = 0.0
        self._name = f"{'rtu' if address.is_rtu else 'tcp'} {address.place}"

    async def read(
        self, block: Block, *, unit_id: int, until_s: float, is_urgent: bool = False
    ) -> bytes:
        """The words of a block, answered before `until_s` on the event loop's clock.

        Raises:
            TimeoutError: no answer.
            SensorBusy: others held the line, or an actuator took it.
            SensorGone: no connection, or an answer that is none.
        """

        async def ask(client: Client) -> ModbusPDU:
            read = (
                client.read_input_registers
                if block.function == _READ_INPUT
                else client.read_holding_registers
            )
            return await read(block.address, count=block.count, device_id=unit_id)

        def answer(reply: ModbusPDU) -> bytes:
            if reply.function_code != block.function or len(reply.registers) != block.count:
                raise SensorGone(
                    f"{self._name} unit {unit_id}: {len(reply.registers)} words of function "
                    f"{reply.function_code} came, not {block.count} of {block.function}",
                    fix="check the gateway; the connection is opened anew",
                )
            return struct.pack(f">{block.count}H", *reply.registers)

        return await self._exchange(ask, answer, until_s=until_s, is_urgent=is_urgent)

    async def write(
        self, address: int, words: Sequence[int], *, unit_id: int, until_s: float
    ) -> bytes:
        """Writes words at once, ahead of every sensor; no bytes, or those of an exception.

        Raises:
            TimeoutError: no answer.
            SensorBusy: another actuator held the line.
            SensorGone: no connection, or an answer that is none.
        """

        async def ask(client: Client) -> ModbusPDU:
            return await client.write_registers(address, list(words), device_id=unit_id)

        return await self._exchange(ask, lambda _: b"", until_s=until_s, is_urgent=True)

    def close(self) -> None:
        """Frees the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _exchange(
        self,
        ask: Callable[[Client], Awaitable[ModbusPDU]],
        answer: Callable[[ModbusPDU], bytes],
        *,
        until_s: float,
        is_urgent: bool,
    ) -> bytes:
        async with self._turn(until_s=until_s, is_urgent=is_urgent):
            is_clean = False
            try:
                async with asyncio.timeout_at(until_s) as self._limit:
                    client = await self._ready()
                    reply = await _heeding_cancellation(ask(client))
                data = bytes((reply.exception_code,)) if reply.isError() else answer(reply)
                is_clean = True
                return data
            except TimeoutError as error:
                raise self._reason() from error
            except ModbusException as error:
                raise SensorGone(f"{self._name}: {error}", fix="check the device") from error
            finally:
                self._rest(is_clean=is_clean)

    def _rest(self, *, is_clean: bool) -> None:
        """Ends an exchange: the line is quiet for a while, and closed if it may be out of step."""
        self._limit = None
        now_s = asyncio.get_running_loop().time()
        if self.address.serial:
            pause_s = silence_s(self.address.serial) if is_clean else REST_S
            self._quiet_until_s = now_s + pause_s
        if not is_clean:
            self.close()

    @asynccontextmanager
    async def _turn(self, *, until_s: float, is_urgent: bool) -> AsyncIterator[None]:
        """Holds the line for one request; those that are not urgent let the urgent pass."""
        try:
            async with asyncio.timeout_at(until_s):
                await (self._push_in() if is_urgent else self._queue_up())
        except TimeoutError as error:
            raise SensorBusy(f"{self._name}: others held the line for the whole time") from error
        self._is_urgent, self._has_given_way = is_urgent, False
        try:
            yield
        finally:
            self._lock.release()

    async def _push_in(self) -> None:
        self._urgent_count += 1
        try:
            if self._limit is not None and not self._is_urgent and not self._limit.expired():
                latest_s = asyncio.get_running_loop().time() + GIVE_WAY_S
                if latest_s < (self._limit.when() or latest_s):
                    self._has_given_way = True
                    self._limit.reschedule(latest_s)
            await self._lock.acquire()
        finally:
            self._urgent_count -= 1

    async def _queue_up(self) -> None:
        await self._lock.acquire()
        # The lock is fair: released, it goes to the next in the row, and in the end to the urgent.
        while self._urgent_count:
            self._lock.release()
            await self._lock.acquire()

    async def _ready(self) -> Client:
        """The connection, after the silence that a serial line needs."""
        left_s = self._quiet_until_s - asyncio.get_running_loop().time()
        if left_s > 0:
            await asyncio.sleep(left_s)
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        client = self._new_client()
        try:
            is_connected = await _heeding_cancellation(client.connect())
        except asyncio.CancelledError:
            client.close()
            raise
        except termios.error as error:
            reason = f"{self._name}: the port refuses baud, parity or stop bits ({error.args[-1]})"
            raise SensorGone(
                reason, fix="check them in the url, or take another adapter"
            ) from error
        if not is_connected:
            raise SensorGone(f"{self._name}: cannot connect", fix=self._cure())
        self._client = client
        return client

    def _new_client(self) -> Client:
        if self.address.serial is None:
            return AsyncModbusTcpClient(
                self.address.host,
                port=self.address.port,
                framer=FramerType.RTU if self.address.is_rtu else FramerType.SOCKET,
                timeout=_NEVER_S,
                retries=0,
                reconnect_delay=0,
                trace_connect=self._heard_of_connection,
            )
        return AsyncModbusSerialClient(
            self.address.place,
            baudrate=self.address.serial.baud,
            parity=self.address.serial.parity[0].upper(),
            stopbits=self.address.serial.stop,
            timeout=_NEVER_S,
            retries=0,
            reconnect_delay=0,
            trace_connect=self._heard_of_connection,
        )

    def _cure(self) -> str:
        if self.address.serial:
            return (
                f"check that {self.address.place} is there, that no other program holds it, and "
                "that the agent's user may open it: usermod -aG dialout heatpool"
            )
        host, port = self.address.host, self.address.port
        return f"check power, network and that {host} listens on port {port}"

    def _heard_of_connection(self, is_up: bool) -> None:  # noqa: FBT001 pymodbus calls it so
        """Ends the wait at once when the line drops; pymodbus would wait out its whole time."""
        if not is_up and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)

    def _reason(self) -> Exception:
        """Why the time was over before an answer came."""
        if self._client is None and not self._has_given_way:
            return SensorGone(f"{self._name}: cannot connect in time", fix=self._cure())
        if self._client is not None and not self._client.connected:
            kind = "Modbus RTU" if self.address.is_rtu else "Modbus TCP"
            return SensorGone(
                f"{self._name}: connection lost, or no readable answer on it",
                fix=f"check that the port speaks {kind} and that no other master holds it",
            )
        if self._has_given_way:
            return SensorBusy(f"{self._name}: gave way to an actuator")
        return TimeoutError()
