"""Runs every family side by side, each with its own time limit, within ten seconds in all."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from heatpool.errors import HeatpoolError
from heatpool.sample import SiteId
from heatpool_agent.assembly import open_parts
from heatpool_agent.board import Board
from heatpool_agent.doctor import (
    bmc,
    cards,
    cpu_power,
    heat,
    identity,
    lines,
    machine,
    maps,
    network,
    own_clock,
    spool_state,
)
from heatpool_agent.doctor.place import Place, is_agent_running
from heatpool_agent.doctor.verdict import Status, Verdict, ok, skip, warn
from heatpool_agent.looks import Look, Seen, look_at_all, of_kind
from heatpool_agent.origins import told

# Sensors take at most 6 s and 0.7 s between two looks; a slow disk or BMC must not take longer.
FAMILY_S = 9.0
_ORDER = {Status.FAIL: 0, Status.WARN: 1, Status.OK: 2, Status.SKIP: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every verdict of one examination."""

    verdicts: tuple[Verdict, ...]

    @property
    def has_failed(self) -> bool:
        """Whether something that the settings ask for does not work."""
        return any(verdict.status is Status.FAIL for verdict in self.verdicts)

    def worst_first(self) -> list[Verdict]:
        """For a person: what needs one stands on top."""
        return sorted(self.verdicts, key=lambda verdict: _ORDER[verdict.status])


async def examine(place: Place, progress: Callable[[str], None] = lambda _: None) -> Report:
    """All checks of one place.

    Raises:
        ConfigError: the settings cannot be used, with every mistake.
    """
    await _check_settings(place)
    families = {
        "machine": _blocking(machine.families, place),
        "clock": _blocking(own_clock.families, place),
        "cpu_power": _blocking(cpu_power.families, place),
        "lines": _blocking(lines.families, place),
        "spool": _blocking(spool_state.families, place),
        "identity": _blocking(identity.families, place),
        "network": network.families(place),
        "maps": maps.families(place),
        "bmc": bmc.families(place),
        "sensors": _of_looks(place, progress),
    }
    found = await asyncio.gather(
        *(_in_time(name, work, progress) for name, work in families.items())
    )
    verdicts = (ok("settings", place.file_name), *(v for vs in found for v in vs))
    return Report(verdicts=tuple(_told_once(verdicts)))


def _told_once(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """A BMC that lets us not in has no endpoint either: one finding, not two."""
    logins = {v.id.partition(":")[2]: v.fix for v in verdicts if v.id.startswith("bmc_login:")}
    for verdict in verdicts:
        family, _, name = verdict.id.partition(":")
        is_same = verdict.fix and verdict.fix == logins.get(name)
        if family == "endpoint" and is_same:
            yield skip(verdict.id, f"see bmc_login:{name}")
        else:
            yield verdict


async def _check_settings(place: Place) -> None:
    """Opens every part, which touches no device, and closes it again.

    Raises:
        ConfigError: with every mistake.
    """
    async with AsyncExitStack() as stack:
        board = Board(site_id=SiteId("unnamed"))
        await open_parts(place.config, board, place.clock, stack)


async def _in_time(
    name: str, work: Awaitable[Sequence[Verdict]], progress: Callable[[str], None]
) -> Sequence[Verdict]:
    """The verdicts of one family; one that does not end is itself a finding."""
    try:
        async with asyncio.timeout(FAMILY_S):
            found = await work
    except TimeoutError:
        return (_unfinished(name, f"not finished within {FAMILY_S:g} s"),)
    except (OSError, HeatpoolError) as error:
        return (_unfinished(name, str(error)),)
    progress(name)
    return found


def _unfinished(name: str, found: str) -> Verdict:
    return warn(
        f"{name}_unfinished",
        found,
        why="nothing is known of this family of checks",
        fix="run doctor again; if it stays, run: heatpool-agent --debug doctor",
    )


async def _blocking(see: Callable[[Place], Sequence[Verdict]], place: Place) -> Sequence[Verdict]:
    return await asyncio.to_thread(see, place)


async def _of_looks(place: Place, progress: Callable[[str], None]) -> Sequence[Verdict]:
    """What follows from looking at the sensors."""
    shown = await asyncio.to_thread(cards.gather, place)
    seen = await look_at_all(
        place.config, place.clock, told=lambda look: progress(f"sensor {look.id}")
    )
    runs = await asyncio.to_thread(is_agent_running, place.folder)
    named = [str(block.get("id")) for block in place.config.sensor]
    keys = await asyncio.to_thread(told, place.config, place.path, place.environ)
    return (
        cards.library(shown, of_kind(seen.looks, "nvml")),
        cards.power_state(shown),
        *lines.endpoints(seen.looks, named=named, is_agent=runs),
        *_of_heat(place, seen, seen.looks, keys),
    )


def _of_heat(
    place: Place, seen: Seen, looks: Sequence[Look], keys: frozenset[str]
) -> Sequence[Verdict]:
    return (
        heat.psys(looks),
        heat.counter_against_gauge(looks),
        *heat.loop_settings(place.config, told=keys),
        *heat.meter_identity(place.config.sensor, looks),
        heat.billing_meter(place.config, looks),
        heat.heat_balance(seen.board.loops),
        heat.rejection(place.config, seen.board.loops),
    )
