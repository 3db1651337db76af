"""Where the demo keeps its files, whose they are, and which ports it uses."""

import fcntl
import json
import os
import random
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heatpool.errors import ConfigError, HeatpoolError

LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 32_000)  # Linux hands out 32768 and above by itself
_TRIES_COUNT = 50
_LEFT_S = 5.0  # programs of a killed demo end by themselves, seldom later than two seconds
_LOOK_S = 0.1
_MARK = ".heatpool-demo"  # a directory with this in it may be emptied
_OURS = ("config", "agents", "aggregator", "ready", "logs", "sites.json", "demo.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory that belongs to the demo."""

    root: Path

    @property
    def sites_file(self) -> Path:
        """Registers and ports of the simulated sites."""
        return self.root / "sites.json"

    def config(self, name: str) -> Path:
        """Settings of a program."""
        return self.root / "config" / f"{name}.toml"

    def ready(self, name: str) -> Path:
        """What a program says once it is ready."""
        return self.root / "ready" / f"{name}.json"

    def log(self, name: str) -> Path:
        """What a program logs."""
        return self.root / "logs" / f"{name}.log"

    def state(self, name: str) -> Path:
        """What a program keeps."""
        return self.root / ("aggregator" if name == "aggregator" else f"agents/{name}")


def default_root(environ: Mapping[str, str]) -> Path:
    """The user's own state directory for the demo."""
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "heatpool" / "demo"


@contextmanager
def opened(root: Path, *, is_fresh: bool) -> Iterator[Place]:
    """The directory, ours alone for as long as the context is open; emptied first if asked.

    Raises:
        ConfigError: it holds files that the demo did not make.
        HeatpoolError: another demo uses it, or programs that a killed one left behind.
    """
    root = root.expanduser().resolve()
    if root.exists() and not (root / _MARK).exists() and any(root.iterdir()):
        raise ConfigError([f"{root} holds files that the demo did not make; name another place"])
    root.mkdir(parents=True, exist_ok=True)
    with (root / _MARK).open("a", encoding="utf-8") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HeatpoolError(f"another demo runs in {root}; stop it or give --state") from error
        _wait_for_leftovers(root)
        if is_fresh:
            _empty(root)
        shutil.rmtree(root / "ready", ignore_errors=True)
        shutil.rmtree(root / "logs", ignore_errors=True)
        for folder in ("config", "ready", "logs", "aggregator", "agents"):
            (root / folder).mkdir(exist_ok=True)
        yield Place(root=root)


def ports(place: Place, *, http_port: int | None) -> dict[str, int]:
    """Ports of the aggregator, `http` and `grpc`: those of last time unless somebody has them."""
    file = place.root / "demo.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    taken = {name: _free(kept.get(name)) for name in ("http", "grpc")}
    if http_port is not None:
        taken["http"] = http_port
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps(taken), encoding="utf-8")
    aside.replace(file)
    return taken


def _wait_for_leftovers(root: Path) -> None:
    """Returns once no program of a killed demo runs here: it would hold its state and its port."""
    ends_s = time.monotonic() + _LEFT_S
    while pids := _leftovers(root):
        if time.monotonic() > ends_s:
            text = " ".join(map(str, pids))
            raise HeatpoolError(f"programs of a killed demo still run in {root}: kill -9 {text}")
        time.sleep(_LOOK_S)


def _leftovers(root: Path) -> list[int]:
    """Processes that were started with settings of this place; none where there is no /proc."""
    mark = b"--config\0" + os.fsencode(root / "config") + b"/"
    return sorted(
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if mark in _command_line(process)
    )


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended, or is none of ours to read
        return b""


def _empty(root: Path) -> None:
    for name in _OURS:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _free(wished: object) -> int:
    """The wished port if nobody listens there, else a free one.

    Below the range from which the kernel gives ports to connections: there, one of ours could be
    taken between this look and the program that is to listen.
    """
    tries = random.sample(_PORTS, k=_TRIES_COUNT)
    for port in ([wished] if isinstance(wished, int) else []) + tries:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise HeatpoolError(f"no free port on {LOOPBACK} among {_TRIES_COUNT} tried")
