"""A process to be killed: appends commits to a log and says each position once it is durable."""

import asyncio
import sys
from pathlib import Path

from heatpool.sample import BootId, SiteId
from heatpool_aggregator.logs import open_log
from heatpool_aggregator.ports import Frame, FrameKind

FRAMES_COUNT = 5


async def write(directory: Path) -> None:
    """Appends until somebody puts an end to it."""
    async with open_log("sqlite:", directory) as log:
        seq = 0
        while True:
            frames = [
                Frame(
                    site_id=SiteId("site-a"),
                    boot_id=BootId("boot-1"),
                    kind=FrameKind.TELEMETRY,
                    seq=seq + place,
                    received_ns=1,
                    payload=bytes(200),
                )
                for place in range(FRAMES_COUNT)
            ]
            seq += FRAMES_COUNT
            position = await log.append(frames)
            sys.stdout.write(f"{position}\n")
            sys.stdout.flush()


asyncio.run(write(Path(sys.argv[1])))
