"""Memory of the sampling loop over simulated days: flat within 2 MB over 72 h (agent.md 15).

    .venv/bin/python bench/agent_soak.py [--hours 72]

The real loop, admission, tree, ledger and spool on disk, at 1 Hz on a clock that is set forward;
the readings are those of two packages, four cards, a coolant unit and a heat meter, and change
with every tick. Sockets and drivers are not in it: agent_footprint.py has those.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heatpool.sample import SiteId
from heatpool_agent.assembly import loop_settings, open_spool
from heatpool_agent.board import Board
from heatpool_agent.config import Config, Loop, Sampling, Site
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.loops.supervise import Driven

SPREAD_MB = 2.0
RAPL_RANGE_UJ = 262_143_328_850
_NS = 1_000_000_000


class Clock:
    """Time that the soak sets."""

    def __init__(self) -> None:
        self.at_s = 1_800_000_000

    def event_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.at_s * _NS

    def boot_ns(self) -> int:
        """Nanoseconds since the simulated boot."""
        return (self.at_s - 1_799_999_000) * _NS


class Never:
    """A sensor that nobody asks: its readings are made here."""

    async def probe(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    async def read(self) -> tuple[Reading, ...]:
        """Nothing."""
        return ()

    async def close(self) -> None:
        """Nothing."""


def _reading(sensor: str, quantity: str, value: float, clock: Clock, **more: Any) -> Reading:
    given: dict[str, Any] = {"channel": quantity, "kind": ReadingKind.GAUGE, "loop": "rack"} | more
    return Reading(
        sensor=sensor,
        quantity=quantity,
        value=value,
        event_ns=clock.event_ns(),
        boot_ns=clock.boot_ns(),
        **given,
    )


def passes(clock: Clock) -> Iterator[tuple[str, list[Reading]]]:
    """One pass of every sensor at this moment."""
    at_s = clock.at_s - 1_800_000_000
    wave = (at_s * 7 % 100) / 100
    yield "rapl", [_package(clock, index, at_s) for index in (0, 1)]
    yield "nvml", [_card(clock, index, 250 + 10 * wave + index) for index in range(4)]
    figures = {"volume_flow_m3_h": 1.2, "hot_c": 41.0, "cold_c": 40.0, "reported_heat_w": 1400.0}
    yield (
        "cdu",
        [
            _reading("cdu", name, value * (1 + 0.01 * wave), clock, node=Node.CDU)
            for name, value in figures.items()
        ],
    )
    yield "meter", [_register(clock, at_s // 3)]


def _package(clock: Clock, index: int, at_s: int) -> Reading:
    raw = int(at_s * (90 + index) * 1e6) % RAPL_RANGE_UJ
    return _reading(
        "rapl",
        "energy_j",
        raw / 1e6,
        clock,
        channel=f"powercap/intel-rapl:{index}",
        kind=ReadingKind.COUNTER,
        node=Node.PACKAGE,
        raw=raw,
        exponent=-6,
        modulus=RAPL_RANGE_UJ,
        generation="boot",
    )


def _card(clock: Clock, index: int, power_w: float) -> Reading:
    return _reading("nvml", "power_w", power_w, clock, channel=f"nvml/{index}", node=Node.GPU)


def _register(clock: Clock, raw: int) -> Reading:
    return _reading(
        "meter",
        "energy_wh",
        raw,
        clock,
        kind=ReadingKind.COUNTER,
        node=Node.HEAT_METER,
        raw=raw,
        modulus=10**8,
        meter_id="HPL.1.1.4",
        generation="HPL.1.1.4",
    )


def size_of(folder: Path) -> float:
    """Bytes of all files in a folder, MB."""
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def rss_mb() -> float:
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


async def soaked(hours: float) -> dict[str, Any]:
    """RSS once an hour after the first, MB, and what it all cost."""
    clock, seen = Clock(), []
    config = Config(
        site=Site(id="soak"), sampling=Sampling(), loop=(Loop(id="rack", sensor_side="cold"),)
    )
    with tempfile.TemporaryDirectory() as name:
        spool = await asyncio.to_thread(open_spool, config, Path(name), clock)
        board = Board(site_id=SiteId("soak"))
        spooling = Spooling(spool, board)
        sense = Sense(
            loop_settings(config),
            board,
            clock,
            spooling=spooling,
            period_s=1.0,
            report_period_s=10.0,
        )
        began_s = time.process_time()
        for tick in range(1, round(hours * 3600) + 1):
            clock.at_s += 1
            await _tick(sense, board, clock, spooling)
            if tick % 3600 == 0:
                gc.collect()
                seen.append(rss_mb())
                if tick % 21_600 == 0:
                    sys.stderr.write(f"{tick // 3600} h: {seen[-1]:.1f} MB\n")
        size_mb = size_of(Path(name))
        cpu_s = time.process_time() - began_s
        await spooling.close()
    return {
        "hours": hours,
        "rss_first_mb": seen[0],
        "rss_last_mb": seen[-1],
        "rss_spread_mb": max(seen) - min(seen),
        "cpu_ms_per_tick": 1e3 * cpu_s / (hours * 3600),
        "spool_mb": size_mb,
        "is_flat": max(seen) - min(seen) <= SPREAD_MB,
    }


async def _tick(sense: Sense, board: Board, clock: Clock, spooling: Spooling) -> None:
    for sensor, readings in passes(clock):
        is_meter = sensor == "meter"
        if is_meter and clock.at_s % 60:
            continue
        driven = Driven(
            id=sensor,
            kind=sensor,
            sensor=Never(),
            period_s=60.0 if is_meter else 1.0,
            timeout_s=5.0,
            is_billing=is_meter,
        )
        board.latest[sensor] = tuple(readings)
        await sense.take(driven, readings)
    await sense.step(clock.event_ns())


def main() -> int:
    """Prints the figures as JSON; 1 if memory is not flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=72.0)
    found = asyncio.run(soaked(parser.parse_args().hours))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0 if found["is_flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
