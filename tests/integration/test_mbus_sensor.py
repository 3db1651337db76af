"""The M-Bus driver against a hand-built meter behind a TCP gateway."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from turns import cancelled, turned

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.core.reading import ReadingKind
from heatpool_agent.ports import Roots, Sensor
from heatpool_agent.sensors import mbus

ACK = b"\xe5"
RESET, ASK = b"\x10\x40\x01\x41\x16", (b"\x10\x7b\x01\x7c\x16", b"\x10\x5b\x01\x5c\x16")
# 12345678, KAM, version 1, heat (outlet), access 1, status 4, no signature.
HEADER = bytes.fromhex("78563412 2d2c 01 04 01 04 0000")
# 98765432 Wh, 561.081 m3, 80000 W, 4600 L/h, 45.12 and 30.21 degC.
ENERGY = bytes.fromhex("0c03 32547698")
RECORDS = ENERGY + bytes.fromhex("0c13 81105600 0c2b 00000800 0b3b 004600 0a59 1245 0a5d 2130")
Answer = Callable[[bytes], bytes | None]


def _long(body: bytes, *, control: int = 0x08, address: int = 1) -> bytes:
    data = bytes((control, address)) + body
    size = len(data)
    return bytes((0x68, size, size, 0x68)) + data + bytes((sum(data) & 0xFF, 0x16))


def _telegram(records: bytes = RECORDS, *, header: bytes = HEADER, address: int = 1) -> bytes:
    return _long(b"\x72" + header + records, address=address)


class _Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    now_ns = 7

    def boot_ns(self) -> int:
        return self.now_ns


class _Gateway:
    """A TCP gateway with meters behind it: notes each request, answers what it is told to.

    `answer` gives the bytes for a request; None closes the connection, b"" stays silent.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.heard = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(ConnectionResetError):
            while request := await reader.read(300):
                self.asked.append(request)
                self.heard.set()
                if (reply := self.answer(request)) is None:
                    break
                writer.write(reply)
                await writer.drain()
        writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["_Gateway"]:
        async with await asyncio.start_server(self.talk, "127.0.0.1", self.port) as server:
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                self.drop()
                await asyncio.gather(*(w.wait_closed() for w in self._writers))

    def drop(self) -> None:
        """Closes every connection."""
        for writer in self._writers:
            writer.close()


def _meter(*telegrams: bytes) -> Answer:
    """Acknowledges resets; sends its telegrams in turn, the same again if FCB did not toggle."""
    state = {"at": -1, "fcb": 0}

    def answer(request: bytes) -> bytes:
        if request == RESET:
            state.update(at=-1, fcb=0)
            return ACK
        if request[1] != state["fcb"]:
            state.update(at=(state["at"] + 1) % len(telegrams), fcb=request[1])
        return telegrams[state["at"]]

    return answer


def _sensor(port: int, *, clock: _Clock | None = None, **more: Any) -> Any:
    tree = {"id": "meter", "kind": "mbus", "loop": "rack", "role": "billing", "address": 1}
    config = msgspec.convert(tree | {"url": f"tcp://127.0.0.1:{port}"} | more, mbus.Config)
    return mbus.open(config, Roots(), clock or _Clock())


async def _values(sensor: Sensor) -> dict[str, float]:
    return {reading.quantity: reading.value for reading in await sensor.read()}


async def test_a_meters_figures_arrive_in_our_units() -> None:
    async with _Gateway(_meter(_telegram())).serving() as line, _sensor(line.port) as sensor:
        values = await _values(sensor)
    assert values == pytest.approx(
        {
            "energy_wh": 98_765_432,
            "volume_m3": 561.081,
            "delivered_heat_w": 80_000,
            "volume_flow_m3_h": 4.6,
            "hot_c": 45.12,
            "cold_c": 30.21,
        }
    )


async def test_the_register_is_kept_as_the_meter_counts_it() -> None:
    async with _Gateway(_meter(_telegram())).serving() as line, _sensor(line.port) as sensor:
        energy, *_ = await sensor.read()
    assert (energy.quantity, energy.kind) == ("energy_wh", ReadingKind.COUNTER)
    assert (energy.raw, energy.exponent, energy.modulus) == (98_765_432, 0, 10**8)
    assert energy.meter_id == "KAM.12345678.1.4"
    assert (energy.sensor_side, energy.status_bits, energy.loop) == ("cold", 4, "rack")


