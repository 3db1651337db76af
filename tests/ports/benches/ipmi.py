"""The bench of `ipmi`: a simulated BMC on its own UDP port, asked by ipmitool."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ports.bench import FAULTS

from heatpool_agent.ports import Roots
from heatpool_sim.devices.ipmi_bmc import CIPHER, IpmiBmc

USER, PASSWORD = "agent", "wort"


class Plant:
    """A server that stands still; figure and faults may be changed."""

    def __init__(self) -> None:
        self.faults: frozenset[str] = frozenset()
        self.power_w = 412.3
        self.at_ns = 1_750_000_000_000_000_000

    def gauges(self) -> Any:
        """As much of the display as a BMC shows by IPMI."""
        halves = (0.48 * self.power_w, 0.52 * self.power_w)
        shown = SimpleNamespace(electric_w=self.power_w, input_w=halves)
        return SimpleNamespace(server=SimpleNamespace(shown=shown, rated_w=500.0), at_ns=self.at_ns)


class IpmiBench:
    """One BMC, and what can be done to it."""

    quantities = frozenset({"power_w"})
    faults = FAULTS
    lacks: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(dev=folder / "dev", sys=folder / "sys", state=folder)
        self.plant: Any = Plant()
        self._secret = folder / "bmc_password"
        self._secret.write_text(f"{PASSWORD}\n", encoding="ascii")
        self._port = 0
        self._bmc = IpmiBmc(user=USER, password=PASSWORD)
        self._before = 0
        self._serving = AsyncExitStack()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The driver's block."""
        return {
            "kind": "ipmi",
            "url": f"ipmi://127.0.0.1:{self._port}",
            "user": USER,
            "password_file": str(self._secret),
            "cipher": CIPHER,
        }

    @property
    def exchanges(self) -> int:
        """Datagrams that came so far, those of logins among them."""
        return self._before + self._bmc.datagrams

    @property
    def heard(self) -> asyncio.Event:
        """Set once a datagram came."""
        return self._bmc.heard

    @property
    def commands(self) -> int:
        """Commands within sessions since it was last plugged in."""
        return self._bmc.commands

    async def start(self) -> None:
        """The plug goes in, at the port of before."""
        self._before = self.exchanges
        self._bmc = IpmiBmc(port=self._port, user=USER, password=PASSWORD)
        address = await self._serving.enter_async_context(self._bmc.serve(self.plant))
        self._port = address.port

    async def pull(self) -> None:
        """The port is closed."""
        await self._serving.aclose()

    async def slow(self) -> None:
        """Answers come later than anybody waits."""
        self.plant.faults = frozenset({"ipmi_slow"})

    async def garble(self) -> None:
        """Each datagram is answered by a piece of another protocol."""
        self.plant.faults = frozenset({"ipmi_garbled"})

    async def heal(self) -> None:
        """As at the start, at the same port; all sessions are forgotten, as after a power cut."""
        self.plant.faults = frozenset()
        await self.pull()
        await self.start()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[IpmiBench]:
    """A BMC that answers while the context is open; skips where no ipmitool is."""
    if shutil.which("ipmitool") is None:
        pytest.skip("no ipmitool here: apt install ipmitool")
    bench = IpmiBench(folder)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.pull()
