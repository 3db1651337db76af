"""`heatpool-sim run`: serves a fleet of simulated sites until it is told to stop."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click


@click.command("run")
@click.argument("name", metavar="[FLEET]", required=False)
@click.option(
    "--fleet", metavar="FILE|NAME", help="Fleet TOML, or one of ours: demo, edge, faults."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line when ready.")
@click.option(
    "--state",
    "state_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that keeps registers and ports over restarts.",
)
@click.option(
    "--agent-toml",
    "agent_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Writes the settings of an agent that reads all of the site, ready to run.",
)
@click.option("--site", "site_id", metavar="ID", help="The site that --agent-toml is for.")
def command(
    *,
    name: str | None,
    fleet: str | None,
    as_json: bool,
    state_file: Path | None,
    agent_file: Path | None,
    site_id: str | None,
) -> None:
    """Serve a fleet's devices on loopback until TERM."""
    from heatpool_sim import app, scenario

    if (name is None) == (fleet is None):
        raise click.UsageError("name one fleet, such as `heatpool-sim run edge`")
    loaded = scenario.load(name or fleet or "")
    site = app.site_named(loaded, site_id) if agent_file is not None else ""

    async def serve() -> None:
        stop = app.told_to_stop()
        async with app.serve(loaded, state_file=state_file) as served:
            if agent_file is not None:
                await asyncio.to_thread(app.write_agent, served, site, agent_file)
            rows = served.addresses()
            click.echo(json.dumps({"fleet": loaded.name, "sites": rows}) if as_json else text(rows))
            if agent_file is not None and not as_json:
                click.echo(f"\nheatpool-agent once --config {agent_file}")
            await stop.wait()

    asyncio.run(serve())


def text(rows: list[dict[str, Any]]) -> str:
    """One line a device, for people."""
    lines = [("site", "device", "address", "what"), *(line for row in rows for line in _lines(row))]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _lines(row: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    site_id = str(row["site_id"])
    notes = {
        "modbus_cdu": "unit 1, map generic-cdu",
        "mbus_meter": f"address {row.get('meter_address')}, meter {row.get('meter_id')}",
    }
    for device, address in row["devices"].items():
        yield site_id, device, address, notes.get(device, "")
    for root, place in row.get("roots", {}).items():
        yield site_id, "machine", place, f"[roots].{root}"
