"""The other side's word afterwards: its counts and registers against what was sent.

Counts are since the aggregator's start and energies since a site's, so both are read before a run
too; a restart in between makes counts worthless, and that is said by `None`.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import grpc.aio

from heatpool.errors import HeatpoolError
from heatpool_sim.load import report
from heatpool_sim.load.agent import Agent
from heatpool_sim.load.asked import Asked
from heatpool_sim.load.lines import read
from heatpool_sim.load.tally import Tally
from heatpool_sim.wire import asking

APPLIED_S = 60.0  # what is durable is shown a little later
LOOK_S = 0.2
ASK_S = 20.0
SHOWN_COUNT = 20

Counts = Mapping[str, int]


class Run(Protocol):
    """What a witness compares with."""

    asked: Asked
    tally: Tally
    agents: list[Agent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the aggregator has of earlier runs: its counts, and the energy of each site, Wh."""

    counts: Counts | None
    energies_wh: Mapping[str, int]


async def before(asked: Asked) -> Before | None:
    """The aggregator's word before the run; None: it is not asked."""
    if not asked.is_verified:
        return None
    return Before(counts=await _counts(asked), energies_wh=await _asked_energies(asked))


async def after(run: Run, first: Before) -> dict[str, Any]:
    """What the aggregator has of the run, and whether that is what it should have."""
    began_s = time.monotonic()
    ends_s = began_s + max(APPLIED_S, run.asked.drain_s)
    while True:
        tree = await _compared(run, first)
        if tree["is_right"] or time.monotonic() > ends_s:
            return tree | {"waited_s": round(time.monotonic() - began_s, 3)}
        await asyncio.sleep(LOOK_S)


async def _compared(run: Run, first: Before) -> dict[str, Any]:
    expected, now = _energies(run.agents), await _asked_energies(run.asked)
    found = {site: energy_wh - first.energies_wh.get(site, 0) for site, energy_wh in now.items()}
    wrong = [site for site, energy_wh in expected.items() if found.get(site) != energy_wh]
    due, counts = _expected(run), _difference(first.counts, await _counts(run.asked))
    is_counted = counts is None or all(counts[name] == count for name, count in due.items())
    return {
        "is_right": not wrong and is_counted,
        "energy_wh": sum(found.get(site, 0) for site in expected),
        "energy_expected_wh": sum(expected.values()),
        "sites_compared": len(expected),
        "sites_wrong": wrong[:SHOWN_COUNT],
        "counts": counts,
        "counts_expected": due,
    }


def _expected(run: Run) -> dict[str, int]:
    """Frames that the log must hold once each, and those that it must refuse."""
    durable = report.durable(run.agents)
    frames = durable["batches"] + durable["register_batches"] + durable["garbage"]
    # Rows of a clock that is far off are held, and then taken in corrected.
    return {"batches_durable": frames, "refused": durable["garbage"]}


def _energies(agents: list[Agent]) -> dict[str, int]:
    """Energy by the registers that are durable, of sites whose clock is right, Wh."""
    found = {}
    for agent in agents:
        queue = agent.site.billing
        arrived = queue.arrived()
        if agent.site.offset_ns or not arrived:
            continue
        first = queue.course.rows(1, arrived[0][0] - 1)
        last = queue.course.rows(1, arrived[-1][1]) - 1
        voice = agent.site.voice
        found[agent.site.site_id] = voice.register_wh(last) - voice.register_wh(first)
    return found


def _difference(first: Counts | None, last: Counts | None) -> dict[str, int] | None:
    if first is None or last is None or any(last[name] < count for name, count in first.items()):
        return None
    return {name: last[name] - count for name, count in first.items()}


async def _asked_energies(asked: Asked) -> dict[str, int]:
    channel = _channel(asked)
    try:
        ask: Any = channel.unary_unary(asking.SITES_METHOD)
        data: bytes = await ask(asking.sites_request(), timeout=ASK_S)
    except grpc.aio.AioRpcError as error:
        raise HeatpoolError(
            f"the witness was not answered: {error.code().name} {error.details()}"
        ) from error
    finally:
        await channel.close()
    return asking.energies_wh(data)


def _channel(asked: Asked) -> grpc.aio.Channel:
    doors = asked.doors
    options = (("grpc.max_receive_message_length", -1),)
    if doors.ca is None and doors.folder is None:
        return grpc.aio.insecure_channel(doors.grpc, options=options)
    if doors.operator is None:
        raise HeatpoolError("--verify with TLS needs --operator FILE: key, certificate and CA")
    root = read(doors.ca or (doors.folder or Path()) / "ca.pem")
    both = read(doors.operator)
    credentials = grpc.ssl_channel_credentials(root, both, both)
    return grpc.aio.secure_channel(doors.grpc, credentials, options=options)


async def _counts(asked: Asked) -> Counts | None:
    """What the aggregator counts; None where its web door was not named."""
    if asked.doors.http is None:
        return None
    timeout = aiohttp.ClientTimeout(total=ASK_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{asked.doors.http}/v1/status") as answer,
        ):
            found: dict[str, int] = (await answer.json())["ingest"]
    except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as error:
        raise HeatpoolError(f"{asked.doors.http} does not tell its counts: {error}") from error
    return {name: found[name] for name in ("batches_durable", "duplicates_ignored", "refused")}
