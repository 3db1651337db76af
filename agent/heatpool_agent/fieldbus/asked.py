"""All words of a map from a device once, for commands that look and leave."""

import asyncio
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from heatpool.errors import SensorBusy, SensorGone
from heatpool_agent.core.device_map import Block, DeviceMap, requests
from heatpool_agent.fieldbus import line


@dataclass(slots=True)
class Asked:
    """Words by block, and how many requests were answered at all, refusals among them."""

    answers: dict[Block, Sequence[int]] = field(default_factory=dict)
    replies_count: int = 0

    @property
    def words_count(self) -> int:
        """How many words came."""
        return sum(map(len, self.answers.values()))


async def asked(device: DeviceMap, held: line.Hold, *, unit_id: int, most_s: float) -> Asked:
    """What the device gives for the blocks of a map; it ends where the device stops answering."""
    found = Asked()
    until_s = asyncio.get_running_loop().time() + most_s
    with suppress(SensorGone, SensorBusy, TimeoutError):
        for block in requests(device):
            data = await held.line.read(block, unit_id=unit_id, until_s=until_s)
            found.replies_count += 1
            if len(data) == 2 * block.count:
                found.answers[block] = struct.unpack(f">{block.count}H", data)
            await asyncio.sleep(device.pause_ms / 1000)
    return found
