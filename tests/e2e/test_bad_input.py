"""What people and lines do wrong: one clear line each, and no daemon ends by it."""

import asyncio
import socket
from pathlib import Path

import pytest
from e2e.rig import PATIENCE_S, Program, Rig, aggregator_toml, free_port, rig, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


async def sensor_becomes(running: Rig, state: str) -> str:
    """What is told of the heat meter once it is in that state."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = await running.agent_status("e1")
            (meter,) = [sensor for sensor in status["sensors"] if sensor["id"] == "meter"]
            if meter["state"] == state:
                detail: str = meter["detail"]
                return detail
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("fault", ["checksum_wrong", "meter_offline", "busy"])
async def test_a_meter_that_misbehaves_is_told_and_picked_up_again(
    tmp_path: Path, fault: str
) -> None:
    async with rig(tmp_path, sites=1) as running:
        await sensor_becomes(running, "up")
        running.fleet.inject("e1", fault)
        detail = await sensor_becomes(running, "busy" if fault == "busy" else "gone")
        assert detail
        running.fleet.clear("e1", fault)
        await sensor_becomes(running, "up")
        log = running.agents["e1"].log_tail()
        assert "Traceback" not in log
        assert 1 <= log.count("warning sensor.") <= 4, "each state is told once, not each try"


async def test_a_site_that_nobody_knows_is_refused_and_goes_on_alone(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=2) as running:
        stranger = running.agents["e2"]
        assert await stranger.stop() == 0
        stranger.settings = stranger.settings.replace('id = "e2"', 'id = "nobody"')
        await stranger.start()
        await until(lambda: "PERMISSION_DENIED" in stranger.log_tail())
        assert "nobody" in stranger.log_tail()
        assert stranger.child is not None and stranger.child.poll() is None
        async with asyncio.timeout(PATIENCE_S):
            while not await keeps(running):  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.2)
        await running.eventually("/v1/status", lambda a: a["ingest"]["streams"] >= 1)
        assert "Traceback" not in running.aggregator.log_tail()
        assert "Traceback" not in stranger.log_tail()


async def keeps(running: Rig) -> int:
    """Billing batches that the stranger holds and nobody took."""
    status = await running.agent_status("e2")
    count: int = status["spool"]["billing"]["unacked"]
    return count


async def ended(folder: Path, settings: str) -> tuple[int, str]:
    """Exit code and last words of an aggregator that cannot start."""
    program = Program("heatpool_aggregator", folder, settings, "aggregator")
    with pytest.raises(AssertionError):
        await program.start()
    assert program.child is not None
    return program.child.wait(), program.log_tail()


async def test_an_aggregator_s_bad_config_lists_every_mistake(tmp_path: Path) -> None:
    settings = """
[listen]
grpc = 5
[settlement]
period_s = 0
[[virtual_source]]
id = "a b"
kind = "sauna"
agreement = { id = "x", price_eur_mwh = "dear" }
colour = "red"
"""
    code, words = await ended(tmp_path, settings)
    assert code == 2
    for key in (
        "listen.grpc",
        "settlement.period_s",
        "virtual_source[0].id",
        "virtual_source[0].kind",
        "virtual_source[0].agreement.price_eur_mwh",
        "virtual_source[0].colour",
    ):
        assert key in words
    assert "Traceback" not in words


@pytest.mark.parametrize("door", ["web", "grpc"])
async def test_a_port_in_use_gets_one_clear_line(tmp_path: Path, door: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        doors = {"web": f"127.0.0.1:{free_port()}", "grpc": f"127.0.0.1:{free_port()}"}
        doors[door] = address
        code, words = await ended(tmp_path, aggregator_toml(tmp_path, ["e1"], **doors))
    assert code == 1
    assert address in words.splitlines()[-1]
    assert "Traceback" not in words


async def test_an_aggregator_beyond_loopback_says_why_not(tmp_path: Path) -> None:
    settings = aggregator_toml(tmp_path, ["e1"], web="127.0.0.1:0", grpc="0.0.0.0:8443")
    code, words = await ended(tmp_path, settings)
    assert code == 2
    assert "without certificates" in words