async def test_the_link_is_reset_once_and_the_frame_count_bit_toggles() -> None:
    async with _Gateway(_meter(_telegram())).serving() as line, _sensor(line.port) as sensor:
        for _ in range(3):
            await sensor.read()
    assert line.asked == [RESET, ASK[0], ASK[1], ASK[0]]
    assert line.connections == 1


async def test_several_telegrams_are_one_reading() -> None:
    first = _telegram(ENERGY + b"\x1f")
    answer = _meter(first, _telegram(bytes.fromhex("0c2b 00000800")))
    async with _Gateway(answer).serving() as line, _sensor(line.port) as sensor:
        rows = [await _values(sensor) for _ in range(2)]
    assert rows == [{"energy_wh": 98_765_432, "delivered_heat_w": 80_000}] * 2


async def test_a_meter_that_never_ends_is_given_up() -> None:
    endless = _meter(_telegram(ENERGY + b"\x1f"))
    async with _Gateway(endless).serving() as line, _sensor(line.port) as sensor:
        with pytest.raises(SensorGone, match="more than 16 telegrams"):
            await sensor.read()
    assert len(line.asked) == 17


async def test_a_frame_may_come_in_pieces() -> None:
    whole = _telegram()

    async def crumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pieces in ((ACK,), (whole[:1], whole[1:9], whole[9:])):
            await reader.read(5)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                # Let the other end see each piece by itself.
                await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(crumble, "127.0.0.1", 0) as server:
        async with _sensor(server.sockets[0].getsockname()[1]) as sensor:
            assert (await _values(sensor))["hot_c"] == 45.12


def _broken(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes((frame[at] ^ 0xFF,)) + frame[at + 1 :]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(_broken(_telegram(), -2 % len(_telegram())), "checksum", id="checksum"),
        pytest.param(_broken(_telegram(), 30), "checksum", id="two meters at once"),
        pytest.param(_telegram()[:-5], "no whole answer in 1 s", id="cut short"),
        pytest.param(b"", "no whole answer in 1 s", id="silent"),
        pytest.param(b"HTTP/1.1 400", "starts no M-Bus frame", id="speaks HTTP"),
        pytest.param(ACK, "carries no data", id="acknowledges only"),
        pytest.param(_telegram(address=5), "address 5 answered", id="other meter"),
        pytest.param(_telegram() + ACK, "bytes after", id="more than asked"),
        pytest.param(None, "closed the connection", id="hangs up"),
        pytest.param(_telegram(b"\x0c"), "before a VIF", id="torn record"),
        pytest.param(_long(b"\x70\x05"), "more than 10 DIFEs", id="application error"),
    ],
)
async def test_a_broken_answer_is_told_and_the_next_good_one_counts(
    reply: bytes | None, reason: str
) -> None:
    replies: list[bytes | None] = [ACK, reply, ACK, _telegram()]
    async with _Gateway(lambda _: replies.pop(0)).serving() as line:
        async with _sensor(line.port, timeout_s=1.0) as sensor:
            with pytest.raises(SensorGone, match=re.escape(reason)) as caught:
                await sensor.read()
            assert caught.value.fix
            assert (await _values(sensor))["hot_c"] == 45.12
    assert line.asked[2:] == [RESET, ASK[0]]


async def test_silence_is_told_before_a_caller_with_the_same_patience_gives_up() -> None:
    replies = [ACK, b""]
    async with _Gateway(lambda _: replies.pop(0)).serving() as line:
        # As the supervisor does, which would tell the time alone. A twentieth of it lies between.
        async with _sensor(line.port, timeout_s=4.0) as sensor:
            with pytest.raises(SensorGone, match="no whole answer in 4 s"):
                async with asyncio.timeout(4.0):
                    await sensor.read()


async def test_a_meter_that_does_not_acknowledge_is_told() -> None:
    async with _Gateway(lambda _: _telegram()).serving() as line, _sensor(line.port) as sensor:
        with pytest.raises(SensorGone, match="where E5 should acknowledge"):
            await sensor.read()


@pytest.mark.parametrize(("code", "wait_s"), [(8, 0.0), (9, 86_400.0)])
async def test_a_meter_may_ask_for_patience(code: int, wait_s: float) -> None:
    replies = [ACK, _long(bytes((0x70, code))), ACK, _telegram()]
    clock = _Clock()
    async with _Gateway(lambda _: replies.pop(0)).serving() as line:
        async with _sensor(line.port, clock=clock) as sensor:
            with pytest.raises(SensorBusy) as caught:
                await sensor.read()
            assert caught.value.wait_s == wait_s
            clock.now_ns += round(wait_s * 1e9)
            assert (await _values(sensor))["hot_c"] == 45.12
    assert line.connections == 1


