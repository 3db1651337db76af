"""The program as a whole: strangers at the door make no noise, and no secret is in its journal."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from integration.door import pki
from integration.door.calls import QUERY, ask, status

PROGRAM = (sys.executable, "-W", "error", "-m", "heatpool_aggregator", "run")
STRANGERS = 20


@asynccontextmanager
async def running(folder: Path, tls: dict[str, str]) -> AsyncIterator[tuple[str, Any]]:
    """gRPC address and process; leaving stops it."""
    settings, ready = folder / "aggregator.toml", folder / "ready.json"
    listen = '[listen]\ngrpc = "127.0.0.1:0"\nhttp = "127.0.0.1:0"'
    state = f'[state]\ndir = "{folder}/state"'
    lines = [f'{name} = "{path}"' for name, path in tls.items()]
    settings.write_text("\n".join([listen, state, "[tls]", *lines, ""]), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "--config", str(settings), "--ready-file", str(ready)),
        env={name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(40):
            while not ready.exists():  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.05)
        yield json.loads(ready.read_text(encoding="utf-8"))["grpc"], process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def test_strangers_leave_no_line_of_their_own_each(tmp_path: Path) -> None:
    ca = pki.Ca()
    unknown = ca.caller("spiffe://heatpool/person/nobody")
    tls = pki.write(tmp_path, ca, ca.server("127.0.0.1"))
    async with running(tmp_path, tls) as (address, process):
        for who in [pki.Ca().caller("spiffe://heatpool/site/e1"), unknown] * STRANGERS:
            credentials = grpc.ssl_channel_credentials(ca.pem, who.key, who.chain)
            options = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.secure_channel(address, credentials, options) as channel:
                await status(ask(channel, f"{QUERY}/ListSiteStatus"))
        process.terminate()
        out, _ = await process.communicate()
    lines = out.decode().splitlines()
    assert len([line for line in lines if "rpc.refused" in line]) == 1, lines
    assert len(lines) < STRANGERS, lines
    assert "PRIVATE KEY" not in out.decode() and "BEGIN CERTIFICATE" not in out.decode()


async def test_what_it_keeps_is_for_its_own_user_alone(tmp_path: Path) -> None:
    ca = pki.Ca()
    async with running(tmp_path, pki.write(tmp_path, ca, ca.server("127.0.0.1"))):
        kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert {"log.db", "store.db", "ledger.db", "identity.db"} <= {path.name for path in kept}
        assert not [path for path in kept if path.stat().st_mode & 0o077]
