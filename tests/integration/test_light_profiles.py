"""What a profile does not use it does not import: each such package costs every site its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# The agent as `run` starts it, ended after its first ticks; then what is loaded, on stdout.
PROGRAM = """
import json, os, signal, sys, threading, time
from heatpool_agent.__main__ import main
def end():
    # Before the agent listens for it, the signal would end it as it ends any program.
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    time.sleep(3.0)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
sys.argv = ["heatpool-agent", "run", "--config", sys.argv[1]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
json.dump(sorted(name for name, module in sys.modules.items() if module), sys.stdout)
"""
MINIMAL = """
[site]
id = "light"
state_dir = "{folder}/state"
[roots]
sys = "{folder}/sys"
[[sensor]]
id = "rapl"
kind = "rapl"
[[sensor]]
id = "hwmon"
kind = "hwmon"
[http]
listen = "{listen}"
"""
EDGE = """
[[sensor]]
id = "gpu"
kind = "nvml"
[[sensor]]
id = "cdu"
kind = "modbus"
url = "tcp://127.0.0.1:9"
map = "generic-cdu"
"""
# Only for people and for other kinds of sites.
NEVER = {
    "_hashlib",
    "_ssl",
    "aiomqtt",
    "cryptography",
    "email",
    "google",
    "grpc",
    "numpy",
    "prometheus_client",
    "psutil",
    "sqlite_utils",
    "heatpool_agent.doctor",
    "heatpool_agent.enrol.child",
    "heatpool_agent.enrol.https",
    "heatpool_agent.enrol.joining",
    "heatpool_agent.looks",
    "heatpool_agent.search",
    "heatpool_agent.spool.healing",
    "heatpool_agent.tapes",
    "heatpool_agent.uplinks.grpc",
    "heatpool_agent.wire_identity",
}
# Nothing leaves the machine and nobody asks.
MINIMAL_NEVER = NEVER | {
    "aiohttp",
    "hashlib",
    "heatpool_agent.actuators",
    "heatpool_agent.core.certificate",
    "heatpool_agent.enrol.files",
    "heatpool_agent.enrol.keys",
    "heatpool_agent.loops.lanes",
    "heatpool_agent.loops.obey",
    "heatpool_agent.loops.push",
    "heatpool_agent.uplinks",
    "importlib.metadata",
    "pymodbus",
    "pynvml",
    "serial",
    "typing_extensions",
    "zeroconf",
}


def loaded(folder: Path, settings: str, listen: str) -> set[str]:
    """Modules of an agent that ran a few ticks."""
    config = folder / "agent.toml"
    config.write_text(settings.format(folder=folder, listen=listen))
    command = [sys.executable, "-c", PROGRAM, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in {"name": "package-0", "energy_uj": "1", "max_energy_range_uj": "9"}.items():
        (zone / name).write_text(text)
    return tmp_path


def test_a_site_that_talks_to_nobody_loads_no_way_to_talk(site: Path) -> None:
    names = loaded(site, MINIMAL, "")
    assert names & MINIMAL_NEVER == set()
    assert "heatpool_agent.sensors.rapl" in names


def test_a_site_with_a_page_and_a_coolant_unit_loads_just_these(site: Path) -> None:
    names = loaded(site, MINIMAL + EDGE, "127.0.0.1:0")
    assert names & (NEVER - {"email"}) == set()
    assert {"aiohttp", "pymodbus"} <= names


def test_what_is_left_on_disk_is_nobody_else_s(site: Path) -> None:
    loaded(site, MINIMAL, "")
    modes = {path.name: path.stat().st_mode & 0o077 for path in (site / "state").iterdir()}
    assert {"telemetry.db", "billing.db"} <= modes.keys()
    assert {name for name, others in modes.items() if others} == set()
