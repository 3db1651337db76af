"""What a map says of its points: torn numbers, circuits, the meter's number, tapes, faults."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ports.benches.modbus import Plant

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone, WireError
from heatpool_agent.core.device_map import Block
from heatpool_agent.core.likely_order import likely_word_order
from heatpool_agent.core.reading import Reading
from heatpool_agent.fieldbus.maps import read_map
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import modbus
from heatpool_sim.devices.modbus_cdu import ModbusCdu

ENERGY = (
    '[[point]]\nquantity = "energy"\nfunction = 4\naddress = 0\ntype = "uint32"\nunit = "kWh"\n'
    'kind = "counter"\n'
)
POWER = '[[point]]\nquantity = "power"\nfunction = 4\naddress = 2\ntype = "int32"\nunit = "W"\n'
NUMBER = '[[point]]\nquantity = "meter_number"\nfunction = 4\naddress = 4\ntype = "uint32"\n'
PLATE = (
    '[[point]]\nquantity = "meter_number"\nfunction = 4\naddress = 4\ntype = "uint16"\n'
    "text_words = 3\n"
)


class _Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return 7


@dataclass
class _Tape:
    """Keeps every exchange, as the agent's recorder does, and plays it back."""

    kept: list[tuple[str, bytes]] = field(default_factory=list)
    is_playing: bool = False

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if self.is_playing:
            wanted, answer = self.kept.pop(0)
            if wanted != request:
                raise WireError(f"{request!r} was asked, {wanted!r} is on the tape")
            return answer
        answer = await ask()
        self.kept.append((request, hide(answer) if hide else answer))
        return answer

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        return see()


@asynccontextmanager
async def _words(answers: Sequence[Sequence[int]]) -> AsyncIterator[str]:
    """A meter whose input words at each request are the next of `answers`, the last for ever."""
    left, over = list(answers), list[asyncio.Future[None]]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.get_running_loop().create_future())
        while request := await reader.read(300):
            words = left.pop(0) if len(left) > 1 else left[0]
            at, count = struct.unpack(">HH", request[8:12])
            data = struct.pack(f">{count}H", *words[at : at + count])
            head = request[:4] + (3 + len(data)).to_bytes(2, "big") + request[6:8]
            writer.write(head + bytes((len(data),)) + data)
        writer.close()
        over[-1].set_result(None)

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*over)


def _map(folder: Path, *points: str, head: str = "") -> str:
    path = folder / "mine.toml"
    path.write_text(f'name = "mine"\nverified = "sim"\n{head}\n{"".join(points)}', encoding="utf-8")
    return str(path)


def _sensor(url: str, map_name: str, *, roots: Roots | None = None, **more: Any) -> Any:
    tree = {"id": "m", "kind": "modbus", "map": map_name, "url": url, "loop": "rack"} | more
    return modbus.open(msgspec.convert(tree, modbus.Config), roots or Roots(), _Clock())


async def _seen(sensor: Any) -> dict[str, Reading]:
    return {reading.quantity: reading for reading in await sensor.read()}


OLD, NEW, TORN_UP, TORN_DOWN = [1, 0xFFFF], [2, 0x0000], [2, 0xFFFF], [1, 0x0000]


@pytest.mark.parametrize(
    ("looks", "count"),
    [
        pytest.param([OLD, OLD], 0x1FFFF, id="stands still"),
        pytest.param([OLD, NEW], 0x20000, id="a true step over the lower word"),
        pytest.param([TORN_DOWN, NEW], 0x20000, id="first torn down"),
        pytest.param([OLD, TORN_UP, NEW], 0x20000, id="second torn up"),
        pytest.param([TORN_UP, NEW, NEW], 0x20000, id="first torn up"),
        pytest.param([OLD, TORN_DOWN, NEW], 0x20000, id="second torn down"),
        pytest.param([[1, 0], [2, 0x4000], [3, 0x8000]], 0x38000, id="quick and even"),
        pytest.param([[0, 0], [9, 9], [3, 3]], None, id="neither rises nor stands"),
    ],
)
async def test_a_torn_count_is_never_taken(
    tmp_path: Path, looks: list[list[int]], count: int | None
) -> None:
    own = _map(tmp_path, ENERGY)
    async with _words(looks) as url, _sensor(url, own) as sensor:
        seen = await _seen(sensor)
    assert (seen["energy_wh"].raw if seen else None) == count


@pytest.mark.parametrize(
    ("torn", "asked"),
    [
        ("counters", ["at 0 count 4", "at 0 count 2"]),
        ("reread", ["at 0 count 4", "at 0 count 4"]),
        ("never", ["at 0 count 4"]),
    ],
)
async def test_a_second_look_is_paid_for_by_what_can_tear(
    tmp_path: Path, torn: str, asked: list[str]
) -> None:
    tape = _Tape()
    own = _map(tmp_path, ENERGY, POWER, head=f'torn = "{torn}"')
    async with _words([[0, 7, 0, 500]]) as url, _sensor(url, own, roots=Roots(tape=tape)) as sensor:
        assert set(await _seen(sensor)) == {"energy_wh", "power_w"}
    assert [request.removeprefix("unit 1 fn 4 ") for request, _ in tape.kept] == asked


