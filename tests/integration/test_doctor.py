"""Doctor end to end: the real program against simulated devices, whole ones and broken ones."""

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from e2e.rig import free_port
from integration import bench_site, redfish_bench
from integration.bench_site import Site, ran
from ports.machine_bench import GPU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from heatpool_agent.spool_files import exclusive

LOOP = '[[loop]]\nid = "rack"\nfluid = "pg25_vol"\nsensor_side = "cold"\n'
# What the list of checks in the design names; more may come.
LEAST = {
    "python", "gpu_bindings", "rapl_readable", "rapl_twins", "psys", "container_mask",
    "virtual_machine", "perf_event_paranoid", "nvml", "gpu_power_state", "ipmi_device",
    "serial_ports", "clock", "disk", "spool", "spool_modes", "certificate", "aggregator",
    "http_port", "watchdog", "counter_gauge", "billing_meter", "heat_balance", "rejection",
}  # fmt: skip
SITE_KINDS = ("rapl", "nvml", "modbus", "mbus", "redfish")


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


async def test_a_bare_machine_gets_at_least_18_checks_and_no_failure(tmp_path: Path) -> None:
    done = await Site(tmp_path).doctor()
    assert done.code == 0, done.out
    assert done.document["schema"] == "heatpool.doctor/1"
    checks = done.document["checks"]
    assert {one["id"] for one in checks} >= LEAST
    assert {one["status"] for one in checks} <= {"OK", "WARN", "SKIP"}
    assert [one for one in checks if one["status"] == "WARN" and not one["fix"]] == []


async def test_a_whole_site_is_found_sound(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, *SITE_KINDS) as site:
        done = await site.doctor(LOOP)
    assert done.code == 0, done.out
    for name in ("sensor:rapl", "sensor:nvml", "endpoint:modbus", "endpoint:mbus"):
        assert done.check(name)["status"] == "OK"
        assert " ms" in done.check(name)["found"]
    assert done.check("bmc_login:redfish")["status"] == "OK"
    assert done.check("word_order:modbus")["status"] == "OK"
    assert "HPS.12345678" in done.check("meter:mbus")["found"]
    assert done.check("loop:rack")["status"] == "OK"


async def test_heat_and_electricity_of_a_loop_are_held_against_each_other(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "modbus") as site:
        site.blocks[0]["loop"] = "rack"
        sound = await site.doctor(LOOP)
        site.benches["modbus"].plant.shown.rack_electric_w = 9_100.0
        missing = await site.doctor(LOOP)
    assert sound.check("heat_balance")["status"] == "OK"
    assert missing.check("heat_balance")["status"] == "WARN"
    assert "name every load of the loop" in missing.check("heat_balance")["fix"]


