"""Manners of the Redfish driver at the door: one session, given back, and nobody locked out."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from integration.redfish_bench import PASSWORD, ROOT, Bmc, powers

from heatpool.errors import SensorBusy, SensorGone
from heatpool_sim.devices import redfish_garble as garble

SESSIONS = f"{ROOT}/SessionService/Sessions"


@pytest.fixture
async def bmc(tmp_path: Path) -> AsyncIterator[Bmc]:
    async with Bmc(tmp_path).serving() as served:
        yield served


async def left_open(bmc: Bmc) -> None:
    """A life of the agent that ends without a logout."""
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.faults = frozenset({garble.SILENT})
    bmc.faults = frozenset()


async def test_one_session_serves_all_passes_and_is_ended_on_leaving(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        for _ in range(3):
            assert powers(await sensor.read()) == [374.0]
        assert bmc.service.open_sessions == 1
    assert bmc.service.open_sessions == 0
    assert len(bmc.asked("POST")) == len(bmc.asked("DELETE")) == 1
    assert bmc.kept() == []


async def test_three_sensors_of_one_bmc_share_session_and_turn(bmc: Bmc) -> None:
    async with bmc.sensor() as one, bmc.sensor() as two, bmc.sensor() as three:
        await one.read()
        await two.read()
        await three.close()
        await two.close()
        await two.close()
        assert bmc.service.open_sessions == 1
    assert bmc.service.open_sessions == 0
    assert len(bmc.asked("POST")) == 1


async def test_the_file_holds_the_session_and_never_the_token(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        await sensor.read()
        (file,) = bmc.kept()
        assert json.loads(file.read_text()) == {"url": bmc.url, "sessions": [f"{SESSIONS}/1"]}
        assert file.stat().st_mode & 0o777 == 0o600


async def test_the_next_life_ends_the_session_of_a_crashed_one(bmc: Bmc) -> None:
    await left_open(bmc)
    assert bmc.service.open_sessions == 1
    assert len(bmc.kept()) == 1
    async with bmc.sensor() as sensor:
        await sensor.read()
        assert bmc.asked("DELETE") == [f"DELETE {SESSIONS}/1 204"]
        (file,) = bmc.kept()
        assert json.loads(file.read_text())["sessions"] == [f"{SESSIONS}/2"]
        assert bmc.service.open_sessions == 1
    assert bmc.service.open_sessions == 0
    assert bmc.kept() == []


async def test_slots_held_by_our_own_crashed_life_are_freed_first(tmp_path: Path) -> None:
    async with Bmc(tmp_path, slots=1).serving() as bmc:
        await left_open(bmc)
        async with bmc.sensor() as sensor:
            assert powers(await sensor.read()) == [374.0]
        assert bmc.service.open_sessions == 0


async def test_a_session_of_somebody_else_under_the_old_number_lives_on(tmp_path: Path) -> None:
    async with Bmc(tmp_path, user="", password="").serving() as bmc:
        await left_open(bmc)
        async with aiohttp.ClientSession() as person:
            await person.delete(f"{bmc.url}{SESSIONS}/1")
            login = {"UserName": "person", "Password": "p"}
            await person.post(f"{bmc.url}{SESSIONS}", json=login)
        (file,) = bmc.kept()
        file.write_text(json.dumps({"url": bmc.url, "sessions": [f"{SESSIONS}/2"]}))
        async with bmc.sensor() as sensor:
            await sensor.read()
            assert bmc.service.open_sessions == 2
        assert bmc.service.open_sessions == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sessions": [1]}', '{"sessions": ["//x"]}'])
async def test_a_broken_session_file_is_no_obstacle(bmc: Bmc, text: str) -> None:
    await left_open(bmc)
    (file,) = bmc.kept()
    file.write_text(text)
    async with bmc.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0]


async def test_without_a_state_folder_nothing_is_kept(bmc: Bmc) -> None:
    async with bmc.sensor(roots=type(bmc.roots)()) as sensor:
        assert await sensor.read()
    assert bmc.kept() == []


async def test_no_free_slot_is_left_alone_for_minutes(bmc: Bmc) -> None:
    bmc.faults = frozenset({garble.NO_SLOT})
    async with bmc.sensor() as sensor:
        with pytest.raises(SensorBusy, match="no free session") as caught:
            await sensor.read()
        assert caught.value.wait_s >= 300
        asked = bmc.service.requests
        bmc.clock.pass_s(300)
        with pytest.raises(SensorBusy) as again:
            await sensor.read()
        assert again.value.wait_s == pytest.approx(caught.value.wait_s - 300)
        assert bmc.service.requests == asked
        bmc.faults = frozenset()
        bmc.clock.pass_s(caught.value.wait_s)
        assert powers(await sensor.read()) == [374.0]


async def test_a_session_lost_in_mid_pass_is_renewed_once(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.next_faults.append(frozenset({garble.SESSION_LOST}))
        assert powers(await sensor.read()) == [374.0]
        assert len(bmc.asked("POST")) == 2


async def test_who_is_refused_after_a_new_login_does_not_try_on(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.faults = frozenset({garble.SESSION_LOST})
        for _ in range(5):
            with pytest.raises(SensorGone, match="401") as caught:
                await sensor.read()
            assert caught.value.fix
        assert len(bmc.asked("POST")) == 2
        bmc.faults = frozenset()
        bmc.clock.pass_s(900)
        assert powers(await sensor.read()) == [374.0]


async def test_several_sensors_send_a_wrong_password_once(bmc: Bmc) -> None:
    bmc.secret.write_text("wrong")
    async with bmc.sensor() as one, bmc.sensor() as two, bmc.sensor() as three:
        for _ in range(2):
            for sensor in (one, two, three):
                bmc.clock.pass_s(1)
                with pytest.raises(SensorGone, match="'agent' refused"):
                    await sensor.read()
        assert len(bmc.asked("POST")) == 1
        bmc.secret.write_text(PASSWORD)
        bmc.clock.pass_s(900)
        for sensor in (one, two, three):
            assert powers(await sensor.read()) == [374.0]


async def test_a_wrong_password_is_sent_once_in_a_quarter_of_an_hour(bmc: Bmc) -> None:
    bmc.secret.write_text("wrong")
    async with bmc.sensor() as sensor:
        for _ in range(4):
            with pytest.raises(SensorGone, match="'agent' refused") as caught:
                await sensor.read()
            assert "password_file" in caught.value.fix
        assert len(bmc.asked("POST")) == 1
        bmc.secret.write_text(PASSWORD)
        bmc.clock.pass_s(900)
        assert powers(await sensor.read()) == [374.0]


async def test_a_missing_password_file_is_told_with_its_name(bmc: Bmc) -> None:
    bmc.secret.unlink()
    async with bmc.sensor() as sensor:
        with pytest.raises(SensorGone, match=str(bmc.secret)):
            await sensor.read()


async def test_a_locked_service_wants_a_login(bmc: Bmc) -> None:
    async with bmc.sensor(user="", password_file="") as sensor:
        with pytest.raises(SensorGone, match="login is needed") as caught:
            await sensor.read()
        assert caught.value.fix == "set user and password_file"


async def test_basic_takes_no_slot(bmc: Bmc) -> None:
    async with bmc.sensor(auth="basic") as sensor:
        assert powers(await sensor.read()) == [374.0]
    assert bmc.asked("POST") == []


async def test_a_service_without_sessions_is_asked_by_basic(bmc: Bmc) -> None:
    del bmc.tree.resources[ROOT]["Links"]
    async with bmc.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0]
    assert bmc.asked("POST") == []