async def test_a_number_that_never_settles_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looks = [[n, 0, 0, 1] for n in (9, 1, 7, 3, 8, 2)]
    async with _words(looks) as url, _sensor(url, _map(tmp_path, ENERGY, POWER)) as sensor:
        rows = [await _seen(sensor) for _ in range(2)]
    assert [set(row) for row in rows] == [{"power_w"}] * 2
    assert [record.getMessage() for record in caplog.records] == ["modbus.torn"]


@pytest.mark.parametrize(("torn", "spurious_count"), [("reread", 0), ("never", 2)])
async def test_a_unit_that_tears_pairs_is_read_right_with_second_looks(
    tmp_path: Path, torn: str, spurious_count: int
) -> None:
    plant: Any = Plant()
    plant.faults = frozenset({"torn_pair"})
    volume_flow = (
        '[[point]]\nquantity = "volume_flow"\nfunction = 4\naddress = 0\ntype = "uint32"\n'
        'scale = 0.001\nunit = "m3/h"\n'
    )
    own = _map(tmp_path, volume_flow, head=f'torn = "{torn}"')
    async with ModbusCdu().serve(plant) as address, _sensor(address.url, own) as sensor:
        rows = [await _seen(sensor) for _ in range(6)]
    values = [row["volume_flow_m3_h"].value for row in rows]
    assert sum(value != 5.123 for value in values) == spurious_count


async def test_a_unit_with_swapped_words_shows_its_order() -> None:
    plant: Any = Plant()
    plant.faults = frozenset({"swapped_words"})
    tape = _Tape()
    roots = Roots(tape=tape)
    async with (
        ModbusCdu().serve(plant) as address,
        _sensor(address.url, "generic-cdu", roots=roots) as sensor,
    ):
        seen = await _seen(sensor)
    words = struct.unpack(">12H", tape.kept[0][1])
    assert seen["volume_flow_m3_h"].value > 1e5
    assert likely_word_order(read_map("generic-cdu"), {Block(4, 0, 12): words}) == "CDAB"


async def test_an_address_base_off_by_one_shows_in_the_values() -> None:
    plant: Any = Plant()
    plant.faults = frozenset({"off_by_one"})
    async with (
        ModbusCdu().serve(plant) as address,
        _sensor(address.url, "generic-cdu") as sensor,
    ):
        seen = await _seen(sensor)
    assert (seen["hot_c"].value, seen["pump_frac"].value) == (30.21, 4.512)


async def test_a_map_that_counts_from_one_too_few_misses_its_last_word(tmp_path: Path) -> None:
    last = '[[point]]\nquantity = "beyond"\nfunction = 4\naddress = 12\ntype = "uint16"\n'
    first = '[[point]]\nquantity = "here"\nfunction = 4\naddress = 11\ntype = "uint16"\n'
    async with (
        ModbusCdu().serve(Plant()) as address,  # type: ignore[arg-type]  # what a unit shows
        _sensor(address.url, _map(tmp_path, first, last)) as sensor,
    ):
        assert set(await _seen(sensor)) == {"here"}
        assert sensor.missing == ("beyond",)


@pytest.mark.parametrize(
    ("fault", "error"), [("busy", SensorBusy), ("cdu_offline", SensorGone), ("offline", SensorGone)]
)
async def test_a_units_fault_is_told_and_it_comes_back(
    fault: str, error: type[SensorError]
) -> None:
    plant: Any = Plant()
    async with (
        ModbusCdu().serve(plant) as address,
        _sensor(address.url, "generic-cdu", timeout_s=3.0) as sensor,
    ):
        plant.faults = frozenset({fault})
        with pytest.raises(error):
            await sensor.read()
        plant.faults = frozenset()
        assert (await _seen(sensor))["hot_c"].value == 45.12


async def test_a_meter_that_tells_its_number_can_be_billed_by(tmp_path: Path) -> None:
    words = [0, 5, 0, 1, 188, 24910]
    own = _map(tmp_path, ENERGY, POWER, NUMBER)
    async with _words([words]) as url, _sensor(url, own, role="billing") as sensor:
        seen = await _seen(sensor)
    assert set(seen) == {"energy_wh", "power_w"}
    assert (seen["energy_wh"].meter_id, seen["energy_wh"].generation) == ("12345678",) * 2


async def test_a_plate_of_letters_names_the_meter(tmp_path: Path) -> None:
    words = [0, 5, 0, 1, *struct.unpack(">3H", b"SDZ-6\0")]
    async with _words([words]) as url, _sensor(url, _map(tmp_path, ENERGY, PLATE)) as sensor:
        assert (await _seen(sensor))["energy_wh"].meter_id == "SDZ-6"


