"""`heatpool setpoint`, `setpoints` and `audit` against a whole aggregator; the site is played."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
from click.testing import CliRunner
from integration.door.calls import hello_of, stream

from heatpool.process.settings import convert
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointReport, SetpointState
from heatpool_aggregator import app
from heatpool_aggregator.client.__main__ import main
from heatpool_aggregator.config import Config
from heatpool_aggregator.wire.control import report_to_bytes

grpc.aio.init_grpc_aio()

SOURCE = {
    "id": "both",
    "kind": "greenhouse",
    "agreement": {"id": "HPA-1", "price_eur_mwh": "30"},
    "member": [{"site_id": "e1"}],
}
CONFIG = convert(
    {"listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}, "virtual_source": [SOURCE]}, Config
)
ORDER = ("setpoint", "e1", "--heat-rate-w", "0", "--lease", "60s", "--reason", "warm")


@dataclass(frozen=True)
class Office:
    """An aggregator, asked by its own command."""

    address: str
    folder: Path

    async def says(self, *words: str) -> tuple[int, str]:
        """Exit status, and what was said on both outputs."""
        arguments = [*words, "--address", self.address]
        done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        return done.exit_code, done.output


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with app.serving(CONFIG, tmp_path) as addresses:
        yield Office(addresses["grpc"], tmp_path)


def report(seq: int, state: SetpointState, detail: str) -> bytes:
    return report_to_bytes(
        SetpointReport(
            site_id=SiteId("e1"), setpoint_seq=seq, state=state, event_ns=seq + 1, detail=detail
        )
    )


async def play(office: Office, *answers: tuple[SetpointState, str]) -> None:
    """A site that answers the next order so."""
    async with (
        grpc.aio.insecure_channel(office.address) as channel,
        stream(channel, "Control") as control,
    ):
        await control.send(hello_of("e1"))
        while not (said := await control.next()).HasField("setpoint"):
            pass
        for state, detail in answers:
            await control.send(report(said.setpoint.setpoint_seq, state, detail))
        await asyncio.Event().wait()


async def watched(office: Office, *answers: tuple[SetpointState, str]) -> tuple[int, str]:
    playing = asyncio.create_task(play(office, *answers), name="site")
    try:
        return await office.says(*ORDER, "--watch")
    finally:
        playing.cancel()
        await asyncio.wait([playing])


async def test_watching_ends_well_when_the_effect_is_seen(office: Office) -> None:
    code, told = await watched(
        office,
        (SetpointState.RECEIVED, ""),
        (SetpointState.APPLIED, "applied 0 W"),
        (SetpointState.EFFECT_SEEN, "meter went 900 W to 0 W"),
    )
    assert code == 0, told
    assert [word in told for word in ("received", "applied 0 W", "effect seen")] == [True] * 3


async def test_watching_ends_ill_when_the_site_refuses(office: Office) -> None:
    code, told = await watched(office, (SetpointState.REFUSED, "pump stands"))
    assert code == 1
    assert "refused" in told
    assert "pump stands" in told
    assert "pump stands" in (await office.says("setpoints"))[1]


async def test_orders_and_deeds_are_listed_for_people_and_programs(office: Office) -> None:
    code, told = await office.says(*ORDER)
    assert (code, "planned" in told) == (0, True)
    assert "the site is not connected" in told
    assert "what becomes of it: heatpool setpoints --site e1; --watch" in told
    code, told = await office.says("setpoints", "--site", "e1")
    assert code == 0
    assert told.split("\n")[1].endswith("warm    the site is not connected")
    assert told.split("\n")[1].split()[:2] == ["e1", "-"]
    (row,) = json.loads((await office.says("setpoints", "--json"))[1])["setpoints"]
    assert (row["state"], row["asked_by"], row["lease_s"]) == ("planned", "local", 60.0)
    code, told = await office.says("setpoint", "e1", "--end", "--reason", "enough")
    assert code == 0
    assert "superseded   ended by local: enough" in told
    assert (await office.says("setpoint", "e1", "--end", "--reason", "again")) == (
        0,
        "there was no order to end\n",
    )
    entries = json.loads((await office.says("audit", "--json"))[1])["entries"]
    by_person = [e for e in entries if e["who"] != "aggregator"]
    assert [(e["action"], e["reason"]) for e in by_person] == [
        ("setpoint.end", "enough"),
        ("setpoint.set", "warm"),
    ]
    _, told = await office.says("audit")
    # For people there is no raw JSON.
    assert ("setpoint.end" in told, "{" in told) == (True, False)


async def test_a_log_that_was_changed_afterwards_is_told(office: Office) -> None:
    for _ in range(3):
        await office.says(*ORDER)
    code, told = await office.says("audit", "--verify")
    assert (code, " entries, newest hash " in told) == (0, True)
    changed = sqlite3.connect(office.folder / "audit.db")
    for (name,) in changed.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        changed.execute(f"DROP TRIGGER {name}")
    changed.execute("UPDATE entries SET reason = 'cold' WHERE number = 2")
    changed.commit()
    changed.close()
    code, told = await office.says("audit", "--verify", "--json")
    assert (code, json.loads(told)["first_break"]) == (1, 2)


@pytest.mark.parametrize(
    "words",
    [
        ("setpoint", "e1", "--reason", "x"),
        ("setpoint", "e1", "--heat-rate-w", "1"),
        ("setpoint", "e1", "--heat-rate-w", "1", "--reason", "x", "--lease", "10"),
        ("setpoint", "e1", "--heat-rate-w", "1", "--reason", "x", "--lease", "29s"),
        ("setpoint", "e1", "--heat-rate-w", "1", "--reason", "x", "--lease", "16m"),
        ("setpoint", "e1", "--heat-rate-w", "1", "--reason", "x", "--until", "soon"),
        ("setpoint", "e1", "--heat-rate-w", "1", "--reason", "x", "--until", "8d"),
        ("setpoint", "e1", "--heat-rate-w", "-1", "--reason", "x"),
        ("setpoint", "e1", "--heat-rate-w", "1", "--reason", "x", "--end"),
        ("setpoints", "--limit", "0"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, list(words)).exit_code == 2


async def test_a_refused_order_says_why_and_ends_with_one(office: Office) -> None:
    code, told = await office.says(
        "setpoint", "e1", "--heat-rate-w", "1", "--hot-c", "500", "--reason", "x"
    )
    assert (code, "hot_c is 500" in told) == (1, True)
