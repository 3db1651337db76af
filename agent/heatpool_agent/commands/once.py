"""`heatpool-agent once`: everything that can be read now, and the heat that follows from it."""

import asyncio
import json
import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool.sample import Estimate, Provenance, SiteId
from heatpool_agent.assembly import (
    SystemClock,
    loop_settings,
    open_learning,
    open_sensors,
    site_id,
    state_dir,
)
from heatpool_agent.board import Board, SensorView
from heatpool_agent.commands.once_text import BAND
from heatpool_agent.commands.once_text import table as table
from heatpool_agent.commands.waiting import told_waiting
from heatpool_agent.config import Config, load, loop_priors, mistakes
from heatpool_agent.core.doubt import Doubt, computed_from, doubt, quality_class
from heatpool_agent.core.levels import Witness
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.verdict import Verdict, reasons, unit, verdict
from heatpool_agent.http.seen import Seen
from heatpool_agent.http.status import status
from heatpool_agent.looks import ONE_SHOT_S, Patience, in_time, patience_of, patiences
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven

SCHEMA = "heatpool.once/1"
EXIT_NOTHING = 4
# What is assumed of a water sensor does not depend on how the site is cooled.
_ANY_COOLING = "dlc"


@click.command("once")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@click.option(
    "--for",
    "span_s",
    type=click.FloatRange(0.01, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two reads.",
)
def command(*, path: Path | None, as_json: bool, span_s: float) -> None:
    """Read every sensor twice and estimate the heat; sends nothing."""
    if math.isnan(span_s):
        raise click.BadParameter("is no number", param_hint="--for")
    config = load(path, os.environ)
    document = asyncio.run(look(config, os.environ, span_s=span_s))
    if as_json:
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        click.echo(table(document))
    named = {str(block.get("id")) for block in config.sensor}
    if any(view["id"] in named and view["state"] != "up" for view in document["sensors"]):
        sys.exit(EXIT_NOTHING)


async def look(config: Config, environ: Mapping[str, str], *, span_s: float) -> dict[str, Any]:
    """The document of one look: two passes over every sensor, `span_s` apart."""
    clock = SystemClock()
    board = Board(site_id=_site(config, environ))
    # Who asks to look for longer has the patience for a slow one.
    most_s = max(ONE_SHOT_S, span_s)
    patient = patiences(config, most_s)
    async with AsyncExitStack() as stack:
        found = mistakes(config)
        driven = await open_sensors(in_time(config, most_s), clock, stack, found)
        if found:
            raise ConfigError(found)
        sense = Sense(
            loop_settings(config),
            board,
            clock,
            spooling=None,
            period_s=config.sampling.period_s,
            report_period_s=config.sampling.report_period_s,
            learning=open_learning(config, clock, state_dir(config, environ), is_guest=True),
        )
        with told_waiting(waited := {one.id for one in driven}):
            await asyncio.gather(*(_first(one, board, sense, patient, waited) for one in driven))
        await asyncio.sleep(span_s)
        await asyncio.gather(
            *(_read(one, board, sense, patience_of(one, patient), probe=False) for one in driven)
        )
        at_ns = clock.event_ns()
        sense.tick(at_ns, clock.boot_ns())
    return document(board, at_ns, hosts={one.id: one.host for one in driven})


def _site(config: Config, environ: Mapping[str, str]) -> SiteId:
    """A look must not leave files behind: a site that has no name yet gets none."""
    folder = state_dir(config, environ)
    is_named = config.site.id != "auto" or (folder / "site_id").exists()
    return site_id(config, folder) if is_named else SiteId("unnamed")


async def _first(
    one: Driven, board: Board, sense: Sense, patient: Mapping[str, Patience], waited: set[str]
) -> None:
    try:
        await _read(one, board, sense, patience_of(one, patient), probe=True)
    finally:
        waited.discard(one.id)


async def _read(
    one: Driven, board: Board, sense: Sense, patience: Patience, *, probe: bool
) -> None:
    state, detail, fix = "up", "", ""
    start_s = asyncio.get_running_loop().time()
    readings: Sequence[Reading] = ()
    try:
        async with asyncio.timeout(patience.most_s):
            if probe and not await one.sensor.probe():
                state, (detail, fix) = "absent", patience.emptiness()
            elif probe or board.sensors[one.id].state == "up":
                readings = await one.sensor.read()
            else:
                return
    except SensorGone as error:
        state, detail, fix = "gone", error.reason, error.fix
    except SensorBusy as error:
        state, detail = "busy", str(error)
    except TimeoutError:
        state, (detail, fix) = "gone", patience.silence()
    except OSError as error:  # one file that may not be read leaves the other sensors as they are
        state, detail = "gone", f"{error.filename}: {error.strerror}"
        fix = "give this user the right to read it, or look as the service's user"
    if state in ("gone", "busy"):
        detail = patience.told(detail, asyncio.get_running_loop().time() - start_s)
    board.post_sensor(
        SensorView(
            id=one.id,
            kind=one.kind,
            state=state,
            detail=detail,
            fix=fix,
            readings_count=len(readings),
        )
    )
    board.latest[one.id] = tuple(readings)
    await sense.take(one, readings)


def document(board: Board, at_ns: int, *, hosts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The look as one JSON document; a figure that is absent is not in it.

    `hosts` names the server of each sensor, where it is not this machine.
    """
    told = status(_seen(board, at_ns), version="")
    return {
        "schema": SCHEMA,
        "site_id": board.site_id,
        "at_ns": at_ns,
        "readings": list(_readings(board, hosts or {})),
        "estimates": list(_estimates(board)),
        "heat": [_present(loop) for loop in told.heat],
        "hosts": msgspec.to_builtins(told.hosts),
        "disagreements": msgspec.to_builtins(told.disagreements),
        "sensors": [_sensor(view) for view in board.sensors.values()],
    }


def _seen(board: Board, at_ns: int) -> Seen:
    return Seen(
        board=board,
        event_ns=at_ns,
        boot_ns=board.last_tick_boot_ns,
        tick_age_s=0.0,
        is_stale=False,
        electric=board.electric,
        loops=board.loops,
    )


def _present(struct: msgspec.Struct) -> dict[str, Any]:
    told = msgspec.to_builtins(struct)
    return {name: value for name, value in told.items() if value is not None}


def _readings(board: Board, hosts: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    priors, reported_u_frac = loop_priors(_ANY_COOLING)
    counted = _counted(board, hosts)
    for reading in board.judged:
        own = Witness(reading.sensor, reading.channel, reading.quantity)
        yield _reading(
            reading,
            host=hosts.get(reading.sensor, ""),
            found=doubt(reading, priors, reported_u_frac=reported_u_frac),
            counted_for=counted.get(own, ()),
        )


def _counted(board: Board, hosts: Mapping[str, str]) -> dict[Witness, tuple[str, ...]]:
    """The readings that present estimates are taken from, and whether a loop's or a host's."""
    of_loop: set[Witness] = set()
    of_host: set[Witness] = set()
    for view in board.loops:
        if view.power is not None:
            of_loop.update(view.power.witnesses)
            of_host.update(w for one in view.power.hosts for w in one.cover.witnesses)
        if view.computed is not None:
            of_loop |= computed_from(board.judged, view.loop_id, hosts)
    both = (("loop", of_loop), ("host", of_host))
    return {w: tuple(name for name, own in both if w in own) for w in of_loop | of_host}


def _reading(
    reading: Reading, *, host: str, found: Doubt | None, counted_for: Collection[str]
) -> dict[str, Any]:
    fate = verdict(reading)
    quality = quality_class(reading, is_doubted=fate is Verdict.DOUBTED)
    fields = {
        "sensor": reading.sensor,
        "channel": reading.channel,
        "label": reading.label or None,
        "node": reading.node.value,
        "loop": reading.loop or None,
        "host": host or None,
        "quantity": reading.quantity,
        "unit": unit(reading.quantity),
        "kind": reading.kind.value,
        # JSON has no word for what is no number.
        "value": reading.value if math.isfinite(reading.value) else None,
        "u": found.u if found else None,
        "u_from": ("prior" if found.is_prior else "device") if found else None,
        "quality_class": quality.name if quality else None,
        "counted": bool(counted_for),
        "counted_for": list(counted_for) or None,
        "raw": reading.raw,
        "exponent": reading.exponent if reading.raw is not None else None,
        "modulus": reading.modulus,
        "meter_id": reading.meter_id or None,
        "event_ns": reading.event_ns,
        "flags": list(reading.flags),
        "believed": fate is not Verdict.REFUSED,
        "quality": fate.value,
        "reasons": list(reasons(reading)),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _estimates(board: Board) -> Iterable[dict[str, Any]]:
    if board.electric is not None:
        yield _estimate("electric", board.electric)
    for loop in board.loops:
        for name, figure in (
            ("electric_heat", loop.electric),
            ("computed_heat", loop.computed),
            ("heat_rate", loop.fused),
            ("air_heat", loop.air),
        ):
            if figure is not None:
                yield _estimate(f"{loop.loop_id}/{name}", figure)


def _estimate(channel: str, figure: Estimate) -> dict[str, Any]:
    low_w = figure.value - BAND * figure.u
    # Flow can run backwards; a host that takes no electricity is as little as there can be.
    is_electric = figure.provenance is Provenance.ELECTRIC
    return {
        "channel": channel,
        "value_w": figure.value,
        "value_w_u": figure.u,
        "lo95_w": max(0.0, low_w) if is_electric else low_w,
        "hi95_w": figure.value + BAND * figure.u,
        "quality_class": figure.quality.name,
        "provenance": figure.provenance.name.lower(),
        "flags": list(figure.flags),
    }


def _sensor(view: SensorView) -> dict[str, Any]:
    return {
        "id": view.id,
        "kind": view.kind,
        "state": view.state,
        "detail": view.detail,
        "fix": view.fix,
    }