async def test_a_meter_that_hides_its_number_this_time_has_no_register_to_show(
    tmp_path: Path,
) -> None:
    own = _map(tmp_path, ENERGY, POWER, NUMBER)
    async with _words([[0, 5, 0, 1, 0, 0]]) as url, _sensor(url, own) as sensor:
        assert set(await _seen(sensor)) == {"power_w"}


async def test_a_name_in_the_settings_never_stands_in_for_a_plate(tmp_path: Path) -> None:
    """Between two names of one meter the books would see an exchange that never was."""
    own = _map(tmp_path, ENERGY, POWER, NUMBER)
    async with _words([[0, 5, 0, 1, 0, 0]]) as url, _sensor(url, own, meter_id="X7") as sensor:
        assert set(await _seen(sensor)) == {"power_w"}


@pytest.mark.parametrize(
    ("points", "more", "told"),
    [
        ([ENERGY], {}, "meter_id: is missing; mine does not tell"),
        ([POWER], {"meter_id": "X7"}, 'needs one counter "energy"; mine has none'),
    ],
)
async def test_billing_needs_one_register_and_the_meters_name(
    tmp_path: Path, points: list[str], more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        async with _sensor("tcp://h:1", _map(tmp_path, *points), role="billing", **more):
            pass


async def test_each_side_of_an_exchanger_warms_its_own_loop(tmp_path: Path) -> None:
    points = [
        f'[[point]]\nquantity = "temperature"\npipe = "hot"\nfunction = 4\naddress = {at}\n'
        f'type = "int16"\nscale = 0.1\nunit = "degC"\ncircuit = "{circuit}"\n'
        for at, circuit in enumerate(("primary", "secondary"))
    ]
    own = _map(tmp_path, *points)
    async with _words([[300, 450]]) as url, _sensor(url, own, primary_loop="site") as sensor:
        rows = await sensor.read()
    assert [(r.quantity, r.value, r.loop) for r in rows] == [
        ("hot_c", 30.0, "site"),
        ("hot_c", 45.0, "rack"),
    ]


async def test_a_tape_plays_without_a_device_and_holds_no_meters_number(tmp_path: Path) -> None:
    tape = _Tape()
    own = _map(tmp_path, ENERGY, NUMBER)
    words = [0, 5, 0, 1, 188, 24910]
    async with _words([words]) as url, _sensor(url, own, roots=Roots(tape=tape)) as sensor:
        live = await _seen(sensor)
    assert [request for request, _ in tape.kept] == [
        "unit 1 fn 4 at 0 count 6",
        "unit 1 fn 4 at 0 count 2",
    ]
    assert struct.pack(">2H", 188, 24910) not in tape.kept[0][1]
    played = _Tape(tape.kept, is_playing=True)
    async with _sensor("tcp://127.0.0.1:1", own, roots=Roots(tape=played)) as sensor:
        again = await _seen(sensor)
    assert again["energy_wh"].raw == live["energy_wh"].raw == 5
    assert again["energy_wh"].meter_id not in ("", live["energy_wh"].meter_id)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"\x06", SensorBusy),
        (b"\x0b", SensorBusy),
        (b"\x05", SensorBusy),
        (b"\x04", SensorGone),
        (b"\x02", SensorGone),
        (b"", SensorGone),
        (b"\0\0\0", SensorGone),
        (bytes(26), SensorGone),
    ],
)
async def test_an_answer_on_the_tape_means_what_it_meant_live(
    answer: bytes, error: type[SensorError]
) -> None:
    tape = _Tape([("unit 1 fn 4 at 0 count 12", answer)], is_playing=True)

    class _Loose(_Tape):
        async def exchange(self, request: str, ask: Any, *, hide: Any = None) -> bytes:
            return answer

    roots = Roots(tape=_Loose(tape.kept, is_playing=True))
    async with _sensor("tcp://127.0.0.1:1", "generic-cdu", roots=roots) as sensor:
        with pytest.raises(error):
            await sensor.read()


@pytest.mark.parametrize("scheme", ["tcp", "rtu+tcp"])
@given(answers=st.lists(st.binary(max_size=300), min_size=1, max_size=3), is_cut=st.booleans())
@settings(max_examples=50, deadline=None)
def test_any_bytes_on_the_socket_are_an_answer_or_refused(
    *, scheme: str, answers: list[bytes], is_cut: bool
) -> None:
    asyncio.run(_read_from(scheme, answers, is_cut=is_cut))


async def _read_from(scheme: str, answers: list[bytes], *, is_cut: bool) -> None:
    """Reads thrice from a peer that says these bytes, alone or behind the header of an answer."""
    over: list[asyncio.Future[None]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.get_running_loop().create_future()
        over.append(own)
        with suppress(OSError):
            while request := await reader.read(300):
                data = answers[len(over) % len(answers)]
                head = request[:4] + (2 + len(data)).to_bytes(2, "big") + request[6:8]
                writer.write(data if is_cut else head + data)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        own.set_result(None)

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with _sensor(url, "generic-cdu", timeout_s=0.02) as sensor:
            for _ in range(3):
                with suppress(SensorError):
                    await sensor.read()
        await asyncio.gather(*over)
