"""The Redfish driver against a simulated BMC: what it asks, how often, and what it makes of it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from integration.redfish_bench import METRICS, NS, ROOT, Bmc, documents, link, powers
from turns import cancelled

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.sensors.redfish.bmc import TRUST_COUNT
from heatpool_sim.devices import redfish_folder
from heatpool_sim.devices import redfish_garble as garble
from heatpool_sim.devices.redfish_tree import Page

HTML = Page(body=b"<html>Please log in</html>")


@pytest.fixture
async def bmc(tmp_path: Path) -> AsyncIterator[Bmc]:
    async with Bmc(tmp_path).serving() as served:
        yield served


async def test_opening_and_leaving_touches_nothing(bmc: Bmc) -> None:
    async with bmc.sensor():
        pass
    assert bmc.service.requests == 0


async def test_after_the_discovery_only_what_has_readings_is_asked(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        assert list(await sensor.probe()) == [r.channel for r in await sensor.read()]
        before = len(bmc.service.asked)
        readings = await sensor.read()
        assert [line.rpartition(" ")[0] for line in list(bmc.service.asked)[before:]] == [
            f"GET {METRICS}"
        ]
    assert [(r.sensor, r.loop) for r in readings] == [("bmc", "rack")]


async def test_one_request_is_in_flight_whoever_asks(bmc: Bmc) -> None:
    bmc.tree.resources = documents(*"12345678")
    async with bmc.sensor() as one, bmc.sensor() as two, bmc.sensor() as three:
        rows = await asyncio.gather(*(s.read() for s in (one, two, three)))
        assert [powers(row) for row in rows] == [[374.0] * 8] * 3
    assert bmc.service.most_in_flight == 1
    assert len(bmc.asked("POST")) == 1


async def test_what_has_not_changed_is_not_sent_again(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        first = await sensor.read()
        bmc.clock.pass_s(30)
        second = await sensor.read()
    assert bmc.service.asked[-2] == f"GET {METRICS} 304"
    assert powers(first) == powers(second) == [374.0]
    assert second[0].boot_ns - first[0].boot_ns == 30e9


async def test_an_etag_that_stands_still_while_the_figures_move_is_found_out(bmc: Bmc) -> None:
    bmc.tree.resources[METRICS]["@odata.etag"] = 'W/"1"'
    async with bmc.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0]
        bmc.tree.resources[METRICS]["PowerWatts"] = {"Reading": 500.0}
        seen = [powers(await sensor.read()) for _ in range(TRUST_COUNT + 1)]
        assert seen[-1] == [500.0]
        bmc.tree.resources[METRICS]["PowerWatts"] = {"Reading": 600.0}
        assert powers(await sensor.read()) == [600.0]


@pytest.mark.parametrize("fault", ["redfish_half_json", "redfish_html", "redfish_empty"])
async def test_a_service_that_answers_rubbish_is_gone_until_it_speaks(bmc: Bmc, fault: str) -> None:
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.faults = frozenset({fault})
        with pytest.raises(SensorGone, match="no document can be read") as caught:
            await sensor.read()
        assert caught.value.fix
        bmc.faults = frozenset()
        assert powers(await sensor.read()) == [374.0]


async def test_one_broken_document_is_missed_alone_and_told_once(
    bmc: Bmc, caplog: pytest.LogCaptureFixture
) -> None:
    bmc.tree.resources = documents("1", "2")
    caplog.set_level(logging.INFO)
    async with bmc.sensor() as sensor:
        assert len(powers(await sensor.read())) == 2
        bmc.tree.pages[METRICS] = HTML
        for _ in range(3):
            assert len(powers(await sensor.read())) == 1
        assert list(sensor.refused) == [METRICS]
        assert "HTML" in sensor.refused[METRICS]
        del bmc.tree.pages[METRICS]
        assert len(powers(await sensor.read())) == 2
        assert not sensor.refused
    events = [record.getMessage() for record in caplog.records]
    assert events.count("redfish.refused") == events.count("redfish.mended") == 1


@pytest.mark.parametrize("fault", ["redfish_link_loop", "redfish_foreign_link"])
async def test_no_link_leads_round_or_away(bmc: Bmc, fault: str) -> None:
    bmc.faults = frozenset({fault})
    async with bmc.sensor() as sensor:
        assert powers(await sensor.read()) == [374.0]
    assert not bmc.asked("GET", f"{ROOT}/Chassis/Elsewhere")
    # The root twice: for the login, and as the first document.
    assert len(bmc.asked("GET")) == 5


async def test_a_discovery_has_an_end(bmc: Bmc) -> None:
    bmc.tree.resources = documents(*(str(number) for number in range(700)))
    async with bmc.sensor() as sensor:
        await sensor.read()
    assert len(bmc.asked("GET")) <= 601


async def test_a_lost_path_is_sought_anew_but_not_at_once(bmc: Bmc) -> None:
    bmc.tree.resources = documents("1", "2")
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.tree.resources = documents("2", "3")
        assert len(powers(await sensor.read())) == 1
        assert len(powers(await sensor.read())) == 1
        bmc.clock.pass_s(601)
        assert len(powers(await sensor.read())) == 2


async def test_every_day_the_service_is_discovered_anew(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.tree.resources = documents("1", "2")
        assert len(powers(await sensor.read())) == 1
        bmc.clock.pass_s(86_400)
        assert len(powers(await sensor.read())) == 2


async def test_a_slow_service_is_asked_half_as_often_until_it_is_quick_again(bmc: Bmc) -> None:
    bmc.tree.takes_s = 4.0
    async with bmc.sensor(period_s=300) as sensor:
        slow = await sensor.read()
        asked, bmc.tree.takes_s = bmc.service.requests, 0.0
        bmc.clock.now_ns = slow[0].boot_ns + 300 * NS
        assert await sensor.read() == slow
        assert bmc.service.requests == asked
        for periods in (2, 3):
            bmc.clock.now_ns = slow[0].boot_ns + periods * 300 * NS
            assert (await sensor.read())[0].boot_ns == bmc.clock.now_ns
            assert bmc.service.requests == asked + periods - 1


async def test_a_discovery_longer_than_a_read_goes_on_in_the_next(tmp_path: Path) -> None:
    async with Bmc(tmp_path, slow_s=0.05).serving() as bmc:
        bmc.tree.resources = documents(*"12345")
        bmc.tree.takes_s = 0.05
        bmc.faults = frozenset({garble.SLOW})
        async with bmc.sensor(timeout_s=0.4) as sensor:
            reads = 0
            while not sensor_has_all(await read_or_none(sensor)):
                reads += 1
                assert reads < 30
            assert reads > 0
            assert len(bmc.asked("GET", f"{ROOT}/Chassis/1 ")) == 1


def sensor_has_all(readings: Any) -> bool:
    return readings is not None and len(powers(readings)) == 5


async def read_or_none(sensor: Any) -> Any:
    try:
        return await sensor.read()
    except SensorBusy as error:
        assert "more to come" in str(error)
        return None


async def test_silence_is_gone_after_the_timeout_and_back_when_it_ends(tmp_path: Path) -> None:
    async with Bmc(tmp_path, slow_s=9.0).serving() as bmc, bmc.sensor(timeout_s=3.0) as sensor:
        await sensor.read()
        bmc.faults = frozenset({garble.SLOW})
        with pytest.raises(SensorGone, match=r"no answer in 3 s") as caught:
            await sensor.read()
        assert "timeout_s" in caught.value.fix
        bmc.faults = frozenset()
        assert powers(await sensor.read()) == [374.0]


async def test_a_cancelled_read_ends_at_once_and_harms_no_later_one(tmp_path: Path) -> None:
    async with Bmc(tmp_path, slow_s=20.0).serving() as bmc, bmc.sensor() as sensor:
        await sensor.read()
        bmc.faults = frozenset({garble.SLOW})
        bmc.heard.clear()
        task = asyncio.create_task(sensor.read())
        await bmc.heard.wait()
        await cancelled(task)
        bmc.faults = frozenset()
        assert powers(await sensor.read()) == [374.0]


async def test_three_failures_in_a_row_buy_a_rest(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.faults = frozenset({garble.SILENT})
        told = set()
        for _ in range(6):
            with pytest.raises(SensorGone) as caught:
                await sensor.read()
            told.add(str(caught.value))
        assert len(told) == 1
        bmc.faults, asked = frozenset(), bmc.service.requests
        with pytest.raises(SensorGone):
            await sensor.read()
        assert bmc.service.requests == asked
        bmc.clock.pass_s(301)
        assert powers(await sensor.read()) == [374.0]


async def test_a_busy_service_is_left_alone_as_long_as_it_says(bmc: Bmc) -> None:
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.faults = frozenset({garble.BUSY})
        with pytest.raises(SensorBusy, match="503") as caught:
            await sensor.read()
        assert caught.value.wait_s == 120
        bmc.faults, asked = frozenset(), bmc.service.requests
        with pytest.raises(SensorBusy):
            await sensor.read()
        assert bmc.service.requests == asked
        bmc.clock.pass_s(120)
        assert powers(await sensor.read()) == [374.0]


@pytest.mark.parametrize("busy", ["1", "2"])
async def test_one_resource_that_is_never_ready_keeps_no_other_away(bmc: Bmc, busy: str) -> None:
    bmc.tree.resources = documents("1", "2")
    async with bmc.sensor() as sensor:
        assert len(powers(await sensor.read())) == 2
        well, not_ready = frozenset[str](), frozenset({garble.BUSY})
        bmc.next_faults.extend((not_ready,) if busy == "1" else (well, not_ready))
        with pytest.raises(SensorBusy):
            await sensor.read()
        for _ in range(3):
            bmc.clock.pass_s(120)
            # What was busy is asked last.
            bmc.next_faults.extend((well, not_ready))
            assert powers(await sensor.read()) == [374.0]
        assert [*sensor.refused] == [f"{ROOT}/Chassis/{busy}/EnvironmentMetrics"]
        assert len(powers(await sensor.read())) == 2
        assert not sensor.refused


async def test_a_counter_that_a_long_discovery_found_has_the_time_of_its_look(bmc: Bmc) -> None:
    bmc.tree.resources = documents(*"12345")
    bmc.tree.takes_s = 4.0
    async with bmc.sensor(period_s=300) as sensor:
        begun_ns = bmc.clock.boot_ns()
        readings = await sensor.read()
        # Twelve documents for the discovery, five of them again for their figures.
        assert readings[0].boot_ns > (begun_ns + bmc.clock.boot_ns()) / 2
        assert len(powers(readings)) == 5


async def test_foreign_links_do_not_fill_the_journal(
    bmc: Bmc, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [{"@odata.id": f"{ROOT}/<{number}{'x' * 1000}"} for number in range(500)]
    bmc.tree.resources[f"{ROOT}/Chassis"]["Members"] += odd
    async with bmc.sensor() as sensor:
        with caplog.at_level(logging.INFO):
            await sensor.read()
    (told,) = [record for record in caplog.records if record.msg == "redfish.foreign_link"]
    assert len(str(vars(told))) < 2000


async def test_half_a_pass_does_not_mix_old_figures_with_new_ones(bmc: Bmc) -> None:
    bmc.tree.resources = documents("1", "2")
    async with bmc.sensor() as sensor:
        await sensor.read()
        bmc.next_faults.extend((frozenset(), frozenset({garble.BUSY})))
        with pytest.raises(SensorBusy):
            await sensor.read()
        bmc.tree.resources = documents("1", "2", power_w=500.0)
        bmc.clock.pass_s(120)
        assert powers(await sensor.read()) == [500.0, 500.0]


async def test_a_port_where_nobody_listens_is_told_with_a_cure(bmc: Bmc, tmp_path: Path) -> None:
    async with Bmc(tmp_path).serving() as away:
        pass
    async with away.sensor() as sensor:
        with pytest.raises(SensorGone, match=r"refused|connect") as caught:
            await sensor.probe()
        assert caught.value.fix


async def test_a_service_without_anything_of_ours_shows_no_channel(bmc: Bmc) -> None:
    bmc.tree.resources = documents()
    async with bmc.sensor() as sensor:
        assert await sensor.probe() == []
        bmc.tree.resources = documents("1")
        assert len(await sensor.probe()) == 1


async def test_another_login_for_the_same_bmc_is_a_mistake(bmc: Bmc) -> None:
    async with bmc.sensor():
        with pytest.raises(ConfigError, match="another login"):
            async with bmc.sensor(auth="basic"):
                pass


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"url": "http://192.0.2.1"}, "in clear"),
        ({"url": "tcp://192.0.2.1"}, "must begin"),
        ({"url": "https://192.0.2.1/redfish/v1"}, "nothing after the port"),
        ({"url": "https://a:b@192.0.2.1"}, "holds a login"),
        ({"url": "https://[::1"}, "cannot be read"),
        ({"url": "https://h:99999"}, "cannot be read"),
        ({"url": "file:///x"}, "no use"),
        ({"auth": "none"}, "auth"),
        ({"password_file": ""}, "password_file: is missing"),
        ({"user": ""}, "user: is missing"),
        ({"fingerprint": "ab:cd"}, "64 hexadecimal"),
        ({"fingerprint": "ab" * 32}, "no certificate"),
        ({"period_s": 5}, ">= 10"),
    ],
)
async def test_settings_that_do_not_fit_are_refused(
    bmc: Bmc, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        async with bmc.sensor(**more):
            pass


async def test_every_mistake_is_told_at_once(bmc: Bmc) -> None:
    with pytest.raises(ConfigError) as caught:
        async with bmc.sensor(url="http://192.0.2.1", user="", fingerprint="x"):
            pass
    assert len(caught.value.mistakes) == 4


async def test_the_root_of_another_kind_of_service_is_no_bmc(bmc: Bmc) -> None:
    bmc.tree.resources = {ROOT: {"@odata.id": ROOT, "Chassis": link("Chassis")}}
    bmc.tree.pages[ROOT] = HTML
    async with bmc.sensor() as sensor:
        with pytest.raises(SensorGone, match="no Redfish service root"):
            await sensor.read()


@pytest.mark.realdata
@pytest.mark.parametrize(
    "folder",
    [
        "dmtf/public-rackmount1",
        "dmtf_publications/public-cooling-unit",
        "hpe_cray_ex235a_liquidcooled",
        "lambda_gb300/powershelf_delta",
    ],
)
async def test_a_capture_reads_the_same_from_disk_and_from_a_service(
    tmp_path: Path, realdata: Path, folder: str
) -> None:
    place = realdata / "02_redfish" / folder
    bmc = Bmc(tmp_path, tree=await asyncio.to_thread(redfish_folder.read, place))
    nobody = {"url": f"file:{place}", "user": "", "password_file": ""}
    async with bmc.serving(), bmc.sensor() as there, bmc.sensor(**nobody) as here:
        for _ in range(2):
            assert await there.read() == await here.read()
    assert bmc.service.most_in_flight == 1
