"""A site's whole life with real programs: joins, sends over mTLS, renews, is cut off, leaves."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from e2e.rig import PATIENCE_S, Program, free_port

pytestmark = pytest.mark.e2e

# Ten seconds until it is renewed: what a busy machine needs to start three children.
LIFE_S = 15
AGGREGATOR = """
[listen]
grpc = "{grpc}"
http = "{web}"
[state]
dir = "{folder}/aggregator"
[live]
message_period_s = 1
[tls]
site_life_s = {life_s}
"""
AGENT = """
[site]
state_dir = "{folder}/{name}"
[sampling]
period_s = 1
report_period_s = 1
message_period_s = 1
[[sensor]]
id = "host"
kind = "host"
[http]
listen = "127.0.0.1:0"
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass(slots=True)
class Premises:
    """An aggregator with certificates, and a site that may join it."""

    folder: Path
    aggregator: Program
    agent: Program
    web: str
    http: aiohttp.ClientSession = field(repr=False)

    async def command(self, module: str, *words: str) -> Done:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
        return Done(child.returncode or 0, out.decode(), err.decode())

    async def keeper(self, *words: str) -> Any:
        """A command of whoever runs the aggregator."""
        config = self.folder / "aggregator.toml"
        done = await self.command("heatpool_aggregator", *words, "--config", str(config), "--json")
        return done.document()

    async def join(self, token: str, ca_hash: str, site_id: str, *words: str) -> Done:
        """The command at the site that is called so."""
        config = self.folder / f"{site_id}.toml"
        config.write_text(AGENT.format(folder=self.folder, name=site_id))
        return await self.command(
            "heatpool_agent",
            "join",
            f"https://{self.web}",
            *("--token", token, "--ca-hash", ca_hash, "--site-id", site_id),
            *("--config", str(config), *words),
        )

    async def status(self) -> dict[str, Any]:
        told = json.loads(self.agent.ready_file.read_text())
        async with self.http.get(f"http://{told['http']}/v1/status") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def eventually(self, claim: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status of which the claim is true."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not claim(found := await self.status()):  # noqa: ASYNC110  # another process
                    await asyncio.sleep(0.1)
        except TimeoutError:
            told = {key: found[key] for key in ("uplink", "identity")}
            raise AssertionError(f"never got there: {told}, {self.agent.log_tail()}") from None
        return found

    async def line(self, state: str) -> dict[str, Any]:
        """The status once the line is in this state."""
        return await self.eventually(lambda told: told["uplink"]["state"] == state)

    async def acked_beyond(self, count: int) -> int:
        """How many batches are durable at the aggregator, once there are more than that."""
        told = await self.eventually(lambda told: told["uplink"]["batches_acked"] > count)
        return int(told["uplink"]["batches_acked"])


@asynccontextmanager
async def premises(folder: Path) -> AsyncIterator[Premises]:
    web, grpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = AGGREGATOR.format(folder=folder, web=web, grpc=grpc, life_s=LIFE_S)
    aggregator = Program("heatpool_aggregator", folder, settings, "aggregator")
    agent = Program("heatpool_agent", folder, AGENT.format(folder=folder, name="e1"), "agent")
    (folder / "aggregator.toml").write_text(settings)
    async with aiohttp.ClientSession() as http:
        made = Premises(folder, aggregator, agent, web, http)
        await made.keeper("init", "--host", "127.0.0.1")
        try:
            await asyncio.gather(aggregator.start(), agent.start())
            yield made
        finally:
            for program in (agent, aggregator):
                if program.child is not None and program.child.poll() is None:
                    os.kill(program.child.pid, signal.SIGKILL)
                    await asyncio.to_thread(program.child.wait)


async def test_a_site_joins_sends_renews_is_revoked_and_leaves(tmp_path: Path) -> None:
    async with premises(tmp_path) as site:
        before = await site.status()
        assert (before["identity"]["state"], before["uplink"]["state"]) == ("none", "none")

        token = await site.keeper("token", "new", "--site-id", "e1")
        done = await site.join(token["token"], token["ca_hash"], "e1", "--json")
        assert done.document()["site_id"] == "e1"
        joined = await site.line("connected")
        assert joined["site_id"] == joined["identity"]["site_id"] == "e1"
        acked = await site.acked_beyond(0)

        config = str(tmp_path / "e1.toml")
        looked = await site.command("heatpool_agent", "doctor", "--json", "--config", config)
        verdicts = {one["id"]: one["status"] for one in json.loads(looked.out)["checks"]}
        names = ("identity", "certificate", "aggregator")
        assert {name: verdicts[name] for name in names} == dict.fromkeys(names, "OK")

        first = joined["identity"]["fingerprint"]
        await site.eventually(lambda told: told["identity"]["fingerprint"] != first)
        renewed = await site.line("connected")
        assert renewed["identity"]["state"] == "valid"
        assert renewed["identity"]["end_ns"] > joined["identity"]["end_ns"]
        await site.acked_beyond(acked)

        await site.keeper("site", "revoke", "e1", "--reason", "sold")
        cut = await site.line("refused")
        assert "revoked" in cut["uplink"]["detail"]
        assert "join" in cut["uplink"]["fix"]
        assert cut["uplink"]["batches_acked"] < cut["spool"]["telemetry"]["next_seq"]

        left = await site.command("heatpool_agent", "join", "--forget", "--config", config)
        assert left.code == 0
        told = await site.line("none")
        assert told["identity"]["state"] == "none"
        assert await site.agent.stop() == 0
        assert "PRIVATE KEY" not in site.agent.log_tail()
        assert token["token"] not in site.agent.log_tail() + site.aggregator.log_tail()


async def test_a_token_serves_one_site_once_and_who_waits_is_let_in(tmp_path: Path) -> None:
    async with premises(tmp_path) as site:
        token = await site.keeper("token", "new", "--site-id", "e2")
        words = (token["token"], token["ca_hash"])
        other = await site.join(*words, "e3")
        assert (other.code, "another" in other.err) == (1, True)
        assert (await site.join(*words, "e2")).code == 0
        again = await site.join(*words, "e2", "--force")
        assert (again.code, "token new" in again.err) == (1, True)
        unknown = await site.join("zzzzzz.0123456789abcdef", token["ca_hash"], "e2", "--force")
        assert (unknown.code, "unknown" in unknown.err) == (1, True)

        queue = await site.keeper("token", "new", "--site-id", "e4", "--approve")
        words = (queue["token"], queue["ca_hash"])
        waiting = await site.join(*words, "e4", "--no-wait")
        assert waiting.code == 3
        key = waiting.err.split("--key ")[1].split()[0]
        await site.keeper("site", "approve", "e4", "--key", key)
        assert (await site.join(*words, "e4", "--no-wait")).code == 0