async def test_a_water_meter_is_not_called_a_heat_meter() -> None:
    water = _telegram(header=HEADER[:7] + b"\x07" + HEADER[8:])
    async with _Gateway(_meter(water)).serving() as line, _sensor(line.port) as sensor:
        with pytest.raises(SensorGone, match="is a meter of water, not of heat"):
            await sensor.probe()


async def test_a_read_is_cancelled_at_once_and_the_next_one_works() -> None:
    replies = [ACK, b"", ACK, _telegram()]
    async with _Gateway(lambda _: replies.pop(0)).serving() as line:
        async with _sensor(line.port) as sensor:
            task = asyncio.create_task(sensor.read())
            while len(line.asked) < 2:
                line.heard.clear()
                await line.heard.wait()
            await cancelled(task)
            assert (await _values(sensor))["hot_c"] == 45.12


async def test_a_pulled_plug_is_told_and_the_meter_found_again() -> None:
    gateway = _Gateway(_meter(_telegram()))
    plug = gateway.serving()
    await plug.__aenter__()
    async with _sensor(gateway.port) as sensor:
        await sensor.read()
        await plug.__aexit__(None, None, None)
        with pytest.raises(SensorGone):
            await sensor.read()
        async with gateway.serving():
            assert (await _values(sensor))["hot_c"] == 45.12


async def test_a_line_that_the_gateway_closed_while_idle_is_opened_again() -> None:
    async with _Gateway(_meter(_telegram())).serving() as line, _sensor(line.port) as sensor:
        await sensor.read()
        line.drop()
        # The end of the line has to travel through the kernel before it can be seen.
        await turned(0.1)
        assert (await _values(sensor))["hot_c"] == 45.12
    assert line.connections == 2


async def test_nobody_there_is_told_with_a_cure() -> None:
    async with _Gateway(_meter(_telegram())).serving() as line:
        pass
    async with _sensor(line.port) as sensor:
        with pytest.raises(SensorGone, match=r"refused|Connect call failed") as caught:
            await sensor.read()
    assert "gateway" in caught.value.fix


async def test_meters_on_one_gateway_share_its_line_and_take_turns() -> None:
    def both(request: bytes) -> bytes:
        return ACK if request[1] == 0x40 else _telegram(address=request[2])

    async with _Gateway(both).serving() as line:
        async with _sensor(line.port) as one, _sensor(line.port, id="two", address=2) as two:
            rows = await asyncio.gather(*(sensor.read() for sensor in [one, two] * 5))
            await one.close()
            assert len(await two.read()) == 6
    assert [len(row) for row in rows] == [6] * 10
    assert line.connections == 1


async def test_closing_twice_is_closing() -> None:
    async with _Gateway(_meter(_telegram())).serving() as line, _sensor(line.port) as sensor:
        await sensor.read()
        await sensor.close()
        await sensor.close()


@pytest.mark.parametrize(
    "change", [{"address": 251}, {"url": "serial:/dev/tty?parity=N"}, {"url": "tcp://host"}]
)
def test_a_setting_that_names_no_meter_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _sensor(1, **change)


async def test_a_port_beyond_the_last_is_refused() -> None:
    with pytest.raises(ConfigError, match="99999"):
        async with _sensor(1, url="tcp://127.0.0.1:99999"):
            pass


@pytest.mark.realdata
async def test_a_captured_multical_telegram_is_read_over_the_line(realdata: Path) -> None:
    folder = realdata / "03_mbus" / "libmbus" / "test-frames"
    frame = bytes.fromhex((folder / "kamstrup_multical_601.hex").read_text())
    address = frame[5]
    reset = bytes((0x10, 0x40, address, (0x40 + address) & 0xFF, 0x16))

    async with _Gateway(lambda r: ACK if r == reset else frame).serving() as line:
        async with _sensor(line.port, address=address) as sensor:
            values = await _values(sensor)
    assert values["energy_wh"] == 37_351_000
    assert values["volume_m3"] == pytest.approx(561.08)
    assert values["delivered_heat_w"] == pytest.approx(34_700)
    assert (values["hot_c"], values["cold_c"]) == pytest.approx((101.69, 46.16))
