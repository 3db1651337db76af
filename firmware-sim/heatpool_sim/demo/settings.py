"""Settings that the demo writes for the programs it starts, as TOML."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatpool_sim.scenario import SiteSpec, VirtualSource

MACHINE = "this-machine"
STEERED = "s01"
REPORT_PERIOD_S = 2
SETTLEMENT_PERIOD_S = 10
GRACE_S = 6
LEASE_S = 15
# A demo that is looked at for minutes does not keep to itself for two of them.
HOLD_S = 2
STEERED_FRAC = (
    0.25  # of the nameplate: below what the site has by night, so the valve must throttle
)
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Where a simulated site's devices answer."""

    cdu_url: str
    meter_url: str


def aggregator(
    sites: Sequence[SiteSpec],
    sources: Sequence[VirtualSource],
    *,
    ports: Mapping[str, int],
    state_dir: Path,
) -> str:
    """Settings of the aggregator: three virtual sources, this machine with the last of them."""
    members = {
        source.id: [s.site_id for s in sites if s.virtual_source_id == source.id]
        for source in sources
    }
    members[_machines_source(sources)].append(MACHINE)
    steered = [site for site in sites if site.site_id == STEERED]
    return document(
        {
            "listen": {"grpc": f"{_HOST}:{ports['grpc']}", "http": f"{_HOST}:{ports['http']}"},
            "state": {"dir": str(state_dir)},
            "live": {"message_period_s": REPORT_PERIOD_S},
            "settlement": {"period_s": SETTLEMENT_PERIOD_S, "grace_s": GRACE_S},
            "virtual_source": [_source(source, members[source.id]) for source in sources],
            "setpoint": [
                {
                    "site_id": site.site_id,
                    "heat_rate_w": round(STEERED_FRAC * site.plant.exchanger.capacity_w, -2),
                    "lease_s": LEASE_S,
                    "reason": "demo",
                }
                for site in steered
            ],
        }
    )


def simulated_site(site: SiteSpec, devices: Devices, *, grpc_port: int, state_dir: Path) -> str:
    """Settings of the agent at a simulated site; only the steered one may write."""
    loop = "rack"
    cdu = {"url": devices.cdu_url, "unit_id": 1, "map": "generic-cdu", "loop": loop}
    tree = _agent(site.site_id, grpc_port=grpc_port, state_dir=state_dir)
    tree["loop"] = [
        {
            "id": loop,
            "fluid": "water",
            "cooling": site.cooling,
            "sensor_side": "cold",
            "rejection_capacity_w": round(site.plant.exchanger.rejection_capacity_w, -2),
            "max_heat_rate_w": round(site.plant.exchanger.capacity_w, -2),
        }
    ]
    tree["sensor"] = [
        {"id": "cdu", "kind": "modbus", **cdu},
        {
            "id": "meter",
            "kind": "mbus",
            "url": devices.meter_url,
            "address": site.meter_address,
            "loop": loop,
            "role": "billing",
            "period_s": REPORT_PERIOD_S,
        },
    ]
    if site.site_id == STEERED:
        tree["actuator"] = [{"id": "valve", "kind": "modbus", **cdu, "armed": True}]
        tree["orders"] = {"hold_s": HOLD_S}
    return document(tree)


def machine(*, grpc_port: int, state_dir: Path) -> str:
    """Settings of the agent on this machine: no sensor is named, it finds what there is."""
    return document(_agent(MACHINE, grpc_port=grpc_port, state_dir=state_dir))


def document(tree: Mapping[str, Any]) -> str:
    """A tree of tables as TOML."""
    plain = {k: v for k, v in tree.items() if not _is_table(v)}
    blocks = [_lines(plain)] if plain else []
    for key, node in tree.items():
        if isinstance(node, Mapping):
            blocks.append(f"[{key}]\n{_lines(node)}")
        elif _is_table(node):
            blocks += [f"[[{key}]]\n{_lines(item)}" for item in node]
    return "\n".join(blocks)


def _agent(site_id: str, *, grpc_port: int, state_dir: Path) -> dict[str, Any]:
    return {
        "site": {"id": site_id, "state_dir": str(state_dir)},
        "sampling": {
            "period_s": 1,
            "report_period_s": REPORT_PERIOD_S,
            "message_period_s": REPORT_PERIOD_S,
        },
        "aggregator": {"url": f"http://{_HOST}:{grpc_port}"},
        "http": {"listen": f"{_HOST}:0", "announce": False},
    }


def _machines_source(sources: Sequence[VirtualSource]) -> str:
    loops = [source.id for source in sources if source.kind == "district_loop"]
    return (loops or [source.id for source in sources])[-1]


def _source(source: VirtualSource, members: Sequence[str]) -> dict[str, Any]:
    return {
        "id": source.id,
        "kind": source.kind,
        "agreement": {
            "id": f"hpa-{source.id}",
            "price_eur_mwh": str(source.price_eur_mwh),
            "round_eur": "0.000001",  # ten seconds of an edge site are worth a part of a cent
        },
        "member": [{"site_id": site_id} for site_id in members],
    }


def _is_table(node: Any) -> bool:
    return isinstance(node, Mapping) or (
        isinstance(node, list) and bool(node) and isinstance(node[0], Mapping)
    )


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(node)}\n" for key, node in table.items())


def _value(node: Any) -> str:
    if isinstance(node, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in node.items()) + " }"
    if isinstance(node, list):
        return "[" + ", ".join(_value(item) for item in node) + "]"
    return json.dumps(node)  # text, numbers and true/false read the same in TOML
