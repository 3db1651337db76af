"""The local operator's override over the page: from this machine, as JSON, with an end."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from integration.site_board import NS, StoppedClock, filled

from heatpool_agent.commands.override import command
from heatpool_agent.core.override import OverrideAsk
from heatpool_agent.core.safety import Override
from heatpool_agent.http import serve
from heatpool_agent.kept_orders import OverrideFile

WISH = {"for_s": 3600, "reason": "filter is changed"}


@pytest.fixture
def file(tmp_path: Path) -> OverrideFile:
    return OverrideFile(tmp_path)


@pytest.fixture
async def site(file: OverrideFile) -> AsyncIterator[aiohttp.ClientSession]:
    clock = StoppedClock()
    board = filled(clock)
    async with (
        serve("127.0.0.1:0", board, clock, period_s=1.0, override=file) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        yield client


async def post(site: aiohttp.ClientSession, **change: Any) -> tuple[int, dict[str, Any]]:
    async with site.post("/v1/override", **{"json": WISH, **change}) as answer:
        return answer.status, json.loads(await answer.text())


async def test_an_override_is_asked_and_ended(
    site: aiohttp.ClientSession, file: OverrideFile
) -> None:
    status, told = await post(site)
    asked = file.read()
    assert asked is not None
    assert (status, told) == (200, {"until_ns": asked.until_ns, "reason": "filter is changed"})
    assert asked.until_ns - asked.asked_ns == 3600 * NS
    assert await post(site, json={"end": True, "reason": "done"}) == (200, {"ended": True})
    assert file.read() is None
    assert await post(site, json={"end": True}) == (200, {"ended": False})


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"json": {"for_s": -1, "reason": "x"}}, 400),
        ({"json": {"for_s": 1e9, "reason": "x"}}, 400),
        ({"json": {"for_s": 60}}, 400),
        ({"json": {"reason": "x"}}, 400),
        ({"json": {"for_s": 60, "reason": "x", "heat_rate_w": 9}}, 400),
        ({"json": None, "data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        (
            {"json": None, "data": b"x" * 99_999, "headers": {"Content-Type": "application/json"}},
            400,
        ),
        ({"json": None, "data": json.dumps(WISH)}, 403),
        ({"headers": {"Host": "heat.example:80"}}, 421),
        ({"headers": {"Origin": "http://evil.example"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
    ],
)
async def test_what_is_no_override_of_this_machine_changes_nothing(
    site: aiohttp.ClientSession, file: OverrideFile, change: dict[str, Any], status: int
) -> None:
    found, told = await post(site, **change)
    assert (found, told["status"]) == (status, status)
    assert file.read() is None


async def test_refusals_are_told_once_for_each_caller_and_reason(
    site: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await post(site, headers={"Origin": "null"})
        await post(site, json=None, data="{}")
    assert [one.message for one in caplog.records] == ["override.refused"] * 2


async def test_reading_the_override_s_address_says_what_it_takes(
    site: aiohttp.ClientSession,
) -> None:
    async with site.get("/v1/override") as answer:
        assert answer.status == 405
        assert "takes POST alone" in (await answer.json(content_type=None))["detail"]


async def test_a_page_without_the_file_takes_none() -> None:
    clock = StoppedClock()
    async with (
        serve("127.0.0.1:0", filled(clock), clock, period_s=1.0) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
        client.post("/v1/override", json=WISH) as answer,
    ):
        assert answer.status == 404


async def test_an_override_is_on_the_page_in_the_status_and_in_the_metrics() -> None:
    clock = StoppedClock()
    board = filled(clock)
    board.override = Override(
        heat_rate_w=None,
        ends_boot_ns=clock.boot_ns() + 90 * NS,
        reason="local override until 2026-01-01T00:00:00Z: <b>filter</b>",
    )
    async with (
        serve("127.0.0.1:0", board, clock, period_s=1.0) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        page = await (await client.get("/")).text()
        assert "Local override" in page
        assert "&lt;b&gt;filter" in page
        told = (await (await client.get("/v1/status")).json())["override"]
        assert (told["left_s"], told["until_ns"]) == (90.0, clock.event_ns() + 90 * NS)
        assert "heatpool_override_seconds 90.0" in await (await client.get("/metrics")).text()
        board.override = None
        assert (await (await client.get("/v1/status")).json())["override"] is None


def run(tmp_path: Path, *words: str) -> tuple[int, str]:
    config = tmp_path / "agent.toml"
    config.write_text(f'[site]\nid = "e1"\nstate_dir = "{tmp_path / "state"}"\n')
    done = CliRunner().invoke(command, ["--config", str(config), *words])
    return done.exit_code, done.output


def test_the_command_asks_and_ends(tmp_path: Path) -> None:
    file = OverrideFile(tmp_path / "state")
    code, told = run(tmp_path, "--for", "2h", "--reason", "filter")
    assert (code, "all heat is rejected here until" in told) == (0, True)
    asked = file.read()
    assert isinstance(asked, OverrideAsk)
    assert asked.until_ns - asked.asked_ns == 7200 * NS
    assert run(tmp_path, "--end") == (0, "the override has ended\n")
    assert file.read() is None
    assert run(tmp_path, "--end") == (0, "there was no override\n")


@pytest.mark.parametrize(
    "words",
    [(), ("--for", "2h"), ("--for", "8d", "--reason", "x"), ("--for", "2", "--reason", "x")],
)
def test_the_command_wants_a_length_and_a_reason(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run(tmp_path, *words)[0] == 2
    assert OverrideFile(tmp_path / "state").read() is None
