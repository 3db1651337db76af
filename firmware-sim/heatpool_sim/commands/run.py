"""`heatpool-sim run`: serves a fleet of simulated sites until it is told to stop."""

import asyncio
import json
from pathlib import Path

import click


@click.command("run")
@click.option(
    "--fleet", required=True, metavar="FILE|NAME", help="Fleet TOML, or one of ours: demo."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line when ready.")
@click.option(
    "--state",
    "state_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that keeps registers and ports over restarts.",
)
def command(*, fleet: str, as_json: bool, state_file: Path | None) -> None:
    """Serve a fleet's devices on loopback until TERM."""
    from heatpool_sim import app, scenario

    loaded = scenario.load(fleet)

    async def serve() -> None:
        stop = app.told_to_stop()
        async with app.serve(loaded, state_file=state_file) as served:
            rows = served.addresses()
            click.echo(json.dumps({"fleet": loaded.name, "sites": rows}) if as_json else text(rows))
            await stop.wait()

    asyncio.run(serve())


def text(rows: list[dict[str, object]]) -> str:
    """One line a site, for people."""
    columns = ("site_id", "virtual_source_id", "cdu", "meter", "meter_address", "meter_id")
    lines = [columns, *(tuple(str(row[name]) for name in columns) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
