"""The operator's command as its own process against a real server."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from heatpool.sample import SiteId
from heatpool_aggregator.ports import Event

T0 = 1_790_000_100 * 10**9
CLIENT = (sys.executable, "-W", "error", "-m", "heatpool_aggregator.client")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left behind."""

    rc: int
    out: str
    err: str


async def heatpool(*arguments: str, address: str = "") -> Ended:
    environ = {**os.environ, **({"HEATPOOL_ADDRESS": address} if address else {})}
    process = await asyncio.create_subprocess_exec(
        *CLIENT,
        *arguments,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(150):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_sites_are_a_table_in_kilo_with_doubt_and_class(rig: Any) -> None:
    ended = await heatpool("sites", "--address", rig.address)
    assert (ended.rc, ended.err) == (0, "")
    header, first, second = ended.out.splitlines()
    assert header.split("  ")[0] == "site"
    assert "±2u kW" in header and "hot °C" in header
    assert first.split() == [
        *("site-1", "vs-greenhouse", "41.250", "1.641", "B", "58.2", "41.5"),
        *("1234.567", "30.000", "fresh,", "effect", "seen"),
    ]
    held = "stale, clock 43200 s ahead, rows wait for its clock"
    assert second.split() == ["site-2", *["-"] * 8, *held.split()]


@pytest.mark.parametrize(
    ("command", "schema", "field"),
    [
        ("sites", "heatpool.sites/1", "sites"),
        ("sources", "heatpool.sources/1", "virtual_sources"),
        ("statement", "heatpool.statement/1", "statement"),
        ("gaps", "heatpool.gaps/1", "gaps"),
    ],
)
async def test_json_is_one_document_with_its_schema(
    rig: Any, command: str, schema: str, field: str
) -> None:
    ended = await heatpool(command, "--json", address=rig.address)
    document = json.loads(ended.out)
    assert (ended.rc, document["schema"], list(document)) == (0, schema, ["schema", field])


async def test_json_keeps_units_and_absence(rig: Any) -> None:
    document = json.loads((await heatpool("sites", "--json", address=rig.address)).out)
    first, second = document["sites"]
    assert (first["heat_rate_w"], first["quality_class"], first["provenance"]) == (
        41_250.0,
        "B",
        "fused",
    )
    assert (second["heat_rate_w"], second["energy_wh"], second["setpoint"]) == (None, None, None)
    clocks = [(site["clock_offset_s"], site["is_clock_held"]) for site in (first, second)]
    assert clocks == [(None, False), (-43_200.5, True)]


async def test_a_statement_shows_registers_sums_and_who_is_missing(rig: Any) -> None:
    ended = await heatpool("statement", address=rig.address)
    assert ended.out.startswith("period 2026-09-21T14:15:00Z to 2026-09-21T14:30:00Z, incomplete\n")
    assert "99999000        9312      10312    45.00  0.46  hpa-1      roll-over" in ended.out
    assert "sum of vs-greenhouse: 10.312 kWh, 0.46 EUR\n" in ended.out
    assert "missing: site-2: point meter has no register" in ended.out


async def test_sources_show_members_and_coverage(rig: Any) -> None:
    ended = await heatpool("sources", address=rig.address)
    assert ended.out.splitlines()[1].split()[-2:] == ["1/2", "50"]


async def test_gaps_show_queue_and_reason(rig: Any) -> None:
    detail = json.dumps({"boot_id": "b1", "first_seq": 3, "last_seq": 9, "reason": "dropped"})
    event = Event(site_id=SiteId("site-1"), name="gap", event_ns=T0, detail=detail, key="k")
    await rig.store.events.put([event])
    ended = await heatpool("gaps", "--site", "site-1", address=rig.address)
    assert ended.out.splitlines()[1].split() == [
        *("site-1", "b1", "3", "9", "2026-09-21T14:15:00Z", "-", "dropped")
    ]


async def test_a_time_without_statement_is_one_line_and_status_1(rig: Any) -> None:
    ended = await heatpool("statement", "--at", "2026-12-01T00:00:00Z", address=rig.address)
    assert (ended.rc, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "is not closed" in ended.err and "NOT_FOUND" in ended.err
    assert "around 2026-12-01T00:00:00Z" in ended.err and " ns" not in ended.err


async def test_a_full_disk_is_one_line_and_status_1(rig: Any) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(
            *CLIENT, "sites", "--address", rig.address, stdout=full, stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()
    finally:
        os.close(full)
    assert (process.returncode, err.count(b"\n")) == (1, 1), err
    assert b"No space left" in err


async def test_nobody_there_is_one_line_and_status_69(unused_tcp_port: int) -> None:
    ended = await heatpool("sites", address=f"127.0.0.1:{unused_tcp_port}")
    assert (ended.rc, ended.out, ended.err.count("\n")) == (69, "", 1)
    assert f"127.0.0.1:{unused_tcp_port} does not answer" in ended.err
    assert "HEATPOOL_ADDRESS" in ended.err


async def test_debug_shows_where_it_failed_and_keeps_the_status(unused_tcp_port: int) -> None:
    ended = await heatpool("sites", "--debug", address=f"127.0.0.1:{unused_tcp_port}")
    assert "Traceback" in ended.err and "UplinkError" in ended.err
    assert ended.rc == 69


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("sites", "--address", "nowhere"), "is no HOST:PORT"),
        (("sites", "--address", "127.0.0.1:99999"), "is no HOST:PORT"),
        (("statement", "--at", "noon"), "is no time"),
        (("statement", "--at", "2026-03-01T12:00:00"), "has no zone"),
        (("statement", "--at", "0001-01-01T00:00:00Z"), "between 1970 and 2262"),
        (("statement", "--at", "9999-12-31T23:59:59Z"), "between 1970 and 2262"),
        (("pools",), "No such command"),
    ],
)
async def test_wrong_usage_is_status_2(arguments: tuple[str, ...], reason: str) -> None:
    ended = await heatpool(*arguments)
    assert (ended.rc, reason in ended.err, "Traceback" in ended.err) == (2, True, False)


async def test_it_says_its_version() -> None:
    ended = await heatpool("--version")
    assert (ended.rc, ended.out.startswith("heatpool, version ")) == (0, True)


async def test_it_starts_without_numpy_or_the_server_rooms() -> None:
    code = (
        "import sys, heatpool_aggregator.client.__main__\n"
        "heavy = {'numpy', 'aiohttp', 'sqlite3', 'prometheus_client', 'msgspec'}\n"
        "rooms = ('rpc', 'web', 'loops', 'logs', 'stores', 'exports', 'config')\n"
        "heavy |= {f'heatpool_aggregator.{room}' for room in rooms}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.decode().strip()) == (0, "[]")
