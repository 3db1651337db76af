"""The agent as its operator meets it: commands, exit codes, bad input, devices that come and go."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from e2e.rig import free_port

from heatpool_sim import app
from heatpool_sim.devices.modbus_cdu import ModbusCdu
from heatpool_sim.scenario import parse

AGENT = [sys.executable, "-m", "heatpool_agent"]


def ran(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command of the agent, run to its end."""
    return subprocess.run(
        [*AGENT, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        timeout=150,
        check=False,
    )


def write(folder: Path, text: str) -> str:
    path = folder / "agent.toml"
    path.write_text(text)
    return str(path)


def sysfs(folder: Path) -> Path:
    """A tree with one package and its core, as the kernel shows it."""
    for zone, name, energy in (
        ("intel-rapl:0", "package-0", 240_422_366_267),
        ("intel-rapl:0:0", "core", 118_821_284_256),
    ):
        path = folder / "sys" / "class" / "powercap" / zone
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{energy}\n")
        (path / "max_energy_range_uj").write_text("262143328850\n")
    return folder / "sys"


def test_once_on_a_machine_without_any_power_sensor_estimates_in_class_e(tmp_path: Path) -> None:
    path = write(tmp_path, f'[roots]\nsys = "{tmp_path}"\n')
    done = ran("once", "--json", "--for", "0.2", "--config", path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "heatpool.once/1"
    (electric,) = [e for e in document["estimates"] if e["channel"] == "electric"]
    assert electric["quality_class"] == "E"
    assert 0 <= electric["lo95_w"] < electric["value_w"] < electric["hi95_w"]
    states = {sensor["kind"]: sensor["state"] for sensor in document["sensors"]}
    assert states == {"rapl": "absent", "hwmon": "absent", "nvml": "absent", "host": "up"}


def test_once_reads_counters_and_never_adds_the_core_to_its_package(tmp_path: Path) -> None:
    path = write(tmp_path, f'[roots]\nsys = "{sysfs(tmp_path)}"\n')
    done = ran("once", "--json", "--for", "0.2", "--config", path)
    readings = json.loads(done.stdout)["readings"]
    energies = {r["node"]: r["value"] for r in readings if r["quantity"] == "energy_j"}
    assert energies == {"package": 240_422.366267, "core": 118_821.284256}


def test_once_for_people_is_a_table_with_units(tmp_path: Path) -> None:
    path = write(tmp_path, f'[roots]\nsys = "{tmp_path}"\n')
    done = ran("once", "--for", "0.2", "--config", path)
    assert done.returncode == 0
    assert "± 95 %" in done.stdout
    assert "nothing of this kind here" in done.stdout


def test_once_leaves_no_file_behind(tmp_path: Path) -> None:
    ran("once", "--for", "0.1", XDG_STATE_HOME=str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()


def test_once_says_with_its_exit_code_that_a_named_sensor_gave_nothing(tmp_path: Path) -> None:
    text = f"""
    [[loop]]
    id = "rack"
    [[sensor]]
    id = "cdu"
    kind = "modbus"
    url = "tcp://127.0.0.1:{free_port()}"
    map = "generic-cdu"
    loop = "rack"
    """
    done = ran("once", "--json", "--for", "0.1", "--config", write(tmp_path, text))
    assert done.returncode == 4
    (sensor,) = json.loads(done.stdout)["sensors"]
    assert sensor["state"] == "gone"
    assert sensor["detail"] and sensor["fix"]


BAD = """
[site]
id = "no spaces allowed"
[sampling]
period_s = 0
report_period_s = 2.5
[http]
listen = "0.0.0.0:9188"
[aggregator]
url = "http://192.0.2.9:8443"
[[loop]]
id = "rack"
fluid = "beer"
unknown_key = 1
"""


def test_a_bad_config_lists_every_mistake_with_its_key_and_exits_2(tmp_path: Path) -> None:
    done = ran("run", "--config", write(tmp_path, BAD))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for key in ("site.id", "sampling.period_s", "loop[0].unknown_key"):
        assert key in done.stderr
    done = ran(
        "run",
        "--config",
        write(
            tmp_path,
            BAD.replace("no spaces allowed", "s1")
            .replace("period_s = 0", "period_s = 1")
            .replace("unknown_key = 1", ""),
        ),
    )
    assert done.returncode == 2
    for key in ("report_period_s", "http.listen", "aggregator.url", "loop[0].fluid"):
        assert key in done.stderr


BAD_BLOCKS = """
[[loop]]
id = "rack"
fluid = "beer"
[[sensor]]
id = "a"
kind = "modbus"
url = "nowhere"
map = "no-such-map"
loop = "rack"
[[sensor]]
id = "b"
kind = "telepathy"
[[sensor]]
id = "c"
kind = "mbus"
url = "tcp://127.0.0.1:1"
address = 999
loop = "cellar"
[[sensor]]
id = "a"
kind = "host"
[[actuator]]
id = "v"
kind = "modbus"
"""


def test_config_check_names_every_block_that_a_driver_refuses(tmp_path: Path) -> None:
    done = ran("config", "check", "--config", write(tmp_path, BAD_BLOCKS))
    assert done.returncode == 2
    for told in (
        "loop[0].fluid",
        "sensor[0] 'a'",
        "sensor[1]",
        "telepathy",
        "sensor[2]",
        "address",
        "sensor[3].id",
        "actuator[0]",
    ):
        assert told in done.stderr, done.stderr


def test_config_check_looks_on_past_a_key_of_the_wrong_shape(tmp_path: Path) -> None:
    text = f'[sampling]\nperiod_s = -1\nmessage_period_s = 7\n[http]\ncolour = "red"\n{BAD_BLOCKS}'
    done = ran("config", "check", "--config", write(tmp_path, text))
    assert done.returncode == 2
    told = ("sampling.period_s", "http.colour", "loop[0].fluid", "telepathy", "sensor[2] 'c'")
    assert [said for said in told if said not in done.stderr] == []
    # It was not judged by a period that the file does not hold.
    assert "whole multiple" not in done.stderr


def test_a_loop_that_is_wrong_is_not_told_again_as_one_that_is_missing(tmp_path: Path) -> None:
    text = '[[loop]]\nid = "a b"\n[[sensor]]\nid = "h"\nkind = "host"\nloop = "a b"\n'
    done = ran("config", "check", "--config", write(tmp_path, text))
    assert done.stderr.count("\n") == 1
    assert "loop[0].id" in done.stderr


def test_config_check_of_a_good_file_says_so(tmp_path: Path) -> None:
    done = ran("config", "check", "--config", write(tmp_path, '[site]\nid = "s1"\n'))
    assert (done.returncode, done.stdout.strip()) == (0, "no mistake found")


def test_config_check_tells_mistakes_as_one_document(tmp_path: Path) -> None:
    bad = ran("config", "check", "--json", "--config", write(tmp_path, BAD_BLOCKS))
    document = json.loads(bad.stdout)
    assert (bad.returncode, document["schema"]) == (2, "heatpool.config_check/1")
    assert not document["ok"]
    assert [one for one in document["mistakes"] if "loop[0].fluid" in one]
    good = ran("config", "check", "--json", "--config", write(tmp_path, '[site]\nid = "s1"\n'))
    assert (good.returncode, json.loads(good.stdout)["mistakes"]) == (0, [])


@pytest.mark.parametrize("arguments", [("config", "schema"), ("config", "show", "--json")])
def test_settings_print_themselves_as_json(arguments: tuple[str, ...]) -> None:
    done = ran(*arguments)
    assert done.returncode == 0
    assert json.loads(done.stdout)


@contextmanager
def running(folder: Path, text: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """The daemon, once it is ready."""
    ready = folder / "ready.json"
    with (folder / "agent.log").open("ab") as log:
        child = subprocess.Popen(
            [*AGENT, "run", "--config", write(folder, text), "--ready-file", str(ready)],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 90
        while not ready.exists():
            assert child.poll() is None and time.monotonic() < deadline, log_of(folder)
            time.sleep(0.05)
        yield child, json.loads(ready.read_text())
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
        child.wait()
        ready.unlink(missing_ok=True)


def log_of(folder: Path) -> str:
    return (folder / "agent.log").read_text()


def settings(folder: Path, extra: str = "") -> str:
    return f"""
[site]
id = "s1"
state_dir = "{folder / "state"}"
[http]
listen = "127.0.0.1:0"
{extra}
"""


def test_a_second_agent_on_the_same_state_gets_one_clear_line(tmp_path: Path) -> None:
    with running(tmp_path, settings(tmp_path)):
        done = ran("run", "--config", str(tmp_path / "agent.toml"))
    assert done.returncode == 1
    assert "another agent" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_gets_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = settings(tmp_path).replace("127.0.0.1:0", f"127.0.0.1:{port}")
        done = ran("run", "--config", write(tmp_path, text))
    assert done.returncode == 1
    assert str(port) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_term_ends_the_daemon_cleanly(tmp_path: Path) -> None:
    with running(tmp_path, settings(tmp_path)) as (child, _):
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    assert "Traceback" not in log_of(tmp_path)
    assert "agent.thread_hangs" not in log_of(tmp_path)


@contextmanager
def held_open(fifo: Path) -> Iterator[None]:
    """A read of this file hangs, as in a kernel driver: entered once somebody reads it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            assert time.monotonic() < deadline, "nobody reads it"
            time.sleep(0.02)
    try:
        yield
    finally:
        os.close(fd)


def test_a_read_that_hangs_in_the_kernel_does_not_keep_a_stopped_agent(tmp_path: Path) -> None:
    name = sysfs(tmp_path) / "class" / "powercap" / "intel-rapl:0" / "name"
    name.unlink()
    os.mkfifo(name)
    text = settings(tmp_path, f'[roots]\nsys = "{tmp_path / "sys"}"\n')
    with running(tmp_path, text) as (child, _), held_open(name):
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    log = log_of(tmp_path)
    (line,) = [line for line in log.splitlines() if "agent.thread_hangs" in line]
    assert "rapl" in line
    assert log.index("agent.stopped") < log.index("agent.thread_hangs")
    with running(tmp_path, settings(tmp_path)) as (child, _):
        assert child.poll() is None, "its lock or its spool was not released"


def test_an_aggregator_that_is_not_there_never_ends_the_daemon(tmp_path: Path) -> None:
    extra = f'[aggregator]\nurl = "http://127.0.0.1:{free_port()}"\n'
    with running(tmp_path, settings(tmp_path, extra)) as (child, _):
        deadline = time.monotonic() + 60
        while "uplink.lost" not in log_of(tmp_path):
            assert time.monotonic() < deadline, log_of(tmp_path)
            time.sleep(0.1)
        # It tries again each second or two.
        time.sleep(4)
        assert child.poll() is None
        assert log_of(tmp_path).count("uplink.lost") == 1, "a state is logged once, not each try"
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0, "it did not end while it was connecting"


FLEET = """
name = "one"
seed = 3
[[virtual_source]]
id = "loop"
kind = "district_loop"
hot_c = 60.0
cold_c = 48.0
price_eur_mwh = "44.75"
[[site]]
id = "s1"
virtual_source = "loop"
it_w = 30_000
"""


async def test_a_device_that_was_away_is_picked_up_again(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    port = free_port()
    extra = f"""
[[loop]]
id = "rack"
[[sensor]]
id = "cdu"
kind = "modbus"
url = "tcp://127.0.0.1:{port}"
map = "generic-cdu"
loop = "rack"
"""
    async with app.serve(parse(tmp_path / "fleet.toml")) as fleet:
        plant = fleet.doors["s1"].running
        with running(tmp_path, settings(tmp_path, extra)) as (child, told):
            assert await state_becomes(told["http"], "gone")
            async with ModbusCdu(port=port).serve(plant):
                assert await state_becomes(told["http"], "up")
            assert await state_becomes(told["http"], "gone")
            async with ModbusCdu(port=port).serve(plant):
                assert await state_becomes(told["http"], "up")
            assert child.poll() is None


async def state_becomes(address: str, state: str) -> bool:
    """Whether the one sensor gets into that state within a minute."""
    for _ in range(300):
        if await asyncio.to_thread(state_of, address) == state:
            return True
        await asyncio.sleep(0.2)
    return False


def state_of(address: str) -> str:
    with urlopen(f"http://{address}/v1/status", timeout=30) as answer:
        (sensor,) = json.load(answer)["sensors"]
        return str(sensor["state"])
