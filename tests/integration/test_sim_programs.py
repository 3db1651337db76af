"""The demo's hands: its directory, its ports, the processes it starts."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from turns import SOON_S, turning

from heatpool.errors import ConfigError, HeatpoolError
from heatpool_sim.programs import place
from heatpool_sim.programs.child import Child, Order

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
{start}
ready = Path(sys.argv[sys.argv.index("--ready-file") + 1])
ready.write_text(json.dumps({{"pid": os.getpid()}}))
while True:
    time.sleep(60)
"""


def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str = "") -> Order:
    """A program of a few lines, found by `python -m` like ours."""
    (tmp_path / "stand_in.py").write_text(PROGRAM.format(start=start), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Order(
        name="x",
        module="stand_in",
        config=tmp_path / "x.toml",
        ready_file=tmp_path / "x.json",
        log_file=tmp_path / "x.log",
    )


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that still run."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def children_of(pid: int) -> list[int]:
    """Processes that this one started, of the stand-in program only."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            line = (status.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and b"stand_in" in line:
            found.append(int(status.parent.name))
    return found


async def test_a_program_is_started_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(order(tmp_path, monkeypatch))
    await child.start()
    said = await child.ready(within_s=60)
    await child.stop(within_s=60)
    with pytest.raises(ProcessLookupError):
        os.kill(said["pid"], 0)


async def test_a_program_that_dies_is_started_again_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(order(tmp_path, monkeypatch))
    await child.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.watch(), name="watch")
        first = await child.ready(within_s=60)
        os.kill(first["pid"], signal.SIGKILL)
        (tmp_path / "x.json").unlink()
        async with asyncio.timeout(60):
            while (again := child.said()) is None:  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.05)
        await child.stop(within_s=60)
    assert again["pid"] != first["pid"]
    assert child.restarts_count == 1


async def test_a_program_that_is_deaf_to_term_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = Child(order(tmp_path, monkeypatch, deaf))
    await child.start()
    said = await child.ready(within_s=60)
    await child.stop(within_s=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(said["pid"], 0)


DIES = """
with open("{pids}", "a", encoding="utf-8") as pids: pids.write(f"{{os.getpid()}}\\n")
sys.exit(3)
"""


def pids_of(file: Path) -> list[int]:
    """Processes that wrote their number."""
    return [int(line) for line in file.read_text().split()] if file.exists() else []


async def test_a_program_that_dies_in_a_loop_is_stopped_at_once_and_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    child = Child(order(tmp_path, monkeypatch, DIES.format(pids=pids)))
    await child.start()
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(child.watch(), name="watch")
        async with asyncio.timeout(90):
            while child.restarts_count < 2:  # noqa: ASYNC110  # it waits 2 s now, 4 s the next time
                await asyncio.sleep(0.02)
        async with turning() as turns:
            await child.stop(within_s=60)
            await watch
        assert turns.passed_s < SOON_S
    await child.start()
    assert len(pids_of(pids)) == 2
    assert alive(pids_of(pids)) == []


async def test_a_stop_waits_for_the_start_that_it_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(order(tmp_path, monkeypatch))
    starts = asyncio.create_task(child.start(), name="start")
    await asyncio.sleep(0)  # the start is under way, there is no process yet
    async with asyncio.timeout(60):
        await child.stop(within_s=60)
    assert starts.done()
    assert children_of(os.getpid()) == []


async def test_a_program_that_cannot_start_shows_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(order(tmp_path, monkeypatch, 'sys.exit("port 8080 is taken")'))
    await child.start()
    with pytest.raises(HeatpoolError, match="port 8080 is taken"):
        await child.ready(within_s=60)


def test_a_directory_of_others_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years", encoding="utf-8")
    with pytest.raises(ConfigError, match="did not make"), place.opened(tmp_path, is_fresh=True):
        pass
    assert (tmp_path / "thesis.tex").read_text(encoding="utf-8") == "years"


def test_fresh_forgets_and_a_plain_start_remembers(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    with place.opened(root, is_fresh=False) as ours:
        ours.sites_file.write_text("{}", encoding="utf-8")
        (ours.state("aggregator") / "log.db").write_text("x", encoding="utf-8")
    with place.opened(root, is_fresh=False) as ours:
        assert ours.sites_file.exists()
    with place.opened(root, is_fresh=True) as ours:
        assert not ours.sites_file.exists()
        assert list(ours.state("aggregator").iterdir()) == []


def test_two_demos_do_not_share_a_place(tmp_path: Path) -> None:
    with (
        place.opened(tmp_path / "demo", is_fresh=False),
        pytest.raises(HeatpoolError, match="another demo"),
        place.opened(tmp_path / "demo", is_fresh=False),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_what_a_killed_demo_left_is_named_by_its_pid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_LEFT_S", 0.0)
    root = tmp_path / "demo"
    settings = str(root / "config" / "s01.toml")
    script = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        (sys.executable, "-c", script, "--config", settings),
        stdout=subprocess.PIPE,
    ) as left:
        try:
            assert left.stdout is not None
            left.stdout.readline()
            with (
                pytest.raises(HeatpoolError, match=f"kill -9 {left.pid}$"),
                place.opened(root, is_fresh=True),
            ):
                pass
        finally:
            left.kill()
    with place.opened(root, is_fresh=True):
        pass


KILLED = """
import asyncio, sys
from pathlib import Path
from heatpool_sim.programs.child import Child, Order

async def main():
    x = Path(sys.argv[1])
    files = {"config": x / "x.toml", "ready_file": x / "x.json", "log_file": x / "x.log"}
    await Child(Order(name="x", module="stand_in", **files)).start()
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no parent death signal")
async def test_a_program_ends_when_the_demo_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = order(tmp_path, monkeypatch).ready_file
    demo = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(tmp_path))
    async with asyncio.timeout(60):
        while not file.exists() or not file.read_text():  # noqa: ASYNC110  # its file
            await asyncio.sleep(0.05)
    pid = json.loads(file.read_text())["pid"]
    demo.kill()
    await demo.wait()
    async with asyncio.timeout(60):
        while is_running(pid):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether it is more than a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_ports_are_kept_until_somebody_has_them(tmp_path: Path) -> None:
    with place.opened(tmp_path / "demo", is_fresh=False) as ours:
        first = place.ports(ours, http_port=None)
        assert place.ports(ours, http_port=None) == first
        with socket.create_server(("127.0.0.1", first["grpc"])):
            moved = place.ports(ours, http_port=None)
        assert moved["http"] == first["http"]
        assert moved["grpc"] != first["grpc"]


async def test_the_simulator_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heatpool_sim", "run", "--fleet", "demo", "--json"),
        *("--state", str(tmp_path / "state.json")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(90):
        ready = json.loads(await process.stdout.readline())
        process.terminate()
        code = await process.wait()
    assert [site["site_id"] for site in ready["sites"]] == [f"s{n:02d}" for n in range(1, 13)]
    assert code == 0
    assert "register_wh" in (tmp_path / "state.json").read_text(encoding="utf-8")


async def test_a_wrong_fleet_ends_with_two_and_every_mistake(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text('name = "f"\nseed = "x"\nsite = []\n', encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heatpool_sim", "run", "--fleet", str(tmp_path / "f.toml")),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        _, said = await process.communicate()
    assert process.returncode == 2
    assert [key for key in (b"seed", b"virtual_source") if key not in said] == []
