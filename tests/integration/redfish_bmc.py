"""A small tree behind the simulator's Redfish service, and a client that asks it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from heatpool_sim.devices.redfish_service import RedfishService
from heatpool_sim.devices.redfish_tree import ChangeRefused, normal

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
CONTROL = f"{ROOT}/Chassis/1/Controls/Limit"
METRICS = f"{ROOT}/Chassis/1/PowerSubsystem/PowerSupplies/A/Metrics"

RESOURCES: Mapping[str, Mapping[str, Any]] = {
    ROOT: {
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "Name": "Root",
        "Chassis": {"@odata.id": f"{ROOT}/Chassis"},
        "Links": {"Sessions": {"@odata.id": SESSIONS}},
    },
    f"{ROOT}/Chassis": {
        "@odata.id": f"{ROOT}/Chassis",
        "@odata.type": "#ChassisCollection.ChassisCollection",
        "Members": [{"@odata.id": f"{ROOT}/Chassis/{n}"} for n in (1, 2, 3)],
        "Members@odata.count": 3,
    },
    **{
        f"{ROOT}/Chassis/{n}": {
            "@odata.id": f"{ROOT}/Chassis/{n}",
            "@odata.type": "#Chassis.v1_21_0.Chassis",
            "Id": str(n),
            "Controls": {"@odata.id": f"{ROOT}/Chassis/1/Controls"},
            "Power": {"@odata.id": f"{ROOT}/Chassis/1/Power"},
            "DateTime": "2026-03-01T12:00:00Z",
            "Links": {"Contains": [{"@odata.id": CONTROL}]},
        }
        for n in (1, 2, 3)
    },
    f"{ROOT}/Chassis/1/Controls": {
        "@odata.id": f"{ROOT}/Chassis/1/Controls",
        "@odata.type": "#ControlCollection.ControlCollection",
        "Members": [{"@odata.id": CONTROL}],
        "Members@odata.count": 1,
    },
    CONTROL: {
        "@odata.id": CONTROL,
        "@odata.type": "#Control.v1_3_0.Control",
        "SetPoint": 100,
    },
    f"{ROOT}/Chassis/1/Power": {
        "@odata.id": f"{ROOT}/Chassis/1/Power",
        "PowerSupplies": [{"PowerCapacityWatts": 750, "PowerInputWatts": 210}, {}],
    },
    f"{ROOT}/Chassis/1/PowerSubsystem/PowerSupplies/A": {
        "@odata.id": f"{ROOT}/Chassis/1/PowerSubsystem/PowerSupplies/A",
        "PowerCapacityWatts": 750,
        "Metrics": {"@odata.id": METRICS},
    },
    METRICS: {"@odata.id": METRICS, "InputPowerWatts": {"Reading": 210, "DataSourceUri": "/x"}},
}


class SmallTree:
    """A BMC's resources in memory; one of them takes a set point from 0 to 500."""

    def __init__(self) -> None:
        self.resources = deepcopy(dict(RESOURCES))

    def get(self, path: str) -> Mapping[str, Any] | None:
        return self.resources.get(normal(path))

    def patch(self, path: str, change: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if normal(path) != CONTROL:
            return None
        for name, value in change.items():
            if name != "SetPoint":
                raise ChangeRefused("PropertyUnknown", name, where=name)
            if not 0 <= value <= 500:
                raise ChangeRefused("PropertyValueOutOfRange", str(value), name, where=name)
        self.resources[CONTROL] = {**self.resources[CONTROL], **change}
        return self.resources[CONTROL]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    tree: Any

    @property
    def members(self) -> list[str]:
        """Paths of a collection's members."""
        return [member["@odata.id"] for member in self.tree["Members"]]

    @property
    def message(self) -> str:
        """The key of the first message of an error."""
        told = self.tree["error"]["@Message.ExtendedInfo"][0]["MessageId"]
        return str(told).rpartition(".")[2]


class Client:
    """Asks one service by a plain HTTP client."""

    def __init__(self, web: aiohttp.ClientSession, service: RedfishService, base: str) -> None:
        self._web = web
        self.service = service
        self.base = base
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """The answer to one request with this client's headers."""
        headers = self.headers | more.pop("headers", {})
        url = URL(self.base + path, encoded=True)
        async with self._web.request(method, url, headers=headers, **more) as answer:
            body = await answer.read()
            tree = _tree(body)
            return Answer(status=answer.status, headers=answer.headers, body=body, tree=tree)

    async def get(self, path: str, **more: Any) -> Answer:
        """The answer to GET."""
        return await self.ask("GET", path, **more)

    async def log_in(self, user: str = "admin", password: str = "right") -> Answer:
        """The answer to a login; this client uses its token from then on."""
        wish = {"UserName": user, "Password": password}
        answer = await self.ask("POST", SESSIONS, json=wish)
        if "X-Auth-Token" in answer.headers:
            self.headers["X-Auth-Token"] = answer.headers["X-Auth-Token"]
        return answer


def _tree(body: bytes) -> Any:
    """What the body says as JSON; None when it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


@asynccontextmanager
async def bmc(tree: Any = None, **settings: Any) -> AsyncIterator[Client]:
    """A served tree and a client before it."""
    service = RedfishService(SmallTree() if tree is None else tree, **settings)
    async with service.serve() as address, aiohttp.ClientSession() as web:
        yield Client(web, service, f"http://{address.host}:{address.port}")
