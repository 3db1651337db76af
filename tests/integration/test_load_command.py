"""`heatpool-sim load` as people and scripts call it."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from e2e.rig import free_port

from heatpool.process import settings
from heatpool_aggregator import app
from heatpool_aggregator.config import Config
from heatpool_sim.commands.load import command
from heatpool_sim.load import report

# What a script may rely on, at the first two levels.
KEYS = {
    "version": None,
    "agents": "bad_clocks connected_most count liars never_connected refused_for_good",
    "lasted_s": None,
    "sent": "batches bytes gaps garbage register_batches registers repeats rows values",
    "bytes_per_value": None,
    "durable": "batches garbage register_batches registers rows",
    "left": None,
    "lost": None,
    "dropped": None,
    "checked": None,
    "latency_ms": "backlog billing live live_while_backlog",
    "refused": "",
    "garbage": "enders frames refusals_due",
    "told": "resends retry_afters slows",
    "reconnects": None,
    "ends": "",
    "storms": None,
    "backlog": None,
    "own": "cpu_s lag_ms rss_agent_bytes rss_bytes",
    "witness": "counts counts_expected energy_expected_wh energy_wh is_right sites_compared "
    "sites_wrong waited_s",
}


async def told(*arguments: str) -> tuple[int, str]:
    """Exit code and stdout of the command as a process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "heatpool_sim", "load", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_run_ends_with_the_report_that_scripts_know(tmp_path: Path) -> None:
    doors = f"--address=127.0.0.1:{free_port()}", f"--http=127.0.0.1:{free_port()}"
    same = (*doors, "--agents=10", "--period=0.5s")
    path = tmp_path / "aggregator.toml"
    written = await asyncio.to_thread(
        CliRunner().invoke, command, [*same, "--write-config", str(path)]
    )
    assert written.output == f"heatpool-aggregator run --config {path}\n"
    config = settings.load(path, Config, environ={}, prefix="NOBODY")
    async with app.serving(config, tmp_path):
        code, out = await told(*same, "--seconds=1.5", "--ramp=0.1s", "--verify", "--json")
    found: dict[str, Any] = json.loads(out)
    assert (code, found["version"], found["lost"]) == (0, report.VERSION, 0)
    assert {
        name: " ".join(sorted(value)) if isinstance(value, dict) else None
        for name, value in found.items()
    } == KEYS
    assert found["witness"]["is_right"]
    text = report.text(found)
    assert "acknowledged and later denied 0" in text
    assert "lag_ms (count " in text
    assert not set("{}[]'") & set(text)


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["--storm", "8000"], "no N@T"),
        (["--storm", "0@3s"], "no N@T"),
        (["--burst", "10@3s"], "no F@T:LENGTH"),
        (["--garbage", "1.5"], "not in the range"),
        (["--period", "soon"], "no span"),
        (["--token-file", "/nowhere"], "does not exist"),
        (["--tls-dir", "/tmp", "--http", "127.0.0.1:1"], "wants a token"),
        (["--tls-dir", "/tmp", "--streams-per-connection", "9"], "names one site"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(arguments: list[str], mistake: str) -> None:
    done = CliRunner().invoke(command, arguments)
    assert (done.exit_code, mistake in done.output) == (2, True)


async def test_a_run_that_nobody_let_in_fails() -> None:
    code, out = await told(
        f"--address=127.0.0.1:{free_port()}", "--agents=2", "--seconds=0.5", "--drain=0.1s"
    )
    assert (code, "2 never" in out) == (1, True)
