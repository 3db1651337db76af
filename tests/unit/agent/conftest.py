"""A machine made of files: /sys and /proc below tmp_path, and a clock that tests move."""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import LIVE, Roots, SensorModule, Tape

NOBODY = 65534


class Cassette:
    """A tape of our own: keeps each answer under its request, plays them back in their order."""

    def __init__(self) -> None:
        self.kept: dict[str, list[bytes | Exception]] = {}
        self.is_playing = False

    def play(self) -> None:
        self.is_playing = True

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if self.is_playing:
            return self._played(request)
        try:
            answer = see()
        except Exception as error:
            self.kept.setdefault(request, []).append(error)
            raise
        self.kept.setdefault(request, []).append(hide(answer) if hide else answer)
        return answer

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if self.is_playing:
            return self._played(request)
        answer = await ask()
        return self.look(request, lambda: answer, hide=hide)

    def _played(self, request: str) -> bytes:
        answer = self.kept[request].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Machine:
    """Files and time of one machine; it is its own clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at_ns = 1_750_000_000_000_000_000
        self.since_boot_ns = 1_000_000_000
        self.nvml = "auto"
        self.tape: Tape = LIVE
        self.boot("11111111-2222")

    def event_ns(self) -> int:
        return self.at_ns

    def boot_ns(self) -> int:
        return self.since_boot_ns

    def pass_s(self, span_s: float) -> None:
        self.at_ns += round(span_s * 1e9)
        self.since_boot_ns += round(span_s * 1e9)

    def boot(self, boot_id: str) -> None:
        self.write("proc/sys/kernel/random", {"boot_id": boot_id})

    def roots(self) -> Roots:
        sys, proc = self.folder / "sys", self.folder / "proc"
        dev = self.folder / "dev"
        return Roots(sys=sys, proc=proc, dev=dev, nvml=self.nvml, tape=self.tape)

    def write(self, place: str, files: Mapping[str, object]) -> Path:
        """Files of one line each, as the kernel shows them."""
        folder = self.folder / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(f"{content}\n", encoding="utf-8")
        return folder

    def zone(self, name: str, label: str, energy_uj: object, **more: object) -> Path:
        """One powercap zone."""
        files = {"name": label, "energy_uj": energy_uj, "max_energy_range_uj": 262_143_328_850}
        return self.write(f"sys/class/powercap/{name}", files | more)

    async def sense(self, module: SensorModule, kind: str, **more: Any) -> list[Reading]:
        """One pass of a fresh sensor."""
        config = module.Config(id=kind, kind=kind, **more)
        async with module.open(config, self.roots(), self) as sensor:
            await sensor.probe()
            return list(await sensor.read())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def cassette(machine: Machine) -> Cassette:
    """A tape in the machine, recording from now on."""
    machine.tape = cassette = Cassette()
    return cassette


@pytest.fixture
def without_rights(tmp_path: Path) -> Callable[[], Any]:
    """A block that reads as a user who owns nothing, also where the tests run as root."""

    @contextmanager
    def guest() -> Iterator[None]:
        was = os.geteuid()
        if was != 0:
            yield
            return
        # pytest closes its folders to others: open the way down to this test's own.
        for folder in (tmp_path, *tmp_path.parents):
            folder.chmod(0o755)
            if folder.name.startswith("pytest-of-"):
                break
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(was)

    return guest


@pytest.fixture
def unpack_ttar() -> Callable[..., None]:
    """Unpacks a text archive, in which another tool keeps a piece of /sys, into a folder."""

    def unpack(archive: Path, folder: Path, *, under: str) -> None:
        lines = iter(archive.read_text(encoding="utf-8").splitlines())
        for line in lines:
            if line.startswith("Path: "):
                _unpack_file(lines, line.removeprefix("Path: "), folder, under)

    return unpack


def _unpack_file(lines: Iterator[str], name: str, folder: Path, under: str) -> None:
    key, _, said = next(lines).partition(": ")
    content = [next(lines) for _ in range(int(said))] if key == "Lines" else []
    if not name.startswith(under):
        return
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if key == "SymlinkTo":
        path.symlink_to(said)
    else:
        path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
