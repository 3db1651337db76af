"""An agent whose disk refuses at the start: it comes up, counts, and writes once it can."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from heatpool.errors import StoreError
from heatpool.sample import Channel, Row, SiteId, SpoolKind
from heatpool_agent.assembly import SystemClock, open_spool, open_spool_or_late
from heatpool_agent.board import Board
from heatpool_agent.config import Config, Site
from heatpool_agent.core.ledger import Page
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.kept_orders import SeenOrders
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.ports import Seq, Spool
from heatpool_agent.spool import LateSpool

S = 1_000_000_000
BOOT_S = 1_000
T = SpoolKind.TELEMETRY


class Disk:
    """A folder on a disk that can be made to refuse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.state = self.folder / "state"
        self.is_mounted = os.geteuid() == 0
        self.folder.mkdir()
        if self.is_mounted:
            self._mount("mount", "-t", "tmpfs", "-o", "size=16m", "heatpool-test")
        self.state.mkdir()

    def _mount(self, *command: str) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip("root may write everywhere, and there is no mount to make a disk refuse")
        done = subprocess.run([*command, str(self.folder)], check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"root may write everywhere, and may not mount: {done.stderr!r}")

    def refuse(self) -> None:
        if self.is_mounted:
            self._mount("mount", "-o", "remount,ro")
        else:
            self.state.chmod(0o500)

    def take(self) -> None:
        if self.is_mounted:
            self._mount("mount", "-o", "remount,rw")
        else:
            self.state.chmod(0o700)

    def end(self) -> None:
        self.take()
        if self.is_mounted:
            subprocess.run(["umount", str(self.folder)], check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path)
    try:
        yield found
    finally:
        found.end()


def opened(folder: Path) -> Spool:
    config = Config(site=Site(id="late"))
    return open_spool_or_late(config, folder, SystemClock(), name=lambda: None)


def zone(joules: int, *, at_s: int, boot_id: str) -> Reading:
    return Reading(
        sensor="cpu",
        channel="powercap/intel-rapl:0",
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=float(joules),
        event_ns=(1_750_000_000 + at_s) * S,
        boot_ns=(BOOT_S + at_s) * S,
        node=Node.PACKAGE,
        raw=joules,
        exponent=0,
        modulus=2**32,
        generation=boot_id,
    )


def row(at_s: int) -> Row:
    cells = {Channel("rack", "heat_rate_w", -1): 10 * at_s}
    return Row(event_ns=(1_750_000_000 + at_s) * S, cells=cells)


async def lived(folder: Path, counts_j: dict[int, int]) -> None:
    """A life in which a counter was read at these seconds, with a row each."""
    spool = await asyncio.to_thread(opened, folder)
    own = Spooling(spool, Board(site_id=SiteId("late")))
    ledger = own.ledger()
    for at_s, joules in counts_j.items():
        ledger.take("cpu", [zone(joules, at_s=at_s, boot_id=own.boot_id)])
        await own.append(row(at_s), ledger.page())
    await own.close()


async def saved_j(folder: Path) -> int:
    """What the ledger on disk says, J."""
    spool = await asyncio.to_thread(open_spool, Config(site=Site(id="late")), folder, SystemClock())
    (account,) = spool.saved_ledger.accounts
    await asyncio.to_thread(spool.close)
    return account.total.total_j


async def test_a_disk_that_refuses_is_read_and_written_as_soon_as_it_takes(disk: Disk) -> None:
    await lived(disk.state, {0: 5_000, 10: 6_000})
    disk.refuse()
    spool = await asyncio.to_thread(opened, disk.state)
    board = Board(site_id=SiteId("late"))
    own = Spooling(spool, board)
    ledger = own.ledger()
    ledger.take("cpu", [zone(6_500, at_s=20, boot_id=own.boot_id)])
    await own.append(row(20), ledger.page())
    assert isinstance(spool, LateSpool)
    assert spool.is_late
    assert "site.state_dir" in board.spool_error or "write to the file" in board.spool_error
    assert not board.marks
    assert ledger.account("cpu", "powercap/intel-rapl:0").total.total_j == 1_500  # type: ignore[union-attr]
    disk.take()
    ledger.take("cpu", [zone(6_900, at_s=30, boot_id=own.boot_id)])
    await own.open_late()
    await own.append(row(30), ledger.page())
    assert board.spool_error == ""
    await own.close_frame()
    assert len(await own.call(spool.read, T, Seq(0), 10)) >= 2
    await own.close()
    assert await saved_j(disk.state) == 1_900


