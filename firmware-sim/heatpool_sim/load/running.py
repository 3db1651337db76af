"""A run as this process: its descriptors, its signals, its report."""

import asyncio
import gc
import resource
import signal
from collections.abc import Mapping
from typing import Any

from heatpool.errors import HeatpoolError
from heatpool_sim.load.asked import Asked
from heatpool_sim.load.fleet import Fleet

_SPARE_DESCRIPTORS = 100


def run(asked: Asked) -> Mapping[str, Any]:
    """The report of a run in an event loop of its own.

    Raises:
        HeatpoolError: this process may not open as many connections.
    """
    connections = -(-asked.agents // asked.doors.streams_per_connection)
    allow_descriptors(connections + _SPARE_DESCRIPTORS)
    gc.set_threshold(50_000, 20, 1_000)
    return asyncio.run(_run(asked))


def allow_descriptors(wanted: int) -> None:
    """Lets this process open so many descriptors.

    Raises:
        HeatpoolError: it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted <= soft:
        return
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise HeatpoolError(
            f"this process may open {hard} descriptors and needs {wanted}: raise `ulimit -Hn`, "
            "or share connections by --streams-per-connection"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(asked: Asked) -> Mapping[str, Any]:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if asked.doors.newcomers is not None:
        from heatpool_sim.load import joining  # noqa: PLC0415  # most loads make no keys

        await joining.enrol(asked)
    fleet = Fleet(asked)
    # What is here now stays; looking through it again and again would cost more than the rest.
    gc.freeze()
    return await fleet.run(stop)
