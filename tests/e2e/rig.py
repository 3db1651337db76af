"""Real programs for the end-to-end tests: simulated sites in this process, all else as children.

Clocks are real and periods short. Every child is ended by its own pid. Times that are waited for
only end a wait that would never end: what runs beside a test may stop it for seconds.
"""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from heatpool_sim import app as simulator
from heatpool_sim import scenario

PERIOD_S = 4
# For what comes sooner or later; far beyond what the slowest machine needs.
PATIENCE_S = 90.0
FLEET = """
name = "pair"
seed = {seed}

[[virtual_source]]
id = "district-loop"
kind = "district_loop"
hot_c = 60.0
cold_c = 48.0
price_eur_mwh = "44.75"
"""
SITE = """
[[site]]
id = "{site_id}"
virtual_source = "district-loop"
it_w = {it_w}
mode = "{mode}"
"""


def free_port() -> int:
    """A loopback port that nobody listens on now, below those that the kernel gives away."""
    for port in random.sample(range(20_000, 32_000), k=50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port among fifty")


@dataclass(slots=True)
class Program:
    """One child process, started again with the same settings after a kill."""

    module: str
    folder: Path
    settings: str
    name: str
    environ: Mapping[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    @property
    def ready_file(self) -> Path:
        return self.folder / f"{self.name}.ready.json"

    async def start(self) -> dict[str, Any]:
        """Starts the child and waits until it says that it is ready."""
        await self.spawn()
        await until(self._is_ready_or_gone)
        assert self.ready_file.exists(), self.log_tail()
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    async def spawn(self) -> None:
        """Starts the child and does not wait for it."""
        config = self.folder / f"{self.name}.toml"
        config.write_text(self.settings)
        self.ready_file.unlink(missing_ok=True)
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.child = await asyncio.to_thread(
                subprocess.Popen,
                [
                    sys.executable,
                    "-m",
                    self.module,
                    "run",
                    "--config",
                    str(config),
                    "--ready-file",
                    str(self.ready_file),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environ},
            )

    def _is_ready_or_gone(self) -> bool:
        assert self.child is not None
        return self.ready_file.exists() or self.child.poll() is not None

    def log_tail(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()[-3_000:]

    async def kill(self) -> None:
        """kill -9."""
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.child.wait)

    async def stop(self, *, within_s: float = PATIENCE_S) -> int:
        """TERM; the exit code."""
        if self.child is None or self.child.poll() is not None:
            return 0 if self.child is None else int(self.child.returncode)
        self.child.send_signal(signal.SIGTERM)
        try:
            return int(await asyncio.to_thread(self.child.wait, within_s))
        except subprocess.TimeoutExpired:
            await self.kill()
            raise AssertionError(f"{self.name} did not stop: {self.log_tail()}") from None


async def until(is_true: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    """Waits for a claim to hold; raises TimeoutError if it does not in time."""
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(is_true):  # noqa: ASYNC110  # another process's state
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class Rig:
    """A running fleet with its programs."""

    folder: Path
    fleet: simulator.Fleet
    aggregator: Program
    agents: dict[str, Program]
    web: str
    grpc: str
    http: aiohttp.ClientSession = field(repr=False)

    async def ask(self, path: str) -> Any:
        """An answer of the aggregator's REST."""
        async with self.http.get(f"http://{self.web}{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def begun(self) -> None:
        """Waits until rows and registers of every site have come."""
        least = 4 * len(self.agents)
        await self.eventually("/v1/status", lambda a: a["ingest"]["batches_durable"] >= least)
        await self.eventually(
            "/v1/sites", lambda a: all(one["energy_wh"] is not None for one in a["sites"])
        )

    async def agent_status(self, site_id: str) -> dict[str, Any]:
        """An answer of an agent's own page."""
        told = json.loads(self.agents[site_id].ready_file.read_text())
        async with self.http.get(f"http://{told['http']}/v1/status") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def restart(self, program: Program) -> None:
        """kill -9 and start again."""
        await program.kill()
        await program.start()

    async def eventually(self, path: str, is_true: Callable[[Any], bool]) -> Any:
        """The first answer for which the claim holds."""
        answer: Any = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        answer = await self.ask(path)
                    except aiohttp.ClientError:
                        answer = None
                    if answer is not None and is_true(answer):
                        return answer
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"{path} never got there; last answer: {answer}") from None


def aggregator_toml(
    folder: Path, sites: Sequence[str], *, web: str, grpc: str, setpoint: str = ""
) -> str:
    members = "\n".join(f'[[virtual_source.member]]\nsite_id = "{site_id}"' for site_id in sites)
    return f"""
[listen]
grpc = "{grpc}"
http = "{web}"
[state]
dir = "{folder / "aggregator"}"
[live]
message_period_s = 1
[settlement]
period_s = {PERIOD_S}
grace_s = 3
[[virtual_source]]
id = "district-loop"
kind = "district_loop"
[virtual_source.agreement]
id = "hpa-1"
price_eur_mwh = "44.75"
round_eur = "0.000001"
{members}
{setpoint}
"""


def agent_toml(folder: Path, door: simulator.SiteDoor, *, grpc: str, armed: bool = False) -> str:
    site_id = door.spec.site_id
    actuator = f"""
[[actuator]]
id = "valve"
kind = "modbus"
url = "{door.cdu.url}"
unit_id = 1
map = "generic-cdu"
loop = "rack"
armed = true
"""
    return f"""
[site]
id = "{site_id}"
state_dir = "{folder / site_id}"
[sampling]
period_s = 1
report_period_s = 1
message_period_s = 1
[[loop]]
id = "rack"
cooling = "dlc"
rejection_capacity_w = 90000
max_heat_rate_w = 60000
[[sensor]]
id = "cdu"
kind = "modbus"
url = "{door.cdu.url}"
unit_id = 1
map = "generic-cdu"
loop = "rack"
[[sensor]]
id = "meter"
kind = "mbus"
url = "{door.meter.url}"
address = {door.spec.meter_address}
loop = "rack"
role = "billing"
period_s = 1
[aggregator]
url = "http://{grpc}"
[http]
listen = "127.0.0.1:0"
[orders]
hold_s = 1
{actuator if armed else ""}
"""


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    sites: int = 2,
    seed: int = 7,
    mode: str = "network",
    setpoint: str = "",
    armed: bool = False,
    environ: Callable[[str], Mapping[str, str]] = lambda _: {},
) -> AsyncIterator[Rig]:
    """A running fleet of `sites` sites; everything is stopped in the end.

    `environ` gives more of the environment of the aggregator (`aggregator`) or a site by its id.
    """
    names = [f"e{number}" for number in range(1, sites + 1)]
    file = folder / "fleet.toml"
    file.write_text(
        FLEET.format(seed=seed)
        + "".join(SITE.format(site_id=name, it_w=30_000, mode=mode) for name in names)
    )
    web, grpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = aggregator_toml(folder, names, web=web, grpc=grpc, setpoint=setpoint)
    aggregator = Program(
        "heatpool_aggregator", folder, settings, "aggregator", environ("aggregator")
    )
    async with simulator.serve(scenario.parse(file)) as fleet, aiohttp.ClientSession() as http:
        agents = {
            name: Program(
                "heatpool_agent",
                folder,
                agent_toml(folder, fleet.doors[name], grpc=grpc, armed=armed),
                f"agent-{name}",
                environ(name),
            )
            for name in names
        }
        try:
            await aggregator.start()
            await asyncio.gather(*(agent.start() for agent in agents.values()))
            yield Rig(folder, fleet, aggregator, agents, web, grpc, http)
        finally:
            for program in (*agents.values(), aggregator):
                if program.child is not None and program.child.poll() is None:
                    os.kill(program.child.pid, signal.SIGKILL)
                    await asyncio.to_thread(program.child.wait)
