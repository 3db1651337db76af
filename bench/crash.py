"""kill -9 of an aggregator and its agents at a thousand random moments, and the accounts after it.

    python bench/crash.py --kills 1000 --sites 6 --seed 1

Real programs, real sockets, simulated sites. Ends with status 1 if anything that was acked is lost,
counted twice, or if a live sum ran apart from the registers.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e.rig import rig
from e2e.storm import Storm, account, calm

TELL_S = 10.0


async def run(kills: int, sites: int, seed: int) -> dict[str, Any]:
    """What the kills left: how many of each, and every mistake in the accounts."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        async with rig(place, sites=sites, seed=seed) as running:
            storm = Storm(running, kills=kills, seed=seed)
            async with asyncio.TaskGroup() as tasks:
                teller = tasks.create_task(_tell(storm, kills))
                await storm.rage()
                teller.cancel()
            energies_wh = await calm(running)
        mistakes, registers = [], 0
        for site_id, energy_wh in energies_wh.items():
            found = await asyncio.to_thread(account, place, site_id)
            registers += len(found.stored)
            mistakes += found.mistakes()
            if energy_wh != found.moved_wh:
                mistakes.append(f"{site_id}: live {energy_wh} Wh, registers {found.moved_wh} Wh")
    return {
        "kills": dict(storm.counts),
        "kills_count": storm.count,
        "registers_count": registers,
        "mistakes": mistakes,
        "took_s": round(time.monotonic() - began, 1),
    }


async def _tell(storm: Storm, kills: int) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        print(f"{storm.count} of {kills} kills", file=sys.stderr)  # noqa: T201  # progress


def main() -> None:
    """Runs it and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    told = asyncio.run(run(asked.kills, asked.sites, asked.seed))
    print(json.dumps(told, indent=2))  # noqa: T201  # the answer
    sys.exit(1 if told["mistakes"] else 0)


if __name__ == "__main__":
    main()
