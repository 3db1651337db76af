"""A service with megabytes of documents: the agent's other work goes on while they are decoded."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
from integration.redfish_bench import ROOT, Bmc, documents, link, powers
from turns import turning

from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.redfish import redfish_readings
from heatpool_sim.devices.redfish_tree import Page

SENSORS = f"{ROOT}/Chassis/1/Sensors"
STAMP = Stamp(sensor="bmc", loop="", event_ns=0, boot_ns=0)


@pytest.fixture
async def bmc(tmp_path: Path) -> AsyncIterator[Bmc]:
    async with Bmc(tmp_path).serving() as found:
        tree = documents("1")
        tree[f"{ROOT}/Chassis/1"]["Sensors"] = link("Chassis/1/Sensors")
        # What is sent is the page; the tree knows its path.
        tree[SENSORS] = {}
        found.tree.resources = tree
        found.tree.pages[SENSORS] = Page(body=json.dumps(_sensors()).encode())
        yield found


def _sensors() -> dict[str, object]:
    """A collection that shows each of its members whole, 3.5 MB."""
    members = [
        {
            "@odata.id": f"{SENSORS}/{number}",
            "@odata.type": "#Sensor.v1_7_0.Sensor",
            "Id": str(number),
            "Name": f"s{number}",
            "ReadingType": "Power",
            "ReadingUnits": "W",
            "Reading": 3.0,
            "PhysicalContext": "PowerSupply",
        }
        for number in range(16_000)
    ]
    kind = "#SensorCollection.SensorCollection"
    return {"@odata.id": SENSORS, "@odata.type": kind, "Name": "Sensors", "Members": members}


def _decoding_s(bmc: Bmc) -> float:
    found = bmc.tree.resources | {SENSORS: _sensors()}
    begun_s = thread_time()
    redfish_readings(found, STAMP)
    return thread_time() - begun_s


@contextmanager
def _gaps_s() -> Iterator[list[float]]:
    """How long the event loop was at work each time, s of the processor's time."""
    found: list[float] = []

    async def beat() -> None:
        while True:
            begun_s = thread_time()
            await asyncio.sleep(0.001)
            found.append(thread_time() - begun_s)

    task = asyncio.get_running_loop().create_task(beat(), name="beat")
    try:
        yield found
    finally:
        task.cancel()


async def test_nothing_waits_while_a_large_service_is_decoded(bmc: Bmc) -> None:
    decoding_s = _decoding_s(bmc)
    async with bmc.sensor() as sensor:
        with _gaps_s() as gaps_s:
            assert powers(await sensor.read()) == [374.0]
            await asyncio.sleep(0.01)
    # On the loop a discovery is decoded three times over in one go.
    assert max(gaps_s) < decoding_s


async def test_a_read_cancelled_while_it_decodes_ends_at_once_and_loses_no_discovery(
    bmc: Bmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def told(*documents: Any, **more: Any) -> Any:
        begun.set()
        return redfish_readings(*documents, **more)

    # The driver's own, which tells that it begins: nobody else does.
    monkeypatch.setattr("heatpool_agent.sensors.redfish.redfish_readings", told)
    async with bmc.sensor() as sensor:
        task = asyncio.create_task(sensor.read())
        assert await asyncio.to_thread(begun.wait, 60.0)
        async with turning() as turns:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert turns.passed_s < 0.2
        asked = len(bmc.asked("GET"))
        assert powers(await sensor.read()) == [374.0]
        assert len(bmc.asked("GET")) == asked
