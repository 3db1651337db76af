"""`heatpool-sim load --join`: agents that enrol by one token, and then speak over mTLS."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from click.testing import CliRunner
from integration.test_identity_commands import mode, said

from heatpool.process.settings import convert
from heatpool_aggregator import app
from heatpool_aggregator.config import Config
from heatpool_sim.commands.load import command

# gRPC joins its poller thread when its last object goes, wherever that happens: keep it up instead.
grpc.aio.init_grpc_aio()

AGENTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """An aggregator with certificates, and where its agents keep theirs."""

    state: Path
    folder: Path
    grpc: str
    url: str
    ca_hash: str

    async def load(self, token: str, *words: str, ca_hash: str = "") -> tuple[int, Any, str]:
        """Exit code, report and what was said beside it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "heatpool_sim", "load", f"--agents={AGENTS}", "--json"),
            *("--period=0.5s", "--seconds=1s", "--ramp=0.1s", f"--address={self.grpc}"),
            *("--join", self.url, "--token", token, "--ca-hash", ca_hash or self.ca_hash),
            *("--tls-dir", str(self.folder), *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, json.loads(out) if out else None, err.decode()

    async def token(self, *words: str) -> str:
        """A fresh one for all agents."""
        new = ("token", "new", "--site-id", "load-*", "--uses", str(AGENTS), *words)
        found: str = (await asyncio.to_thread(said, self.state, *new))["token"]
        return found


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Door]:
    state = folder / "state"
    made = await asyncio.to_thread(said, state, "init", "--host", "127.0.0.1")
    config = convert({"listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}}, Config)
    async with app.serving(config, state) as addresses:
        yield Door(
            state=state,
            folder=folder / "agents",
            grpc=addresses["grpc"],
            url=f"https://{addresses['http']}",
            ca_hash=made["ca_hash"],
        )


async def test_a_fleet_enrols_by_one_token_and_loads_over_mtls(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        token = await door.token()
        operator = str(door.state / "identity" / "admin.pem")
        code, found, told = await door.load(token, "--verify", "--operator", operator)
        assert (code, found["lost"], found["left"]) == (0, 0, 0), told
        assert found["agents"]["never_connected"] == 0
        assert found["witness"]["is_right"] and found["durable"]["batches"] > 0
        assert f"joined={AGENTS} of={AGENTS}" in told and token.partition(".")[2] not in told
        assert mode(door.folder) == 0o700
        assert {mode(path) for path in door.folder.iterdir()} == {0o600}
        assert len(list(door.folder.iterdir())) == AGENTS + 1
        # The token has no use left: whoever has a certificate asks for nothing.
        code, found, told = await door.load(token)
        assert (code, found["agents"]["never_connected"]) == (0, 0), told
        assert "load.joining" not in told


async def test_an_answer_that_was_lost_is_heard_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        token = await door.token()
        await door.load(token)
        lost = door.folder / "load-00003.pem"
        text = lost.read_text()
        key, begin, _ = text.partition("-----BEGIN CERTIFICATE-----")
        assert begin
        (door.folder / ".load-00003.asking").write_text(key)
        lost.unlink()
        code, found, told = await door.load(token)
        assert (code, found["agents"]["never_connected"]) == (0, 0), told
        assert lost.read_text() == text


async def test_a_token_that_ends_on_the_way_loses_no_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        short = await door.token()
        code, _, told = await door.load(short, f"--agents={AGENTS * 3}")
        assert code == 1 and f"was used {AGENTS} of {AGENTS} times" in told
        assert len(list(door.folder.glob("load-*.pem"))) == AGENTS


async def test_a_refused_token_or_another_ca_ends_the_run_in_words(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        code, _, told = await door.load("abcdef.0123456789abcdef")
        assert code == 1 and "this token is unknown" in told
        other = f"sha256:{'ab' * 32}"
        code, _, told = await door.load(await door.token(), ca_hash=other)
        assert code == 1 and door.ca_hash in told and other in told
        code, _, told = await door.load(await door.token("--approve"))
        assert code == 1 and "without --approve" in told
        listed = await asyncio.to_thread(said, door.state, "token", "list")
        assert {row["uses_left"] for row in listed} == {AGENTS}


async def test_nobody_there_is_told_with_the_address(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        token = await door.token()
    code, _, told = await door.load(token)
    assert code == 1 and door.url in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ([], "--join needs --tls-dir"),
        (["--tls-dir", "x", "--token", "a.b"], "--ca-hash"),
        (["--tls-dir", "x", "--ca-hash", "sha256:00"], "--token"),
    ],
)
def test_what_is_missing_for_a_join_is_named(words: list[str], mistake: str) -> None:
    found = CliRunner().invoke(command, ["--join", "https://127.0.0.1:1", *words])
    assert found.exit_code == 2 and mistake in found.output


def test_a_token_is_never_sent_over_plain_http() -> None:
    words = ["--join", "http://127.0.0.1:1", "--tls-dir", "x", "--ca-hash", "y", "--token", "z"]
    found = CliRunner().invoke(command, words)
    assert found.exit_code == 2 and "https://" in found.output
