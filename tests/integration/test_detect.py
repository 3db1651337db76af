"""Detect end to end: what it prints can be pasted, and it asks nobody else."""

import asyncio
import tomllib
from pathlib import Path

import msgspec
import pytest
from e2e.rig import free_port
from integration import bench_site
from integration.bench_site import Done, Site, ran
from integration.map_witness import MAPS, VALUES

from heatpool_agent.config import Config
from heatpool_agent.search.found import Found, name_of, toml
from heatpool_agent.search.hosts import split_host
from heatpool_agent.search.machine import serial_ports
from heatpool_agent.search.modbus import modbus
from heatpool_sim.devices.modbus_model import ModbusModel

REMOTE = ("modbus", "mbus", "redfish", "ipmi", "mqtt")


def place(site: Site, kind: str) -> str:
    """HOST:PORT of a bench."""
    return str(site.benches[kind].settings["url"]).partition("://")[2]


async def checked(folder: Path, text: str) -> Done:
    """`config check` of pasted text."""
    path = folder / "pasted.toml"
    await asyncio.to_thread(path.write_text, text)
    return await ran("config", "check", "--config", str(path), folder=folder)


async def test_named_hosts_are_recognised_and_their_blocks_can_be_pasted(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, *REMOTE) as site:
        places = [place(site, kind) for kind in REMOTE]
        done = await ran("detect", "--json", *places, folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.document["schema"] == "heatpool.detect/1"
    kind_at = {one["place"]: one["kind"] for one in done.document["found"]}
    assert [kind_at[name] for name in places] == list(REMOTE)
    blocks = {one["kind"]: one["block"] for one in done.document["found"]}
    assert blocks["modbus"]["map"] == "generic-cdu"
    assert (blocks["mbus"]["address"], blocks["mbus"]["meter_id"]) == (1, "HPS.12345678.1.4")
    assert blocks["mbus"] in tomllib.loads(done.document["toml"])["sensor"]
    pasted = await checked(tmp_path, done.document["toml"])
    assert (pasted.code, pasted.out.strip()) == (0, "no mistake found"), pasted.err


@pytest.mark.parametrize("name", MAPS)
async def test_every_model_is_told_from_all_others(name: str) -> None:
    async with ModbusModel(name).serve(VALUES) as address:
        found = await modbus(address.host, address.port)
    assert found is not None
    assert found.block["map"] == name
    assert not [said for said in found.seen if "could be meant" in said]


async def test_what_was_pasted_reads_what_is_there(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "modbus", "mbus") as site:
        found = await ran("detect", *map(place, [site] * 2, REMOTE), folder=tmp_path)
        path = tmp_path / "pasted.toml"
        await asyncio.to_thread(path.write_text, found.out)
        done = await ran("once", "--json", "--for", "0.1", "--config", str(path), folder=tmp_path)
    assert done.code == 0, done.err
    assert {"hot_c", "cold_c", "energy_wh"} <= {r["quantity"] for r in done.document["readings"]}


async def test_the_machines_own_sensors_are_listed_with_what_they_show(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "rapl") as site:
        path = await asyncio.to_thread(site.write)
        done = await ran("detect", "--config", path, folder=tmp_path)
    sensors = tomllib.loads(done.out)["sensor"]
    assert {"rapl", "hwmon", "host"} <= {sensor["kind"] for sensor in sensors}
    assert "1 package" in done.out
    assert (await checked(tmp_path, done.out)).code == 0


async def test_a_host_that_offers_nothing_is_told_by_exit_4(tmp_path: Path) -> None:
    done = await ran("detect", f"127.0.0.1:{free_port()}", folder=tmp_path)
    assert done.code == 4
    assert "nothing answers" in done.out
    assert (await checked(tmp_path, done.out)).code == 0


async def test_no_host_named_means_no_network(tmp_path: Path) -> None:
    # The trace of every socket that is not local would be the proof; what it says is the next best.
    done = await ran("detect", "--json", folder=tmp_path)
    assert done.code == 0
    assert {one["place"] for one in done.document["found"]} <= {"this machine"}


@pytest.mark.parametrize("host", ["", "a b", "http://x/", "x:0", "x:99999", "x:y"])
async def test_what_is_no_host_is_refused_with_exit_2(tmp_path: Path, host: str) -> None:
    done = await ran("detect", host, folder=tmp_path)
    assert (done.code, done.out) == (2, "")


PLACES = [
    ("bmc.example", ("bmc.example", None)),
    ("192.0.2.8:502", ("192.0.2.8", 502)),
    ("[2001:db8::7]:443", ("2001:db8::7", 443)),
    ("2001:db8::7", ("2001:db8::7", None)),
    ("[2001:db8::7]", ("2001:db8::7", None)),
]


@pytest.mark.parametrize(("text", "expected"), PLACES)
def test_a_host_may_have_a_port(text: str, expected: tuple[str, int | None]) -> None:
    assert split_host(text) == expected


def test_serial_ports_are_listed_by_their_lasting_names(tmp_path: Path) -> None:
    (tmp_path / "serial/by-id").mkdir(parents=True)
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "serial/by-id/usb-adapter").symlink_to(tmp_path / "ttyUSB0")
    (one,) = serial_ports(tmp_path)
    assert one.block["url"] == f"serial:{tmp_path}/serial/by-id/usb-adapter?baud=2400"
    text = toml([one])
    assert tomllib.loads(text) == {}
    assert "[[sensor]]" in text


@pytest.mark.parametrize("host", ["192.0.2.8", "fe80::1%eth0", "x" * 90, "münchen"])
def test_ids_of_findings_hold_as_ids(host: str) -> None:

    block = {"id": name_of("modbus", host, 502), "kind": "modbus"}
    text = toml([Found(place=host, kind="modbus", block=block)])
    msgspec.convert(tomllib.loads(text), Config)


def test_what_a_device_says_of_itself_stays_a_comment() -> None:
    said = "\x1b[31mred\n[[sensor]]\r\nid = 1\u2028\x7f"
    assert tomllib.loads(toml([Found(place="h", kind="redfish", seen=(said,))])) == {}
