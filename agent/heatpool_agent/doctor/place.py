"""Where the checks look: settings, folders, and whether an agent runs here already."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heatpool_agent.config import Config
from heatpool_agent.ports import Clock, Roots


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One site as its settings describe it; `path` is their file, if there is one."""

    config: Config
    path: Path | None
    environ: Mapping[str, str]
    folder: Path
    clock: Clock

    @property
    def roots(self) -> Roots:
        """The machine's own files."""
        return self.config.roots.roots()

    @property
    def file_name(self) -> str:
        """The settings as a person can find them."""
        return str(self.path) if self.path else "no file: defaults and environment"

    def wants(self, kind: str) -> bool:
        """Whether a sensor of this kind is read: named, or none is named and it is local."""
        if not self.config.sensor:
            return kind in ("rapl", "hwmon", "nvml", "host")
        return any(block.get("kind") == kind for block in self.config.sensor)

    def named(self, kind: str) -> list[dict[str, object]]:
        """The sensor blocks of a kind."""
        return [dict(block) for block in self.config.sensor if block.get("kind") == kind]


def user_name() -> str:
    """Who runs this; a number where the user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock on the file, without trying to take it.

    Source: proc_locks(5): device as hexadecimal major:minor, then the inode.
    """
    try:
        seen = path.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    device = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    return any(device in line.split() for line in lines)


def is_agent_running(folder: Path) -> bool:
    """Whether an agent holds the spool in this folder."""
    return is_locked(folder / "lock")
