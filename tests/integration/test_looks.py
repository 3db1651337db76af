"""Looks at all sensors: one that does not answer costs the others nothing."""

import asyncio
import io
import socket
from pathlib import Path

import msgspec

from heatpool.units import NS_PER_S
from heatpool_agent.assembly import SystemClock
from heatpool_agent.commands.once import look
from heatpool_agent.commands.waiting import told_waiting
from heatpool_agent.config import Config, load
from heatpool_agent.looks import in_time, look_at_all, patiences

TEXT = """
[[sensor]]
id = "mute"
kind = "modbus"
url = "tcp://127.0.0.1:{port}"
map = "generic-cdu"
timeout_s = 2
[[sensor]]
id = "host"
kind = "host"
"""


def settings(folder: Path, port: int) -> Path:
    path = folder / "agent.toml"
    path.write_text(
        TEXT.format(port=port).replace("timeout_s = 2", "timeout_s = 5"), encoding="utf-8"
    )
    return path


async def test_a_silent_device_makes_no_other_figure_old(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = load(await asyncio.to_thread(settings, tmp_path, mute.getsockname()[1]), {})
        seen = await look_at_all(config, SystemClock(), most_s=5.0)
    assert {look.id: look.state for look in seen.looks} == {"mute": "gone", "host": "up"}
    # Read once more after the silence, not before it.
    ages_s = [(seen.at_ns - reading.event_ns) / NS_PER_S for reading in seen.board.judged]
    assert ages_s
    assert max(ages_s) < 4.0


class Terminal(io.StringIO):
    """Keeps what is written on it, and wakes who waits for that."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote = asyncio.Event()

    def write(self, text: str) -> int:
        self.wrote.set()
        return super().write(text)

    def isatty(self) -> bool:
        return True


async def slow_and_quick(folder: Path, port: int, timeout: str) -> Config:
    text = TEXT.format(port=port).replace("timeout_s = 2", timeout)
    text = text.replace('kind = "modbus"', 'kind = "redfish"').replace('map = "generic-cdu"', "")
    path = folder / "agent.toml"
    await asyncio.to_thread(path.write_text, text.replace("tcp:", "http:"), encoding="utf-8")
    return load(path, {})


async def test_a_look_ends_before_a_sensor_s_own_limit_and_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = await slow_and_quick(tmp_path, mute.getsockname()[1], "")
        waited: set[str] = set()
        seen = await look_at_all(config, SystemClock(), most_s=1.0, waited=waited)
    bmc = next(look for look in seen.looks if look.id == "mute")
    assert bmc.state == "gone"
    assert bmc.detail.endswith("no answer in 1 s (its own limit is 60 s)")
    assert waited == set()


async def test_once_is_as_patient_as_a_terminal_or_as_it_is_asked(tmp_path: Path) -> None:
    config = await slow_and_quick(tmp_path, 9, "")
    assert [in_time(config, most_s).sensor[0]["timeout_s"] for most_s in (15.0, 90.0)] == [15, 60]
    shorter = await slow_and_quick(tmp_path, 9, "timeout_s = 3")
    assert in_time(shorter, 15.0).sensor[0]["timeout_s"] == 3
    assert patiences(shorter, 15.0)["mute"].told_own == ""


async def test_a_terminal_is_told_who_is_waited_for() -> None:
    terminal, waited = Terminal(), {"bmc"}
    with told_waiting(waited, terminal, every_s=0.01):
        async with asyncio.timeout(60):
            await terminal.wrote.wait()
        waited.clear()
    assert "waiting for bmc" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    with told_waiting({"bmc"}, quiet := io.StringIO(), every_s=0.0):
        await asyncio.sleep(0.01)
    assert quiet.getvalue() == ""


async def test_a_service_without_figures_is_told_to_answer(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    await asyncio.to_thread(tree.mkdir)
    root = '{"@odata.id": "/redfish/v1/", "Chassis": {"@odata.id": "/redfish/v1/Chassis"}}'
    await asyncio.to_thread((tree / "index.json").write_text, root)
    config = await slow_and_quick(tmp_path, 9, "")
    block = {"id": "mute", "kind": "redfish", "url": f"file:{tree}"}
    config = msgspec.structs.replace(config, sensor=(block,))
    told = next(iter((await look(config, {}, span_s=0.01))["sensors"]))
    seen = (await look_at_all(config, SystemClock())).looks[0]
    assert told["state"] == seen.state == "absent"
    assert told["detail"] == seen.detail
    assert seen.detail == "answers, and shows no power, heat or leak that heatpool knows"
    assert told["fix"] == seen.fix
    assert "url" in seen.fix
