"""The controller of a server that speaks Redfish: power by its parts, energies, temperatures.

The server stands for all computers of its site; inlet and outlet are those of its air.
"""

from typing import Any

from heatpool_sim.devices import redfish_words as words
from heatpool_sim.devices.redfish_device import PlantTree, RedfishDevice
from heatpool_sim.devices.redfish_template import Template
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.plant.server_gauges import ServerGauges
from heatpool_sim.ports import Twin

MODEL = "Simulated server"


class RedfishBmc(RedfishDevice):
    """One controller behind its own port; without a user everybody may read."""

    def tree(self, plant: Twin, *, site_id: str, user: str) -> PlantTree:
        """Its resources."""
        return BmcTree(plant, site_id=site_id, user=user)


class BmcTree(PlantTree):
    """The server's resources as its plant is now."""

    def __init__(self, plant: Twin, *, site_id: str = "site", user: str = "") -> None:
        template = Template("service", "bmc", sensors="bmc_sensors", context="Chassis")
        super().__init__(plant, template, words.identity("bmc", site_id=site_id, user=user))

    def figures(self) -> dict[str, Any]:
        """All figures as they are now."""
        return self._identity | figures(self._plant.gauges())


def figures(gauges: Gauges) -> dict[str, Any]:
    """What the controller shows, by the names that its data files have for it."""
    server = gauges.server
    leak = "Critical" if gauges.has_leak else "OK"
    return {
        "product": MODEL,
        "model": MODEL,
        "now": words.clock(gauges.at_ns),
        "chassis_status": words.state(leak),
        "leak_status": words.state(leak),
        "leak_state": leak,
        "total_energy": words.rounded(server.electric_wh / 1000.0, 3),
        "line_v": words.rounded(server.line_v, 1),
        "cold_air_c": words.celsius(server.cold_air_c),
        "hot_air_c": words.celsius(server.hot_air_c),
        "fan_speed": words.share(server.fan_frac),
        **_powers(server),
        **{f"cpu{n}_c": words.celsius(c) for n, c in enumerate(server.cpu_c, 1)},
        **{f"gpu{n}_c": words.celsius(c) for n, c in enumerate(server.gpu_c, 1)},
    }


def _powers(server: ServerGauges) -> dict[str, float]:
    shown = server.shown
    ins, outs, energies = shown.input_w, shown.output_w, server.input_wh
    return {
        "total_power": words.rounded(shown.electric_w, 1),
        "capacity": words.rounded(len(ins) * server.rated_w, 0),
        "supply_capacity": words.rounded(server.rated_w, 0),
        "memory_power": words.rounded(shown.memory_w, 1),
        "board_power": words.rounded(shown.board_w, 1),
        "fan_power": words.rounded(shown.fan_w, 1),
        **{f"supply{n}_in": words.rounded(part_w, 1) for n, part_w in enumerate(ins, 1)},
        **{f"supply{n}_out": words.rounded(part_w, 1) for n, part_w in enumerate(outs, 1)},
        **{f"supply{n}_energy": words.rounded(wh / 1e3, 3) for n, wh in enumerate(energies, 1)},
        **{f"cpu{n}_power": words.rounded(part_w, 1) for n, part_w in enumerate(shown.cpu_w, 1)},
        **{f"gpu{n}_power": words.rounded(part_w, 1) for n, part_w in enumerate(shown.gpu_w, 1)},
    }
