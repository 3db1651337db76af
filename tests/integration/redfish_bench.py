"""A simulated BMC on loopback for the driver's tests, with a clock and faults in their hands."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from heatpool.process import settings
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import redfish
from heatpool_agent.sensors.redfish import RedfishSensor
from heatpool_sim.devices.redfish_service import RedfishService
from heatpool_sim.devices.redfish_tree import Page

NS = 1_000_000_000
ROOT = "/redfish/v1"
METRICS = f"{ROOT}/Chassis/1/EnvironmentMetrics"
USER, PASSWORD = "agent", "wort"


def link(path: str) -> dict[str, str]:
    return {"@odata.id": f"{ROOT}/{path}"}


def resource(path: str, kind: str, **more: Any) -> dict[str, Any]:
    name = path.rpartition("/")[2] or "root"
    told = {"@odata.id": f"{ROOT}/{path}".rstrip("/"), "@odata.type": f"#{kind}.v1_0_0.{kind}"}
    return {**told, "Id": name, "Name": name, **more}


def members(path: str, kind: str, *names: str) -> dict[str, Any]:
    found = [link(f"{path}/{name}") for name in names]
    return resource(path, kind, Members=found, **{"Members@odata.count": len(found)})


def documents(*chassis: str, power_w: float = 374.0) -> dict[str, dict[str, Any]]:
    """A service with these chassis, each with its input power."""
    sessions = {"Sessions": link("SessionService/Sessions")}
    tree = [
        resource("", "ServiceRoot", Chassis=link("Chassis"), Links=sessions),
        members("Chassis", "ChassisCollection", *chassis),
    ]
    for name in chassis:
        path = f"Chassis/{name}"
        metrics = link(f"{path}/EnvironmentMetrics")
        tree.append(
            resource(path, "Chassis", ChassisType="RackMount", EnvironmentMetrics=metrics)
            | {"SerialNumber": f"SN-{name}", "AssetTag": "shelf 7"}
        )
        excerpt = {"Reading": power_w}
        tree.append(
            resource(f"{path}/EnvironmentMetrics", "EnvironmentMetrics", PowerWatts=excerpt)
        )
    return {one["@odata.id"]: one for one in tree}


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 1000 * NS

    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000 + self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns

    def pass_s(self, span_s: float) -> None:
        self.now_ns += round(span_s * NS)


class Tree:
    """Resources that a test changes; `pages` go out as they are, each look takes `takes_s`."""

    def __init__(self, clock: Clock) -> None:
        self.resources: dict[str, dict[str, Any]] = documents("1")
        self.pages: dict[str, Page] = {}
        self.takes_s = 0.0
        self._clock = clock

    def get(self, path: str) -> Mapping[str, Any] | None:
        return self.resources.get(path)

    def patch(self, path: str, change: Mapping[str, Any]) -> None:
        return None

    def captured(self, path: str) -> Page | None:
        # Asked once for each answer that carries a resource.
        if path in self.resources:
            self._clock.pass_s(self.takes_s)
        return self.pages.get(path)


class Bmc:
    """The service, and the drivers that look at it."""

    def __init__(self, folder: Path, *, tree: Any = None, **more: Any) -> None:
        self.clock = Clock()
        self.tree = Tree(self.clock)
        self.faults: frozenset[str] = frozenset()
        # Faults of single requests to come; then `faults` hold.
        self.next_faults: deque[frozenset[str]] = deque()
        self.roots = Roots(state=folder)
        self.url = ""
        # A request came in.
        self.heard = asyncio.Event()
        self._slow_s = float(more.get("slow_s", 0.0))
        self.secret = folder / "password"
        self.secret.write_text(f"{PASSWORD}\n")
        told = {"user": USER, "password": PASSWORD} | more
        self.service = RedfishService(tree or self.tree, faults=self._faults, **told)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Bmc"]:
        async with self.service.serve() as address:
            self.url = self.url or f"http://127.0.0.1:{address.port}"
            yield self
        # The server ends what it began, even if nobody waits for the answer any more.
        await asyncio.sleep(self._slow_s)

    @asynccontextmanager
    async def sensor(self, **more: Any) -> AsyncIterator[RedfishSensor]:
        """A driver of this BMC, as the agent opens one; `roots` may be others."""
        roots = more.pop("roots", self.roots)
        block = {"id": "bmc", "kind": "redfish", "url": self.url, "loop": "rack"}
        login = {"user": USER, "password_file": str(self.secret)}
        config = settings.convert(block | login | more, redfish.Config)
        async with redfish.open(config, roots, self.clock) as sensor:
            assert isinstance(sensor, RedfishSensor)
            yield sensor

    def asked(self, method: str, path: str = "") -> list[str]:
        """The requests of a method so far whose path begins so, each with its status."""
        return [line for line in self.service.asked if line.startswith(f"{method} {path}")]

    def kept(self) -> list[Path]:
        """Session files of the agent."""
        assert self.roots.state is not None
        return sorted(self.roots.state.glob("redfish-*"))

    def _faults(self) -> frozenset[str]:
        self.heard.set()
        return self.next_faults.popleft() if self.next_faults else self.faults


def powers(readings: Any) -> list[float]:
    """The watts among readings."""
    found: list[Reading] = list(readings)
    return [reading.value for reading in found if reading.quantity == "power_w"]
