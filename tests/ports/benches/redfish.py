"""The bench of `redfish`: a simulated BMC with one chassis, behind a login."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from ports.bench import FAULTS

from heatpool_agent.ports import Roots
from heatpool_sim.devices import redfish_garble as garble
from heatpool_sim.devices.redfish_service import RedfishService
from heatpool_sim.devices.redfish_tree import ROOT, Resource

USER, PASSWORD = "agent", "wort"
CHASSIS = f"{ROOT}/Chassis/1"
# Longer than the suite waits, and short enough to be waited for at the end.
SLOW_S = 1.6


def _link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def _resource(path: str, kind: str, **more: Any) -> tuple[str, Resource]:
    told = {"@odata.type": f"#{kind}.v1_0_0.{kind}", "Id": "1", "Name": kind}
    return path, {"@odata.id": path, **told, **more}


def documents(*, power_w: float = 374.0, energy_wh: float = 325_675e3) -> dict[str, Resource]:
    """A service with one chassis and its input."""
    sessions = {"Sessions": _link(f"{ROOT}/SessionService/Sessions")}
    return dict(
        (
            _resource(ROOT, "ServiceRoot", Chassis=_link(f"{ROOT}/Chassis"), Links=sessions),
            _resource(f"{ROOT}/Chassis", "ChassisCollection", Members=[_link(CHASSIS)]),
            _resource(
                CHASSIS,
                "Chassis",
                ChassisType="RackMount",
                EnvironmentMetrics=_link(f"{CHASSIS}/EnvironmentMetrics"),
            ),
            _resource(
                f"{CHASSIS}/EnvironmentMetrics",
                "EnvironmentMetrics",
                PowerWatts={"Reading": power_w},
                EnergykWh={"Reading": energy_wh / 1000},
            ),
        )
    )


class _Tree:
    def __init__(self) -> None:
        self.resources = documents()

    def get(self, path: str) -> Resource | None:
        """The resource at a path."""
        return self.resources.get(path)

    def patch(self, path: str, change: Resource) -> Resource | None:
        """None: nothing here can be set."""
        return None


class RedfishBench:
    """One BMC, and what can be done to it."""

    quantities = frozenset({"power_w", "energy_wh"})
    faults = FAULTS
    lacks: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(state=folder)
        self._secret = folder / "bmc_password"
        self._secret.write_text(PASSWORD)
        self._last: frozenset[str] = frozenset()
        self._has_slowed = False
        self._port = 0
        self._service: RedfishService | None = None
        self._requests = 0
        self._serving = AsyncExitStack()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The driver's block."""
        return {
            "kind": "redfish",
            "url": f"http://127.0.0.1:{self._port}",
            "user": USER,
            "password_file": str(self._secret),
        }

    @property
    def exchanges(self) -> int:
        """Requests so far, logins among them."""
        return self._requests + (self._service.requests if self._service else 0)

    async def start(self) -> None:
        """The plug goes in, at the port of before."""
        self._service = RedfishService(
            _Tree(),
            port=self._port,
            user=USER,
            password=PASSWORD,
            faults=lambda: self._last,
            slow_s=SLOW_S,
        )
        self._port = (await self._serving.enter_async_context(self._service.serve())).port

    async def pull(self) -> None:
        """Connections die and the port is closed."""
        self._requests, self._service = self.exchanges, None
        await self._serving.aclose()
        if self._has_slowed:
            # The server ends what it began, even if nobody waits for the answer any more.
            await asyncio.sleep(SLOW_S)
            self._has_slowed = False

    async def slow(self) -> None:
        """The service takes its time."""
        self._last, self._has_slowed = frozenset({garble.SLOW}), True

    async def garble(self) -> None:
        """A page of the web interface in place of every document."""
        self._last = frozenset({"redfish_html"})

    async def heal(self) -> None:
        """As at the start, at the same port; it forgot all sessions, as after a power cut."""
        self._last = frozenset()
        await self.pull()
        await self.start()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[RedfishBench]:
    """A BMC that answers while the context is open."""
    bench = RedfishBench(folder)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.pull()
