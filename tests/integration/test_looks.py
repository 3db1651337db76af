"""Looks at all sensors: one that does not answer costs the others nothing."""

import asyncio
import socket
from pathlib import Path

from heatpool.units import NS_PER_S
from heatpool_agent.assembly import SystemClock
from heatpool_agent.config import load
from heatpool_agent.looks import look_at_all

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
    path.write_text(TEXT.format(port=port), encoding="utf-8")
    return path


async def test_a_silent_device_makes_no_other_figure_old(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = load(await asyncio.to_thread(settings, tmp_path, mute.getsockname()[1]), {})
        seen = await look_at_all(config, SystemClock(), most_s=2.0)
    assert {look.id: look.state for look in seen.looks} == {"mute": "gone", "host": "up"}
    # Read once more after the silence, not before it.
    ages_s = [(seen.at_ns - reading.event_ns) / NS_PER_S for reading in seen.board.judged]
    assert ages_s
    assert max(ages_s) < 1.0
