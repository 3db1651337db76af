"""The machine under the agent: interpreter, packages, room on the disk, systemd."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import heatpool_agent
from heatpool_agent.doctor.place import Place, user_name
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn

LEAST_PYTHON = (3, 11)
# Below this a database may not even find room to shrink.
LEAST_FREE_BYTES = 100_000_000
UNIT = "heatpool-agent"
_MB = 1_000_000
_ASK_S = 3.0


def families(place: Place) -> Sequence[Verdict]:
    """Everything of this room; blocking."""
    held = _size_bytes(place.folder)
    return (
        python(tuple(sys.version_info[:3]), compiled=_compiled(), python=sys.executable),
        bindings(_distributions(), python=sys.executable),
        disk(
            _free(place.folder),
            place.config.spool.max_bytes - held,
            folder=str(place.folder.absolute()),
            user=user_name(),
        ),
        watchdog(_unit(), has_systemd=Path("/run/systemd/system").is_dir()),
    )


def python(version: tuple[int, ...], *, compiled: bool, python: str) -> Verdict:
    """The interpreter, and whether the agent's code is compiled already."""
    shown = ".".join(map(str, version))
    if version[:2] < LEAST_PYTHON:
        return fail(
            "python",
            f"Python {shown}",
            why="heatpool needs Python 3.11 or newer",
            fix="install python3.11 and heatpool into a virtual environment of it",
        )
    if not compiled:
        package = Path(heatpool_agent.__file__).parent
        return warn(
            "python",
            f"Python {shown}, the agent's code is not compiled (.pyc)",
            why="each start compiles everything again, which takes many times longer",
            fix=f"{python} -m compileall -q {package}",
        )
    return ok("python", f"Python {shown}, compiled")


def _compiled() -> bool:
    return Path(importlib.util.cache_from_source(heatpool_agent.__file__)).exists()


def bindings(installed: Mapping[str, str], *, python: str) -> Verdict:
    """Whose Python bindings of NVIDIA's library are installed.

    `installed` gives the version of each distribution that is there.
    """
    if "pynvml" in installed:
        return warn(
            "gpu_bindings",
            f"the distribution pynvml {installed['pynvml']} is installed",
            why="it is abandoned, shadows nvidia-ml-py, and adds 4 MB to every Python here",
            fix=f"{python} -m pip uninstall -y pynvml && "
            f"{python} -m pip install --force-reinstall --no-deps nvidia-ml-py",
        )
    if "nvidia-ml-py" in installed:
        return ok("gpu_bindings", f"nvidia-ml-py {installed['nvidia-ml-py']}")
    return skip("gpu_bindings", "nvidia-ml-py is not installed; needed only for NVIDIA cards")


def _distributions() -> dict[str, str]:
    found = {}
    for name in ("pynvml", "nvidia-ml-py"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a file system has left for us, bytes, and where it begins."""

    place: str
    free_bytes: int
    is_writable: bool = True


def disk(room: Room, wanted_bytes: int, *, folder: str = "", user: str = "") -> Verdict:
    """Whether the spool has room in `folder`; `wanted_bytes` is how much it may still grow."""
    found = f"{room.free_bytes / _MB:,.0f} MB free at {room.place}"
    if not room.is_writable:
        return fail(
            "disk",
            f"{user} may not write to {room.place}",
            why="the agent keeps its id and its rows in files, and does not start without",
            fix=f"install -d -m 0700 -o {user} {folder} (as root), or set site.state_dir; or run "
            "this as the service's user: runuser -u heatpool -- heatpool-agent doctor",
        )
    if room.free_bytes < LEAST_FREE_BYTES:
        return fail(
            "disk",
            found,
            why="the spool cannot take rows on a full disk, and readings are lost",
            fix=f"free at least {LEAST_FREE_BYTES / _MB:.0f} MB there (du -xh {room.place} | "
            "sort -h | tail), or set site.state_dir to another disk",
        )
    if room.free_bytes < wanted_bytes:
        return warn(
            "disk",
            found,
            why=f"the spool may still grow by {wanted_bytes / _MB:,.0f} MB",
            fix=f"free room there, or set spool.max_bytes below {room.free_bytes}",
        )
    return ok("disk", found)


def _free(folder: Path) -> Room:
    here = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return Room(
        place=str(here),
        free_bytes=shutil.disk_usage(here).free,
        is_writable=os.access(here, os.W_OK | os.X_OK),
    )


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.db*"))


def watchdog(unit: Mapping[str, str], *, has_systemd: bool) -> Verdict:
    """Whether systemd restarts an agent whose sampling stands still; `unit` as systemd shows it."""
    if not has_systemd:
        return skip("watchdog", "this machine is not run by systemd")
    if unit.get("LoadState") != "loaded":
        return skip("watchdog", f"{UNIT}.service is not installed")
    told = unit.get("WatchdogUSec", "0")
    if told in ("0", "infinity", ""):
        return warn(
            "watchdog",
            f"{UNIT}.service has no watchdog",
            why="an agent that hangs would go on looking alive and measure nothing",
            fix=f"printf '[Service]\\nWatchdogSec=30\\nNotifyAccess=main\\nType=notify\\n' | "
            f"systemctl edit --stdin {UNIT} && systemctl restart {UNIT}",
        )
    return ok("watchdog", f"{UNIT}.service, {told}, {unit.get('ActiveState', 'state unknown')}")


def _unit() -> dict[str, str]:
    command = ["systemctl", "show", UNIT, "-p", "LoadState,WatchdogUSec,ActiveState"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs}
