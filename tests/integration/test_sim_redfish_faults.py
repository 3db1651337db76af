"""What the simulated Redfish service gets wrong when it is told to, as real BMCs do."""

import asyncio
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from integration.redfish_bmc import CONTROL, METRICS, ROOT, Client, SmallTree, bmc

from heatpool_sim.devices.redfish_garble import FOREIGN
from heatpool_sim.devices.redfish_service import RedfishService
from heatpool_sim.plant.faults import ALL, REDFISH

LOCKED = {"user": "admin", "password": "right"}
CHASSIS = f"{ROOT}/Chassis"


class Switch:
    """Faults of the moment, as a story turns them on and off."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)

    def __call__(self) -> frozenset[str]:
        return self.names


async def test_every_fault_of_this_device_can_be_planned() -> None:
    assert REDFISH | {"offline"} <= ALL


async def test_a_lost_session_is_told_until_the_next_login() -> None:
    faults = Switch()
    async with bmc(**LOCKED, faults=faults) as client:
        await client.log_in()
        before = await client.get(CHASSIS)
        faults.names = frozenset({"redfish_401"})
        lost = await client.get(CHASSIS)
        left = client.service.open_sessions
        faults.names = frozenset()
        still = await client.get(CHASSIS)
        await client.log_in()
        after = await client.get(CHASSIS)
    assert [before.status, lost.status, still.status, after.status] == [200, 401, 401, 200]
    assert (lost.message, left) == ("NoValidSession", 0)


async def test_a_lost_session_still_lets_one_log_in() -> None:
    async with bmc(**LOCKED, faults=Switch("redfish_401")) as client:
        assert (await client.log_in()).status == 201
        assert (await client.get(CHASSIS)).status == 401


async def test_a_busy_service_says_when_to_return() -> None:
    async with bmc(faults=Switch("redfish_503")) as client:
        answer = await client.get(ROOT)
    assert (answer.status, answer.message) == (503, "ServiceTemporarilyUnavailable")
    assert answer.headers["Retry-After"] == "120"


async def test_a_slow_service_answers_late_and_whole() -> None:
    async with bmc(faults=Switch("redfish_slow"), slow_s=0.2) as client:
        begun_s = asyncio.get_running_loop().time()
        answer = await client.get(CHASSIS)
        took_s = asyncio.get_running_loop().time() - begun_s
    assert answer.tree["Members@odata.count"] == 3
    assert took_s >= 0.2


async def test_a_slow_answer_does_not_hold_up_the_end() -> None:
    begun = asyncio.Event()

    def faults() -> frozenset[str]:
        begun.set()
        return frozenset({"redfish_slow"})

    async with asyncio.timeout(30.0), aiohttp.ClientSession() as web:
        async with RedfishService(SmallTree(), faults=faults).serve() as address:
            url = f"http://127.0.0.1:{address.port}{CHASSIS}"
            asking = asyncio.ensure_future(web.get(url))
            await begun.wait()
        with pytest.raises(aiohttp.ClientConnectionError):
            await asking


async def test_half_a_json_is_the_first_half() -> None:
    faults = Switch()
    async with bmc(faults=faults) as client:
        whole = (await client.get(CHASSIS)).body
        faults.names = frozenset({"redfish_half_json"})
        answer = await client.get(CHASSIS)
    assert answer.status == 200
    assert answer.body == whole[: len(whole) // 2]
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)


async def test_a_page_of_html_comes_with_status_200() -> None:
    async with bmc(faults=Switch("redfish_html")) as client:
        answer = await client.get(CHASSIS)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.body.startswith(b"<!DOCTYPE html>")


async def test_an_empty_body_comes_with_status_200() -> None:
    async with bmc(faults=Switch("redfish_empty")) as client:
        answer = await client.get(CHASSIS)
    assert (answer.status, answer.body) == (200, b"")


async def test_no_slot_is_free_for_anybody() -> None:
    async with bmc(**LOCKED, faults=Switch("redfish_no_slot")) as client:
        answer = await client.log_in()
        basic = {"Authorization": aiohttp.encode_basic_auth("admin", "right")}
        assert (await client.get(CHASSIS, headers=basic)).status == 200
    assert (answer.status, answer.message) == (503, "SessionLimitExceeded")
    assert client.service.open_sessions == 0


async def test_an_offline_device_closes_without_an_answer() -> None:
    faults = Switch("offline")
    async with bmc(faults=faults) as client:
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(CHASSIS)
        faults.names = frozenset()
        assert (await client.get(CHASSIS)).status == 200


async def test_a_wrong_clock_is_decades_behind_everywhere() -> None:
    async with bmc(faults=Switch("redfish_wrong_clock")) as client:
        answer = await client.get(f"{CHASSIS}/1")
    told = parsedate_to_datetime(answer.headers["Date"])
    assert (datetime.now(UTC) - told).days > 19 * 365
    assert answer.tree["DateTime"] == "2006-03-01T12:00:00+00:00"


async def test_links_lead_in_a_circle() -> None:
    async with bmc(faults=Switch("redfish_link_loop")) as client:
        answer = await client.get(CHASSIS)
    assert CHASSIS in answer.members
    assert answer.tree["Members@odata.nextLink"] == CHASSIS


async def test_a_link_leads_to_another_host() -> None:
    async with bmc(faults=Switch("redfish_foreign_link")) as client:
        answer = await client.get(CHASSIS)
    assert answer.members[-1] == FOREIGN
    assert FOREIGN.startswith("http://") and ".invalid/" in FOREIGN
    assert answer.tree["Members@odata.count"] == 4


async def inputs_w(client: Client) -> tuple[object, object]:
    """Input power as the metrics and the legacy resource tell it."""
    legacy = (await client.get(f"{CHASSIS}/1/Power")).tree["PowerSupplies"]
    return (await client.get(METRICS)).tree["InputPowerWatts"]["Reading"], legacy


async def test_a_rating_stands_where_the_input_power_should() -> None:
    faults = Switch()
    async with bmc(faults=faults) as client:
        right = await inputs_w(client)
        faults.names = frozenset({"redfish_rating_as_input"})
        wrong = await inputs_w(client)
    assert right == (210, [{"PowerCapacityWatts": 750, "PowerInputWatts": 210}, {}])
    assert wrong == (750, [{"PowerCapacityWatts": 750, "PowerInputWatts": 750}, {}])


async def test_a_list_says_one_more_than_it_holds() -> None:
    async with bmc(faults=Switch("redfish_count_wrong")) as client:
        answer = await client.get(CHASSIS)
    assert (answer.tree["Members@odata.count"], len(answer.members)) == (4, 3)


@pytest.mark.parametrize("fault", sorted(REDFISH - {"redfish_slow", "redfish_503", "redfish_401"}))
async def test_resources_without_the_place_for_a_fault_stay_as_they_are(fault: str) -> None:
    form = {"redfish_half_json", "redfish_html", "redfish_empty"}
    async with bmc(faults=Switch(*({fault} - form))) as client:
        assert (await client.get(CONTROL)).tree["SetPoint"] == 100
