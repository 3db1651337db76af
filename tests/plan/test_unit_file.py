"""The service of the agent: neither root nor mighty, watched, and closed by systemd's own rule."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

UNIT = "heatpool-agent.service"
DROP_INS = ("ipmi", "nvml", "rapl-perf", "serial")
# systemd's scale: 0 is closed, 10 is open, below 4.5 it says OK.
MOST_EXPOSED = 2.0
MOST_EXPOSED_WITH_DEVICES = 2.5
WATCHDOG_MOST_S = 30

Keys = Mapping[str, Sequence[str]]


def keys_of(path: Path) -> Keys:
    """Every value of each key of a unit file, in its order."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def unit(repository: Path) -> Path:
    return repository / "agent" / UNIT


@pytest.fixture(scope="module")
def drop_ins(repository: Path) -> Path:
    return repository / "deploy" / "agent" / f"{UNIT}.d"


def exposure(unit: Path, drop_ins: Sequence[Path], folder: Path) -> float:
    """What `systemd-analyze security` says of the unit with these drop-ins."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    beside = folder / f"{UNIT}.d"
    beside.mkdir()
    for path in (unit, *drop_ins):
        shutil.copy(path, beside if path in drop_ins else folder)
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(folder / UNIT)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
    )
    told = re.search(r"Overall exposure level .*: (\d+\.\d+)", ran.stdout)
    if told is None:
        # Before 250 it asks a running systemd alone; in a container there is none.
        pytest.skip(f"systemd-analyze gives no figure here: {ran.stderr.strip()[:200]}")
    return float(told[1])


def test_the_service_is_no_root_and_holds_no_capability(unit: Path) -> None:
    keys = keys_of(unit)
    assert keys["User"] == ["heatpool"]
    assert keys["CapabilityBoundingSet"] == keys["AmbientCapabilities"] == [""]
    assert keys["NoNewPrivileges"] == ["yes"]


def test_the_service_tells_when_it_is_ready_and_is_watched(unit: Path) -> None:
    keys = keys_of(unit)
    assert keys["Type"] == ["notify"]
    assert 0 < int(keys["WatchdogSec"][0]) <= WATCHDOG_MOST_S
    assert keys["Restart"] == ["always"]


def test_every_drop_in_is_one_that_is_told_and_tested(drop_ins: Path, repository: Path) -> None:
    assert sorted(path.stem for path in drop_ins.iterdir()) == list(DROP_INS)
    told = (repository / "agent" / "README.md").read_text(encoding="utf-8")
    assert all(f"{name}.conf" in told for name in DROP_INS)


@pytest.mark.parametrize("name", DROP_INS)
def test_a_drop_in_opens_devices_by_name_and_makes_nobody_mighty(name: str, drop_ins: Path) -> None:
    keys = keys_of(drop_ins / f"{name}.conf")
    capabilities = {*keys.get("CapabilityBoundingSet", ()), *keys.get("AmbientCapabilities", ())}
    assert capabilities <= {"CAP_PERFMON"}
    assert {"User", "ExecStart", "DynamicUser"}.isdisjoint(keys)
    # Without a policy, private devices given up would be all devices.
    assert ("DeviceAllow" in keys) == (keys.get("DevicePolicy") == ["closed"])


def test_perf_events_get_all_four_things_that_they_need(drop_ins: Path) -> None:
    keys = keys_of(drop_ins / "rapl-perf.conf")
    assert keys["CapabilityBoundingSet"] == keys["AmbientCapabilities"] == ["CAP_PERFMON"]
    assert keys["PrivateUsers"] == ["no"]
    assert keys["SystemCallFilter"] == ["perf_event_open"]


def test_systemd_finds_the_service_closed(unit: Path, tmp_path: Path) -> None:
    assert exposure(unit, (), tmp_path) <= MOST_EXPOSED


@pytest.mark.parametrize("names", [*((name,) for name in DROP_INS), DROP_INS], ids="+".join)
def test_systemd_finds_the_service_closed_with_devices(
    names: Sequence[str], unit: Path, drop_ins: Path, tmp_path: Path
) -> None:
    chosen = [drop_ins / f"{name}.conf" for name in names]
    assert 0 < exposure(unit, chosen, tmp_path) <= MOST_EXPOSED_WITH_DEVICES
