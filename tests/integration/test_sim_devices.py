"""Simulated devices on loopback, read by clients that are not ours."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from heatpool.errors import ConfigError
from heatpool_agent.core import mbus
from heatpool_agent.core.mbus_frames import SELECTED, select_frame
from heatpool_sim import app, scenario
from heatpool_sim.app import Fleet, SiteDoor
from heatpool_sim.plant.control import Mode

SITE = "s02"
READ = bytes([0x10, 0x5B, 0x01, 0x5C, 0x16])
RESET = bytes([0x10, 0x40, 0x01, 0x41, 0x16])


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    demo = scenario.load("demo")
    two = replace(demo, sites=demo.sites[:2], step_s=0.05)
    async with app.serve(two) as served:
        yield served


@pytest.fixture
async def cdu(fleet: Fleet) -> AsyncIterator[AsyncModbusTcpClient]:
    where = fleet.doors[SITE].cdu
    client = AsyncModbusTcpClient(where.host, port=where.port, timeout=30, retries=0)
    assert await client.connect()
    yield client
    client.close()


async def ask(door: SiteDoor, request: bytes, *, wait_s: float = 30.0) -> bytes:
    """What the meter answers within `wait_s`; nothing if it is silent."""
    reader, writer = await asyncio.open_connection(door.meter.host, door.meter.port)
    try:
        writer.write(request)
        async with asyncio.timeout(wait_s):
            return await reader.read(300)
    except TimeoutError:
        return b""
    finally:
        writer.close()


async def test_a_modbus_client_reads_the_plant(cdu: AsyncModbusTcpClient, fleet: Fleet) -> None:
    cells = (await cdu.read_input_registers(0, count=12, device_id=1)).registers
    state = fleet.doors[SITE].running.state
    assert (cells[0] << 16 | cells[1]) * 0.001 == pytest.approx(
        state.loop.volume_flow_m3_h, rel=0.03
    )
    assert cells[2] * 0.01 == pytest.approx(state.loop.cold_c, abs=0.2)
    assert cells[3] * 0.01 == pytest.approx(state.loop.hot_c, abs=0.2)
    assert (cells[6] << 16 | cells[7]) == pytest.approx(state.carried_w, rel=0.08)
    assert cells[8] & 0b0001
    assert cells[9] == 0xFFFF
    assert (cells[10] << 16 | cells[11]) == pytest.approx(state.electric_w, rel=0.08)


async def test_a_written_block_reads_back_and_takes_control(
    cdu: AsyncModbusTcpClient, fleet: Fleet
) -> None:
    await cdu.write_registers(0, [0, 12_000, 30, 1], device_id=1)
    cells = (await cdu.read_holding_registers(0, count=4, device_id=1)).registers
    status = (await cdu.read_input_registers(8, count=1, device_id=1)).registers[0]
    assert cells == [0, 12_000, 30, 1]
    assert status & 0b1000
    assert fleet.doors[SITE].running.state.control.mode is Mode.REMOTE


async def test_one_cell_may_be_written_alone(cdu: AsyncModbusTcpClient, fleet: Fleet) -> None:
    await cdu.write_register(3, 0, device_id=1)
    assert fleet.doors[SITE].running.state.control.mode is Mode.LOCAL


async def test_the_watchdog_of_the_unit_runs_on_its_own(
    cdu: AsyncModbusTcpClient, fleet: Fleet
) -> None:
    await cdu.write_registers(0, [0, 12_000, 1, 1], device_id=1)
    async with asyncio.timeout(60):
        while not fleet.doors[SITE].running.gauges().is_expired:  # noqa: ASYNC110  # real clock
            await asyncio.sleep(0.02)
    cells = (await cdu.read_holding_registers(0, count=4, device_id=1)).registers
    status = (await cdu.read_input_registers(8, count=1, device_id=1)).registers[0]
    assert cells[3] == Mode.LOCAL
    assert status & 0b0100


@pytest.mark.parametrize(("address", "values"), [(3, [7]), (2, [1, 2, 3])])
async def test_a_write_outside_the_manual_gets_an_exception(
    cdu: AsyncModbusTcpClient, address: int, values: list[int]
) -> None:
    assert (await cdu.write_registers(address, values, device_id=1)).isError()


async def test_a_busy_unit_answers_with_the_exception_for_it(
    cdu: AsyncModbusTcpClient, fleet: Fleet
) -> None:
    fleet.inject(SITE, "busy")
    answer = await cdu.read_input_registers(0, count=12, device_id=1)
    assert answer.exception_code == 6
    fleet.clear(SITE, "busy")
    assert not (await cdu.read_input_registers(0, count=12, device_id=1)).isError()


async def test_a_meter_acknowledges_a_reset(fleet: Fleet) -> None:
    assert await ask(fleet.doors[SITE], RESET) == b"\xe5"


async def test_a_meter_answers_with_a_long_frame_of_its_registers(fleet: Fleet) -> None:
    door = fleet.doors[SITE]
    frame = await ask(door, READ)
    body = frame[4:-2]
    meter, state = door.running.meter()
    assert frame[0] == frame[3] == 0x68
    assert frame[1] == frame[2] == len(body)
    assert frame[-2:] == bytes([sum(body) % 256, 0x16])
    assert body[:3] == bytes([0x08, 0x01, 0x72])
    assert body[3:7][::-1].hex() == f"{meter.number:08d}"
    assert body[7:9] == bytes([0x13, 0x22])  # "HPS": 8 * 1024 + 16 * 32 + 19
    assert body[9:11] == bytes([meter.version, 0x04])
    assert body[12] == 0x00
    assert body[15:17] == bytes([0x0C, 0x03])
    assert int(body[17:21][::-1].hex()) == pytest.approx(state.register_wh, abs=5)
    assert body[21:23] == bytes([0x0C, 0x13])
    assert [body[at : at + 2].hex() for at in (27, 33, 39, 43)] == ["0c2b", "0c3b", "0259", "025d"]
    assert int.from_bytes(body[41:43], "little") * 0.01 == pytest.approx(state.hot_c, abs=0.1)


async def test_the_agent_reads_the_same_figures_from_the_frame(fleet: Fleet) -> None:
    door = fleet.doors[SITE]
    telegram = mbus.decode(await ask(door, READ))
    seen = mbus.heat_view(telegram)
    _, state = door.running.meter()
    assert seen.energy_wh == pytest.approx(state.register_wh, abs=5)
    assert seen.hot_c == pytest.approx(state.hot_c, abs=0.1)
    assert seen.cold_c == pytest.approx(state.cold_c, abs=0.1)
    assert (seen.modulus_wh, seen.sensor_side, seen.flags) == (10**8, "cold", ())


async def test_a_meter_repeats_its_telegram_until_the_frame_count_bit_turns(fleet: Fleet) -> None:
    where = fleet.doors[SITE].meter
    reader, writer = await asyncio.open_connection(where.host, where.port)
    accesses = []
    for is_set in (True, True, False, True):
        writer.write(mbus.request_frame(1, fcb=is_set))
        async with asyncio.timeout(60):
            header = mbus.decode(await reader.read(300)).header
        assert header is not None
        accesses.append(header.access)
    writer.close()
    assert [access - accesses[0] for access in accesses] == [0, 0, 1, 2]


async def test_a_meter_answers_to_its_number_when_it_is_selected(fleet: Fleet) -> None:
    door = fleet.doors[SITE]
    number = bytes.fromhex(f"{door.running.meter()[0].number:08d}")[::-1]
    reader, writer = await asyncio.open_connection(door.meter.host, door.meter.port)
    said = []
    for frame in (
        select_frame(number + b"\xff" * 4),
        mbus.request_frame(SELECTED, fcb=True),
        mbus.reset_frame(SELECTED),
    ):
        writer.write(frame)
        async with asyncio.timeout(60):
            said.append(await reader.read(300))
    writer.close()
    assert (said[0], said[1][7:11], said[2]) == (b"\xe5", number, b"\xe5")


@pytest.mark.parametrize("request_", [b"\x10\x5b\x02\x5d\x16", b"\x10\x5b\x01\x5d\x16", b"hello"])
async def test_a_meter_is_silent_to_what_is_not_for_it(fleet: Fleet, request_: bytes) -> None:
    assert await ask(fleet.doors[SITE], request_, wait_s=0.15) == b""


async def test_a_request_in_pieces_after_noise_is_answered(fleet: Fleet) -> None:
    where = fleet.doors[SITE].meter
    reader, writer = await asyncio.open_connection(where.host, where.port)
    for piece in (b"\xff\x68\x00", READ[:2], READ[2:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)  # each piece in a segment of its own
    async with asyncio.timeout(60):
        assert (await reader.read(1)) == b"\x68"
    writer.close()


async def test_several_masters_are_answered_at_once(fleet: Fleet) -> None:
    frames = await asyncio.gather(*(ask(fleet.doors[SITE], READ) for _ in range(8)))
    assert {frame[0] for frame in frames} == {0x68}


async def test_a_meter_with_a_wrong_checksum_is_caught(fleet: Fleet) -> None:
    fleet.inject(SITE, "checksum_wrong")
    frame = await ask(fleet.doors[SITE], READ)
    assert frame[-2] != sum(frame[4:-2]) % 256


async def test_a_busy_meter_sends_an_application_error(fleet: Fleet) -> None:
    fleet.inject(SITE, "busy")
    assert (await ask(fleet.doors[SITE], READ))[6:8] == bytes([0x70, 0x08])


async def test_an_offline_site_answers_nobody(fleet: Fleet, cdu: AsyncModbusTcpClient) -> None:
    fleet.inject(SITE, "offline")
    assert await ask(fleet.doors[SITE], READ, wait_s=0.15) == b""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            await cdu.read_input_registers(0, count=1, device_id=1)


async def test_an_exchanged_meter_shows_its_new_number(fleet: Fleet) -> None:
    new = fleet.exchange_meter(SITE, register_wh=17)
    body = (await ask(fleet.doors[SITE], READ))[4:-2]
    assert body[3:7][::-1].hex() == f"{new.number:08d}"
    assert int(body[17:21][::-1].hex()) < 100


async def test_registers_and_ports_survive_a_restart(tmp_path: Path) -> None:
    demo = scenario.load("demo")
    one = replace(demo, sites=demo.sites[:1])
    state = tmp_path / "sim" / "state.json"
    async with app.serve(one, state_file=state) as served:
        served.exchange_meter("s01", number=5, register_wh=4711)
        before = served.addresses()
    async with app.serve(one, state_file=state) as served:
        assert served.addresses() == before
        assert served.register_wh("s01") == 4711


async def test_a_taken_port_is_replaced(tmp_path: Path) -> None:
    demo = scenario.load("demo")
    one = replace(demo, sites=demo.sites[:1])
    state = tmp_path / "state.json"
    async with app.serve(one, state_file=state) as served:
        before = served.doors["s01"].cdu.port
    taken = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", before)
    async with taken, app.serve(one, state_file=state) as served:
        assert served.doors["s01"].cdu.port != before


async def test_a_state_of_another_fleet_is_refused(tmp_path: Path) -> None:
    demo = scenario.load("demo")
    state = tmp_path / "state.json"
    state.write_text('{"fleet": "other", "sites": {}}', encoding="utf-8")
    with pytest.raises(ConfigError, match="other"):
        async with app.serve(demo, state_file=state):
            pass


def test_the_registers_of_a_killed_simulator_never_fall(tmp_path: Path) -> None:
    state = tmp_path / "sites.json"
    command = [sys.executable, "-m", "heatpool_sim", "run", "--fleet", "demo", "--json"]
    shown: list[int] = []
    for _ in range(2):
        with subprocess.Popen([*command, "--state", str(state)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            sites = json.loads(child.stdout.readline())["sites"]
            shown.append(asyncio.run(last_register_wh(sites[1], for_s=5)))
            child.kill()
    assert 0 <= (shown[1] - shown[0]) % 10**8 < 5_000
    with_state = json.loads(state.read_text())["sites"]["s02"]
    assert with_state["ahead_wh"] > 0


async def last_register_wh(site: dict[str, Any], *, for_s: float) -> int:
    """What the meter shows after so many seconds, by its telegram."""
    await asyncio.sleep(for_s)
    host, port = site["meter"].removeprefix("tcp://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(mbus.request_frame(site["meter_address"], fcb=True))
    found = b""
    while (frame := mbus.split_frame(found)[0]) is None:
        found += await reader.read(512)
    writer.close()
    await writer.wait_closed()
    energy_wh = mbus.heat_view(mbus.decode(frame)).energy_wh
    assert energy_wh is not None
    return energy_wh


async def test_a_dead_meter_says_on_every_line_what_it_last_said(
    cdu: AsyncModbusTcpClient, fleet: Fleet
) -> None:
    door = fleet.doors[SITE]
    fleet.inject(SITE, "meter_dead")
    looks, frames = [], []
    for _ in range(3):
        door.running.advance(60.0, boot_ns=0)
        looks.append((await cdu.read_input_registers(0, count=4, device_id=1)).registers)
        frames.append(mbus.heat_view(mbus.decode(await ask(door, READ))))
    assert looks[0] == looks[1] == looks[2]
    assert frames[0] == frames[1] == frames[2]
    assert (frames[0].flags, frames[0].energy_wh is None) == ((), False)
    assert door.running.state.network.heat_rate_w > 0


async def test_another_unit_of_flow_stands_in_the_cells(
    cdu: AsyncModbusTcpClient, fleet: Fleet
) -> None:
    before = (await cdu.read_input_registers(0, count=2, device_id=1)).registers
    fleet.inject(SITE, "flow_unit", size=3.6)
    after = (await cdu.read_input_registers(0, count=2, device_id=1)).registers
    factor = (after[0] << 16 | after[1]) / (before[0] << 16 | before[1])
    assert factor == pytest.approx(3.6, rel=0.03)
