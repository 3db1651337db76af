"""Which requests read a device, and how they shrink around what it turns out not to have."""

from dataclasses import dataclass, replace

from heatpool_agent.core.decode import quantity_of
from heatpool_agent.core.device_map import Block, DeviceMap, holds, pieces, requests


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """The requests of one pass, in order."""

    device: DeviceMap
    blocks: tuple[Block, ...]

    def cut(self, block: Block) -> tuple["ReadPlan", tuple[Block, ...]]:
        """The plan without a block that the device refused, and what to ask in its place."""
        parts = pieces(block, self.device)
        at = self.blocks.index(block)
        return replace(self, blocks=(*self.blocks[:at], *parts, *self.blocks[at + 1 :])), parts

    def missing(self) -> tuple[str, ...]:
        """Quantities of the map that no request reads any more."""
        return tuple(
            quantity_of(point)
            for point in self.device.point
            if not any(holds(block, point, self.device) for block in self.blocks)
        )


def read_plan(device: DeviceMap) -> ReadPlan:
    """The plan that reads all of a map."""
    return ReadPlan(device=device, blocks=requests(device))