async def test_totals_that_could_not_be_read_are_added_to_not_overwritten(disk: Disk) -> None:
    await lived(disk.state, {0: 5_000, 10: 6_000})
    hidden = disk.folder / "elsewhere"
    disk.state.rename(hidden)
    disk.refuse() if disk.is_mounted else disk.folder.chmod(0o500)
    spool = await asyncio.to_thread(opened, disk.state)
    own = Spooling(spool, Board(site_id=SiteId("late")))
    ledger = own.ledger()
    assert spool.saved_ledger == Page()
    ledger.take("cpu", [zone(6_500, at_s=20, boot_id=own.boot_id)])
    ledger.take("cpu", [zone(6_900, at_s=30, boot_id=own.boot_id)])
    await own.append(row(30), ledger.page())
    disk.take() if disk.is_mounted else disk.folder.chmod(0o700)
    hidden.rename(disk.state)
    ledger.take("cpu", [zone(7_000, at_s=40, boot_id=own.boot_id)])
    await own.append(row(40), ledger.page())
    await own.open_late()
    # From the saved reading on, as if the disk had been there all the time.
    assert ledger.account("cpu", "powercap/intel-rapl:0").total.total_j == 2_000  # type: ignore[union-attr]
    await own.close()
    assert await saved_j(disk.state) == 2_000


async def test_closing_tries_a_last_time(disk: Disk) -> None:
    disk.refuse()
    spool = await asyncio.to_thread(opened, disk.state)
    own = Spooling(spool, Board(site_id=SiteId("late")))
    await own.append(row(10))
    disk.take()
    await own.close()
    again = await asyncio.to_thread(
        open_spool, Config(site=Site(id="late")), disk.state, SystemClock()
    )
    assert again.mark(T).next_seq == 2
    await asyncio.to_thread(again.close)


async def test_a_folder_in_use_is_no_disk_that_may_come_back(tmp_path: Path) -> None:
    first = await asyncio.to_thread(opened, tmp_path)
    with pytest.raises(StoreError, match="in use"):
        await asyncio.to_thread(opened, tmp_path)
    await asyncio.to_thread(first.close)


def test_an_order_is_not_taken_whose_number_cannot_be_kept(disk: Disk) -> None:
    disk.refuse()
    seen = SeenOrders(disk.state, "rack")
    assert seen.read() == 0
    with pytest.raises(StoreError, match="look at the disk"):
        seen.keep(5)


SETTINGS = """
[site]
id = "auto"
state_dir = "{state}"
[roots]
sys = "{folder}/sys"
[http]
listen = "127.0.0.1:0"
[sampling]
report_period_s = 1
[[sensor]]
id = "rapl"
kind = "rapl"
"""


def answer(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def count(counter: Path) -> None:
    """100 W, as the kernel shows it."""
    counter.write_text(str(round(time.monotonic() * 1e8) % 262143328850))


def eventually(url: str, status: int, word: str, counter: Path) -> None:
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        count(counter)
        found = answer(url)
        if found[0] == status and word in found[1]:
            return
        time.sleep(0.3)
    raise AssertionError(found)


def test_an_agent_starts_on_a_disk_that_refuses_and_moves_to_it_later(
    disk: Disk, tmp_path: Path
) -> None:
    part = tmp_path / "sys/class/powercap/intel-rapl:0"
    part.mkdir(parents=True)
    (part / "name").write_text("package-0")
    (part / "max_energy_range_uj").write_text("262143328850")
    counter = part / "energy_uj"
    count(counter)
    config, ready = tmp_path / "agent.toml", tmp_path / "ready.json"
    config.write_text(SETTINGS.format(state=disk.state, folder=tmp_path))
    disk.refuse()
    command = [sys.executable, "-m", "heatpool_agent", "run", "--config", str(config)]
    with (tmp_path / "log").open("w") as log:
        agent = subprocess.Popen([*command, "--ready-file", str(ready)], stderr=log)
    try:
        end_s = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < end_s and agent.poll() is None:
            time.sleep(0.1)
        assert ready.exists(), (tmp_path / "log").read_text()[-2000:]
        told = json.loads(ready.read_text())
        url = f"http://{told['http']}/readyz"
        eventually(url, 503, "the spool takes no rows", counter)
        disk.take()
        eventually(url, 200, "", counter)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
    finally:
        agent.kill()
        agent.wait()
    assert (disk.state / "site_id").read_text().strip() == told["site_id"]
    assert (disk.state / "telemetry.db").exists()
