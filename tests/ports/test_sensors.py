"""What every sensor driver on a network owes to the port, whatever it speaks."""

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from heatpool.errors import SensorError, SensorGone
from heatpool.units import SUFFIXES
from heatpool_agent import sensors
from heatpool_agent.core.reading import ReadingKind
from heatpool_agent.ports import Roots

EVENT_NS, BOOT_NS = 1_750_000_000_000_000_000, 7


class _Clock:
    def event_ns(self) -> int:
        return EVENT_NS

    def boot_ns(self) -> int:
        return BOOT_NS


def _unit(request: bytes) -> bytes:
    """A coolant unit's answer to one Modbus TCP request for its twelve input words."""
    words = struct.pack(">IhhHHiHHI", 5123, 3021, 4512, 655, 1000, 87654, 9, 0xFFFF, 91000)
    return request[:4] + b"\x00\x1b" + request[6:8] + b"\x18" + words


def _meter(request: bytes) -> bytes:
    """A heat meter's answer to a link reset or to a request for data."""
    if request[1] == 0x40:
        return b"\xe5"
    header = bytes.fromhex("0801 72 78563412 2d2c 01 04 01 00 0000")
    data = header + bytes.fromhex("0c03 32547698 0a59 1245 0a5d 2130")
    return bytes((0x68, len(data), len(data), 0x68)) + data + bytes((sum(data) & 0xFF, 0x16))


@dataclass
class _Peer:
    """A device on loopback whose answers can be replaced while it runs."""

    answer: Callable[[bytes], bytes]
    settings: dict[str, Any]
    port: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self.good = self.answer
        self.heard = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(ConnectionResetError):
            while request := await reader.read(300):
                writer.write(self.answer(request))
                await writer.drain()
                self.heard.set()
        writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self.talk, "127.0.0.1", self.port) as server:
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield
            finally:
                for writer in self._writers:
                    writer.close()
                await asyncio.gather(*(w.wait_closed() for w in self._writers))

    def open(self, **more: Any) -> Any:
        """The driver of this device, found as the agent finds it."""
        module: Any = sensors.driver(self.settings["kind"])
        tree = {"id": "s", "url": f"tcp://127.0.0.1:{self.port}"} | self.settings | more
        return module.open(msgspec.convert(tree, module.Config), Roots(), _Clock())


@pytest.fixture(params=["modbus", "mbus"])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[_Peer]:
    devices = {
        "modbus": _Peer(_unit, {"kind": "modbus", "map": "generic-cdu"}),
        "mbus": _Peer(_meter, {"kind": "mbus", "address": 1}),
    }
    device = devices[request.param]
    async with device.serving():
        yield device


async def test_opening_touches_no_device(peer: _Peer) -> None:
    async with peer.open():
        pass
    assert peer.connections == 0


async def test_readings_are_numbers_with_a_unit_a_channel_and_our_time(peer: _Peer) -> None:
    async with peer.open(loop="rack") as sensor:
        readings = await sensor.read()
    measured = [r for r in readings if r.kind is not ReadingKind.STATE]
    assert measured
    assert all(r.quantity.endswith(SUFFIXES) for r in measured)
    assert all(math.isfinite(r.value) for r in readings)
    assert len({r.channel for r in readings}) == len(readings)
    assert {(r.sensor, r.loop, r.event_ns, r.boot_ns) for r in readings} == {
        ("s", "rack", EVENT_NS, BOOT_NS)
    }


async def test_probing_tells_the_channels_that_reading_gives(peer: _Peer) -> None:
    async with peer.open() as sensor:
        first, second = await sensor.probe(), await sensor.probe()
        readings = await sensor.read()
    assert list(first) == list(second) == [r.channel for r in readings]


async def test_a_cancelled_read_ends_at_once_and_harms_no_later_one(peer: _Peer) -> None:
    async with peer.open() as sensor:
        peer.answer = lambda _: b""
        task = asyncio.create_task(sensor.read())
        await peer.heard.wait()
        begun = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - begun < 0.5
        peer.answer = peer.good
        assert await sensor.read()


async def test_silence_is_gone_after_the_timeout_and_back_when_it_ends(peer: _Peer) -> None:
    async with peer.open(timeout_s=0.1) as sensor:
        peer.answer = lambda _: b""
        with pytest.raises(SensorGone, match=r"0\.1 s") as caught:
            await sensor.read()
        assert caught.value.fix
        peer.answer = peer.good
        assert await sensor.read()


@pytest.mark.parametrize(
    "garbage", [b"\x00", b"\xff" * 600, b"\x68\x68\x68\x68", bytes(range(256)), b"\r\nlogin: "]
)
async def test_garbage_is_refused_and_the_next_answer_counts(peer: _Peer, garbage: bytes) -> None:
    async with peer.open(timeout_s=0.1) as sensor:
        await sensor.read()
        peer.answer = lambda _: garbage
        with pytest.raises(SensorError):
            await sensor.read()
        peer.answer = peer.good
        assert await sensor.read()


async def test_a_device_that_left_is_told_with_a_cure(peer: _Peer) -> None:
    away = _Peer(peer.good, peer.settings)
    async with away.serving():
        pass
    async with away.open() as sensor:
        with pytest.raises(SensorGone) as caught:
            await sensor.probe()
        assert caught.value.fix
        async with away.serving():
            assert await sensor.probe()


async def test_two_copies_at_once_read_the_same(peer: _Peer) -> None:
    async with peer.open() as one, peer.open() as two:
        rows = await asyncio.gather(*(sensor.read() for sensor in [one, two] * 3))
    assert [[r.value for r in row] for row in rows] == [[r.value for r in rows[0]]] * 6


async def test_closing_twice_is_closing(peer: _Peer) -> None:
    async with peer.open() as sensor:
        await sensor.read()
        await sensor.close()
        await sensor.close()