async def test_doctor_leaves_no_file_behind(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await asyncio.to_thread(site.write)
    before = await asyncio.to_thread(everything, tmp_path)
    await ran("doctor", "--config", str(tmp_path / "agent.toml"), folder=tmp_path)
    assert await asyncio.to_thread(everything, tmp_path) == before


async def test_a_sleeping_card_is_left_asleep(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "nvml") as site:
        status = site.benches["nvml"].roots.sys / "bus/pci/devices" / GPU / "power/runtime_status"
        await asyncio.to_thread(status.write_text, "suspended\n")
        library = Path(site.roots["nvml"])
        done = await site.doctor()
        calls = await asyncio.to_thread(_calls, library)
    assert "suspended; none was woken" in done.check("gpu_power_state")["found"]
    assert calls == []


def _calls(library: Path) -> Sequence[str]:
    """Calls that the simulated library was asked for since the bench opened."""
    log = library.with_name("calls")
    return log.read_text().split() if log.exists() else []


@pytest.fixture
def as_user(tmp_path: Path) -> Iterator[list[str]]:
    """The start of a command line that runs as somebody else; root may read everything."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv is None:
        pytest.skip("runs as root, and setpriv is not installed")
    yield [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"] if setpriv else []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can look into; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="heatpool-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_unreadable_counters_fail_with_the_line_that_opens_them(
    open_folder: Path, as_user: list[str]
) -> None:
    async with bench_site.opened(open_folder, "rapl") as site:
        powercap = Path(site.roots["sys"]) / "class/powercap"
        path = await asyncio.to_thread(site.write)
        await asyncio.to_thread(_open_to_others, open_folder)
        child = await asyncio.create_subprocess_exec(
            *as_user, sys.executable, "-m", "heatpool_agent", "doctor", "--json", "--config", path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "XDG_STATE_HOME": str(open_folder / "state")},
        )  # fmt: skip
        out, err = await child.communicate()
    if not out:
        pytest.skip(f"another user cannot run this interpreter: {err.decode()[-200:]}")
    done = bench_site.Done(code=child.returncode or 0, out=out.decode(), err=err.decode())
    check = done.check("rapl_readable")
    assert (done.code, check["status"]) == (1, "FAIL")
    assert f"z {powercap}/intel-rapl*/energy_uj 0440 root heatpool" in check["fix"]
    assert f"chgrp heatpool {powercap}/intel-rapl*/energy_uj" in check["fix"]
    assert done.check("sensor:rapl")["status"] == "FAIL"


def _open_to_others(folder: Path) -> None:
    """Everything but the counters, which are for root alone as the kernel has them."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in folder.rglob("energy_uj"):
        path.chmod(0o400 if os.geteuid() == 0 else 0)


async def test_a_wrong_word_order_fails_with_the_right_one(tmp_path: Path) -> None:
    # Energy-like figures as the generic unit sends them, each pair of words turned round.
    words = [5123, 0, 3021, 4512, 655, 1000, 22118, 1, 9, 0xFFFF, 25464, 1]
    data = SimData(0, values=words, datatype=DataType.REGISTERS)
    port = free_port()
    server = ModbusTcpServer([SimDevice(id=1, simdata=[data])], address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        site = Site(tmp_path)
        url = f"tcp://127.0.0.1:{port}"
        site.blocks = [{"id": "cdu", "kind": "modbus", "url": url, "map": "generic-cdu"}]
        done = await site.doctor()
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]
    check = done.check("word_order:cdu")
    assert (done.code, check["status"]) == (1, "FAIL")
    assert 'word_order = "CDAB"' in check["fix"]


async def test_a_silent_device_fails_soon_with_what_to_do(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "modbus", "mbus", "redfish") as site:
        for bench in site.benches.values():
            await bench.slow()
        start_s = asyncio.get_running_loop().time()
        done = await site.doctor(LOOP)
        # Nobody's own patience: a minute for a BMC.
        assert asyncio.get_running_loop().time() - start_s < 45.0
    assert done.code == 1
    for name in ("endpoint:modbus", "endpoint:mbus"):
        check = done.check(name)
        assert check["status"] == "FAIL", check
        assert check["why"]
        assert check["fix"]
    # A slow BMC is no silent one: it lets us in, and its figures do not come in this time.
    assert done.check("endpoint:redfish")["status"] in ("WARN", "FAIL")
    assert done.check("endpoint:redfish")["fix"]


async def test_another_meter_than_the_expected_one_fails(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "mbus") as site:
        site.blocks[0] |= {"meter_id": "99999999", "role": "billing"}
        done = await site.doctor()
    check = done.check("meter:mbus")
    assert (done.code, check["status"]) == (1, "FAIL")
    assert 'meter_id = "HPS.12345678' in check["fix"]


async def test_a_battery_meter_is_read_once(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "mbus") as site:
        before = site.benches["mbus"].exchanges
        await site.doctor()
        # One connection, one reset of the link, one request.
        assert site.benches["mbus"].exchanges - before == 3


async def test_a_wrong_login_fails_and_says_whom_to_ask(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "redfish") as site:
        secret = Path(site.blocks[0]["password_file"])
        await asyncio.to_thread(secret.write_text, "wrong\n")
        done = await site.doctor()
    check = done.check("bmc_login:redfish")
    assert (done.code, check["status"]) == (1, "FAIL")
    assert check["fix"]


async def test_a_password_that_is_not_there_is_told_once_with_its_command(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "redfish") as site:
        secret = Path(site.blocks[0]["password_file"])
        await asyncio.to_thread(secret.unlink)
        done = await site.doctor()
    assert f"chmod 0400 {secret}" in done.check("bmc_login:redfish")["fix"]
    assert done.check("endpoint:redfish")["status"] == "SKIP"
    assert done.check("endpoint:redfish")["found"] == "see bmc_login:redfish"


@pytest.mark.parametrize(("off_s", "status"), [(0.0, "OK"), (-3600.0, "WARN")])
async def test_a_bmc_tells_its_slots_and_its_clock(
    tmp_path: Path, off_s: float, status: str
) -> None:
    bench = redfish_bench.Bmc(tmp_path)
    told = datetime.fromtimestamp(time.time() + off_s, UTC).isoformat()
    pages = (
        redfish_bench.resource("Managers/1", "Manager", DateTime=told),
        redfish_bench.members("Managers", "ManagerCollection", "1"),
    )
    bench.tree.resources |= {page["@odata.id"]: page for page in pages}
    bench.tree.resources[redfish_bench.ROOT]["Managers"] = redfish_bench.link("Managers")
    site = Site(tmp_path)
    login = {"user": redfish_bench.USER, "password_file": str(bench.secret)}
    async with bench.serving():
        site.blocks = [{"id": "bmc", "kind": "redfish", "url": bench.url, **login}]
        done = await site.doctor()
        # Who came in is out again: no slot stays taken.
        assert len(bench.asked("DELETE")) == len(bench.asked("POST")) == 1
    assert done.check("bmc_slots:bmc")["status"] == "OK"
    assert "1 sessions open" in done.check("bmc_slots:bmc")["found"]
    assert done.check("bmc_clock:bmc")["status"] == status


async def test_an_agent_beside_turns_refusals_into_warnings(tmp_path: Path) -> None:
    site = Site(tmp_path)
    url = f"tcp://127.0.0.1:{free_port()}"
    site.blocks = [{"id": "cdu", "kind": "modbus", "url": url, "map": "generic-cdu"}]
    spool = tmp_path / "spool"
    extra = f'[site]\nstate_dir = "{spool}"\n'
    alone = await site.doctor(extra)
    assert alone.check("endpoint:cdu")["status"] == "FAIL"
    lock = await asyncio.to_thread(exclusive, spool)
    try:
        beside = await site.doctor(extra)
    finally:
        lock.close()
    assert beside.check("agent_beside")["status"] == "WARN"
    assert beside.check("endpoint:cdu")["status"] == "WARN"
    assert "systemctl stop heatpool-agent" in beside.check("endpoint:cdu")["fix"]


async def test_damage_in_the_spool_is_found_and_not_touched(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    await asyncio.to_thread(spool.mkdir)
    await asyncio.to_thread(
        (spool / "telemetry.db").write_bytes, b"SQLite format 3\0" + b"x" * 9000
    )
    before = await asyncio.to_thread(everything, spool)
    done = await Site(tmp_path).doctor(f'[site]\nstate_dir = "{spool}"\n')
    assert done.check("spool")["status"] == "FAIL"
    assert "sqlite3" in done.check("spool")["fix"]
    assert await asyncio.to_thread(everything, spool) == before


async def test_a_taken_port_and_a_missing_aggregator_fail(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        done = await site.doctor(
            f'[aggregator]\nurl = "http://127.0.0.1:{free_port()}"\n',
            HEATPOOL__HTTP__LISTEN=f"127.0.0.1:{number}",
        )
    assert done.code == 1
    assert f"sport = :{number}" in done.check("http_port")["fix"]
    assert "heatpool-aggregator run" in done.check("aggregator")["fix"]


async def test_something_else_at_the_aggregators_address_is_no_aggregator(tmp_path: Path) -> None:
    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(chat, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        done = await Site(tmp_path).doctor(f'[aggregator]\nurl = "http://127.0.0.1:{port}"\n')
    assert "not as an aggregator" in done.check("aggregator")["found"]


async def test_settings_with_mistakes_end_with_exit_2(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.blocks = [{"id": "x", "kind": "modbus", "url": "nowhere", "map": "generic-cdu"}]
    done = await site.doctor()
    assert (done.code, done.out) == (2, "")
    assert "sensor[0]" in done.err


async def test_for_people_what_fails_stands_on_top_and_fits_100_columns(tmp_path: Path) -> None:
    site = Site(tmp_path)
    url = f"tcp://127.0.0.1:{free_port()}"
    site.blocks = [{"id": "cdu", "kind": "modbus", "url": url, "map": "generic-cdu"}]
    path = await asyncio.to_thread(site.write)
    done = await ran("doctor", "--config", path, folder=tmp_path)
    lines = done.out.splitlines()
    assert lines[0].startswith("FAIL  endpoint:cdu")
    assert lines[1].startswith("      why: ")
    assert "      fix: " in done.out
    assert lines[-1].endswith("SKIP")
    # What cannot be broken, such as a path, may be longer.
    assert [line for line in lines if len(line) > 100 and " " in line.strip()[40:]] == []
    assert json.dumps(done.out).count("\\u001b") == 0
