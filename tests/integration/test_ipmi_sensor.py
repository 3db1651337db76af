"""The driver against the simulated BMC: ipmitool's RMCP+ login, one question, one answer."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ports.benches.ipmi import IpmiBench, opened
from pyghmi.ipmi.private.session import Session
from turns import cancelled

from heatpool.errors import SensorGone
from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.sensors import ipmi

S = 1_000_000_000


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 7

    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000 + self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bmc(tmp_path: Path) -> AsyncIterator[IpmiBench]:
    async with opened(tmp_path) as bench:
        yield bench


def sensor(bmc: IpmiBench, clock: Clock, **more: Any) -> Any:
    config = msgspec.convert({"id": "bmc", **bmc.settings, **more}, ipmi.Config)
    return ipmi.open(config, bmc.roots, clock)


def children() -> list[str]:
    """Command lines of running ipmitools."""
    lines = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    return [line.decode("utf-8", "replace") for line in lines if line.startswith(b"ipmitool\0")]


async def test_the_bmc_s_present_watts_are_read(bmc: IpmiBench, clock: Clock) -> None:
    async with sensor(bmc, clock, loop="rack") as bound:
        assert await bound.probe() == ["ipmi/dcmi"]
        (reading,) = await bound.read()
    assert (reading.quantity, reading.value) == ("power_w", 412.0)
    assert (reading.node, reading.kind) == (Node.CHASSIS, ReadingKind.GAUGE)
    assert (reading.sensor, reading.loop, reading.u) == ("bmc", "rack", None)
    assert (reading.event_ns, reading.boot_ns) == (clock.event_ns(), clock.boot_ns())


async def test_the_watts_follow_the_plant(bmc: IpmiBench, clock: Clock) -> None:
    async with sensor(bmc, clock) as bound:
        await bound.read()
        bmc.plant.power_w = 633.6
        (reading,) = await bound.read()
    assert reading.value == 634.0


async def test_the_supplies_are_read_from_the_bmc_s_own_list(bmc: IpmiBench, clock: Clock) -> None:
    async with sensor(bmc, clock, sdr=True) as bound:
        readings = await bound.read()
    assert [(r.channel, r.node, r.label) for r in readings] == [
        ("ipmi/dcmi", Node.CHASSIS, ""),
        ("ipmi/sdr/30h@10.1", Node.PSU_IN, "PS1 Input Power"),
        ("ipmi/sdr/31h@10.2", Node.PSU_IN, "PS2 Input Power"),
    ]
    # One count of an 8-bit sensor is 2 W here.
    assert [r.value for r in readings] == [412.0, 198.0, 214.0]


async def test_opening_sends_nothing(bmc: IpmiBench, clock: Clock) -> None:
    async with sensor(bmc, clock):
        pass
    assert bmc.exchanges == 0


async def test_a_wrong_clock_in_the_bmc_moves_nothing(bmc: IpmiBench, clock: Clock) -> None:
    bmc.plant.faults = frozenset({"ipmi_wrong_clock"})
    async with sensor(bmc, clock) as bound:
        (reading,) = await bound.read()
    assert (reading.value, reading.event_ns) == (412.0, clock.event_ns())


async def test_a_mix_of_units_is_handed_over_for_admission(bmc: IpmiBench, clock: Clock) -> None:
    bmc.plant.faults, bmc.plant.power_w = frozenset({"ipmi_mw_mix"}), 40.0
    async with sensor(bmc, clock) as bound:
        (reading,) = await bound.read()
    assert reading.value == 40_000.0


async def test_what_is_not_activated_is_no_reading(bmc: IpmiBench, clock: Clock) -> None:
    bmc.plant.faults = frozenset({"ipmi_not_activated"})
    async with sensor(bmc, clock) as bound:
        with pytest.raises(SensorGone, match="not activated") as caught:
            await bound.read()
        assert caught.value.fix
        bmc.plant.faults = frozenset()
        assert await bound.read()


async def test_a_wrong_password_is_tried_once_in_a_quarter_of_an_hour(
    bmc: IpmiBench, clock: Clock, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("false\n", encoding="ascii")
    async with sensor(bmc, clock, password_file=str(wrong)) as bound:
        with pytest.raises(SensorGone, match="does not let us in") as caught:
            await bound.read()
        assert "user" in caught.value.fix
        asked = bmc.exchanges
        clock.now_ns += 899 * S
        with pytest.raises(SensorGone, match="does not let us in"):
            await bound.read()
        assert bmc.exchanges == asked
        wrong.write_text("wort\n", encoding="ascii")
        clock.now_ns += 2 * S
        assert await bound.read()


async def test_several_sensors_try_a_wrong_password_once(
    bmc: IpmiBench, clock: Clock, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("false\n", encoding="ascii")
    asked = []
    more = {"password_file": str(wrong)}
    async with sensor(bmc, clock, **more) as one, sensor(bmc, clock, **more, sdr=True) as two:
        for bound in (one, two, one, two):
            clock.now_ns += S
            with pytest.raises(SensorGone, match="does not let us in"):
                await bound.read()
            asked.append(bmc.exchanges)
        assert len(set(asked)) == 1
        wrong.write_text("wort\n", encoding="ascii")
        clock.now_ns += 900 * S
        assert await one.read() and await two.read()


async def test_a_wrong_password_keeps_no_other_login_away(
    bmc: IpmiBench, clock: Clock, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("false\n", encoding="ascii")
    async with sensor(bmc, clock, password_file=str(wrong)) as one, sensor(bmc, clock) as two:
        with pytest.raises(SensorGone, match="does not let us in"):
            await one.read()
        assert await two.read()


async def test_a_password_file_that_is_not_there_is_told(bmc: IpmiBench, clock: Clock) -> None:
    async with sensor(bmc, clock, password_file="/nowhere/secret") as bound:
        with pytest.raises(SensorGone, match="/nowhere/secret") as caught:
            await bound.read()
    assert "chmod 0400 /nowhere/secret" in caught.value.fix


async def test_no_password_stands_on_a_command_line(bmc: IpmiBench, clock: Clock) -> None:
    await bmc.slow()
    async with sensor(bmc, clock) as bound:
        task = asyncio.create_task(bound.read())
        async with asyncio.timeout(60):
            await bmc.heard.wait()
        seen = await asyncio.to_thread(children)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen
    assert "wort" not in "".join(seen)


async def test_a_cancelled_question_ends_at_once_with_its_child(
    bmc: IpmiBench, clock: Clock
) -> None:
    await bmc.slow()
    async with sensor(bmc, clock) as bound:
        task = asyncio.create_task(bound.read())
        async with asyncio.timeout(60):
            await bmc.heard.wait()
        await cancelled(task)
        port = bmc.settings["url"].rpartition(":")[2]
        assert not [line for line in await asyncio.to_thread(children) if port in line]
        bmc.plant.faults = frozenset()
        assert await bound.read()


@pytest.mark.parametrize("fault", ["pull", "slow", "garble"])
async def test_a_fault_is_gone_with_a_cure_and_healed(
    bmc: IpmiBench, clock: Clock, fault: str
) -> None:
    async with sensor(bmc, clock, timeout_s=0.3) as bound:
        await getattr(bmc, fault)()
        with pytest.raises(SensorGone, match=r"0\.3 s") as caught:
            await bound.read()
        assert caught.value.fix
        await bmc.heal()
    async with sensor(bmc, clock) as bound:
        assert await bound.read()


async def test_a_bmc_that_fails_three_times_has_a_rest(bmc: IpmiBench, clock: Clock) -> None:
    bmc.plant.faults = frozenset({"ipmi_not_activated"})
    async with sensor(bmc, clock) as bound:
        for _ in range(5):
            with pytest.raises(SensorGone, match="not activated"):
                await bound.read()
    three = bmc.exchanges
    async with sensor(bmc, clock) as bound:
        with pytest.raises(SensorGone):
            await bound.read()
    assert bmc.exchanges == three + three // 3


async def test_two_sensors_of_one_bmc_wait_for_each_other(bmc: IpmiBench, clock: Clock) -> None:
    most = 0

    async def watched(bound: Any) -> None:
        nonlocal most
        task = asyncio.create_task(bound.read())
        while not task.done():
            port = bmc.settings["url"].rpartition(":")[2]
            running = [line for line in await asyncio.to_thread(children) if port in line]
            most = max(most, len(running))
        await task

    async with sensor(bmc, clock) as one, sensor(bmc, clock, id="two") as two:
        await asyncio.gather(*(watched(bound) for bound in (one, two, one, two)))
    assert most == 1


async def test_the_simulated_bmc_leaves_no_thread(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path) as bench, sensor(bench, clock) as bound:
        await bound.read()
    assert not Session.bmc_handlers
    names = {type(thread).__name__ for thread in threading.enumerate()}
    assert "_IOWorker" not in names
