"""`heatpool-sim demo`: aggregator, agents and twelve simulated sites on this machine."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import click


@click.command("demo")
@click.option(
    "--seconds", type=click.FloatRange(min=1.0), help="Stop after so long; else run until TERM."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON summary at the end.")
@click.option(
    "--state",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept; default $XDG_STATE_HOME/heatpool/demo.",
)
@click.option("--fresh", "is_fresh", is_flag=True, help="Forget what earlier demos kept.")
@click.option(
    "--port", "http_port", type=click.IntRange(1, 65_535), help="Port of the page; else a free one."
)
def command(
    *,
    seconds: float | None,
    as_json: bool,
    root: Path | None,
    is_fresh: bool,
    http_port: int | None,
) -> None:
    """Run the whole of heatpool on this machine: no root, GPU, broker or network needed."""
    from heatpool_sim import app, scenario
    from heatpool_sim.demo.summary import summary
    from heatpool_sim.programs import place

    def announce(page: str, client: str) -> None:
        click.echo(f"heatpool demo: http://{page}/", err=as_json)
        click.echo(f"for the `heatpool` command: export HEATPOOL_ADDRESS={client}", err=as_json)
        click.echo("Ctrl-C ends it.", err=as_json)

    fleet = scenario.load("demo")
    with place.opened(root or place.default_root(os.environ), is_fresh=is_fresh) as ours:
        ports = place.ports(ours, http_port=http_port)
        findings = asyncio.run(
            app.demo(fleet, ours, ports=ports, seconds=seconds, announce=announce)
        )
    tree = summary(findings)
    click.echo(json.dumps(tree) if as_json else text(tree))


def text(tree: dict[str, Any]) -> str:
    """The summary for people."""
    lines = [
        f"{tree['sites']} sites, {tree['real_sites']} of them this machine; "
        f"{tree['batches_acked']} of {tree['batches_sent']} batches acknowledged"
    ]
    for source in tree["virtual_sources"]:
        lines.append(
            f"  {source['id']}: {_kilo(source['heat_rate_w'])} kW_th "
            f"± {_kilo(source['heat_rate_w_u'])} (k=1) at {_shown(source['hot_c'])} degC, "
            f"delivered {_kilo(source['energy_wh'])} kWh by registers"
        )
    lines.append(f"balance error {_shown(tree['balance_error_wh'])} Wh")
    return "\n".join(lines)


def _kilo(value: float | None) -> str:
    return "-" if value is None else f"{value / 1000.0:.1f}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
