"""Settings of an agent that reads all the devices of one simulated site, as TOML."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatpool_sim.demo.settings import document
from heatpool_sim.scenario import SiteSpec

LOOP = "rack"
_MQTT_BASE = "site/cdu"  # where the unit publishes, by its manual
# No hwmon: the machine has temperatures there and no power, and a sensor that is named must speak.
_LOCAL = ("rapl", "nvml", "host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Where the site's devices answer, and how an agent is let in.

    `roots` are the folders of a simulated machine, empty where the site has none.
    """

    spec: SiteSpec
    urls: Mapping[str, str]
    roots: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    password_file: Path = Path()


def agent(told: Told, *, state_dir: Path) -> str:
    """The settings; the agent sends nowhere, and serves its page on a free port of loopback."""
    spec = told.spec
    loop = {
        "id": LOOP,
        "fluid": "water",
        "cooling": spec.cooling,
        "sensor_side": "cold",
        "rejection_capacity_w": round(spec.plant.exchanger.rejection_capacity_w, -2),
        "max_heat_rate_w": round(spec.plant.exchanger.capacity_w, -2),
    }
    local = [{"id": kind, "kind": kind} for kind in _LOCAL] if told.roots else []
    return document(
        {
            "site": {"id": spec.site_id, "state_dir": str(state_dir)},
            "sampling": {"period_s": 1, "report_period_s": 2, "message_period_s": 2},
            "http": {"listen": "127.0.0.1:0", "announce": False},
            **({"roots": dict(told.roots)} if told.roots else {}),
            "loop": [loop],
            "sensor": [*_remote(told), *local],
        }
    )


def _remote(told: Told) -> list[dict[str, Any]]:
    return [_BLOCKS.get(name, _model(name))(told, url) for name, url in told.urls.items()]


def _model(name: str) -> Callable[[Told, str], dict[str, Any]]:
    """A device of the Modbus shelf: the agent's map has the same name."""
    return lambda told, url: {
        "id": name,
        "kind": "modbus",
        "url": url,
        "unit_id": 1,
        "map": name,
        "loop": LOOP,
    }


def _modbus(told: Told, url: str) -> dict[str, Any]:
    return {
        "id": "cdu-modbus",
        "kind": "modbus",
        "url": url,
        "unit_id": 1,
        "map": "generic-cdu",
        "loop": LOOP,
    }


def _mbus(told: Told, url: str) -> dict[str, Any]:
    return {
        "id": "meter",
        "kind": "mbus",
        "url": url,
        "address": told.spec.meter_address,
        "loop": LOOP,
        "role": "billing",
        "period_s": 2,
    }


def _redfish(name: str) -> Callable[[Told, str], dict[str, Any]]:
    def block(told: Told, url: str) -> dict[str, Any]:
        login = {"user": told.user, "password_file": str(told.password_file)}
        return {
            "id": name,
            "kind": "redfish",
            "url": url,
            **login,
            "loop": LOOP,
            "period_s": 10,
        }

    return block


def _ipmi(told: Told, url: str) -> dict[str, Any]:
    login = {"user": told.user, "password_file": str(told.password_file), "cipher": 3}
    return {"id": "bmc-ipmi", "kind": "ipmi", "url": url, **login, "period_s": 10}


def _mqtt(told: Told, url: str) -> dict[str, Any]:
    """The points of the unit's manual; return is the hot pipe of a cooling loop."""
    figure = {"topic": f"{_MQTT_BASE}/telemetry", "time": "time"}
    pipe = {**figure, "quantity": "temperature", "unit": "degC"}
    return {
        "id": "cdu-mqtt",
        "kind": "mqtt",
        "url": url,
        "loop": LOOP,
        "availability_topic": f"{_MQTT_BASE}/state",
        "point": [
            {**pipe, "path": "loops[0].return_c", "pipe": "hot"},
            {**pipe, "path": "loops[0].supply_c", "pipe": "cold"},
            {**figure, "path": "loops[0].flow_l_min", "quantity": "volume_flow", "unit": "L/min"},
            {
                **figure,
                "path": "unit.heat_kw",
                "quantity": "reported_heat",
                "unit": "kW",
                "text": True,
            },
            {**figure, "path": "unit.leak", "quantity": "leak", "kind": "state"},
        ],
    }


_BLOCKS: dict[str, Callable[[Told, str], dict[str, Any]]] = {
    "modbus_cdu": _modbus,
    "mbus_meter": _mbus,
    "redfish_cdu": _redfish("cdu-redfish"),
    "redfish_bmc": _redfish("bmc"),
    "ipmi_bmc": _ipmi,
    "mqtt_cdu": _mqtt,
}
