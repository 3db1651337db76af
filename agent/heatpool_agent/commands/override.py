"""`heatpool-agent override`: the local operator's word, above every order from outside."""

import os
import re
from pathlib import Path
from typing import Any

import click

from heatpool_agent.assembly import SystemClock, inhabited_dir
from heatpool_agent.config import load
from heatpool_agent.core.override import ask_mistake, asked
from heatpool_agent.http.figures import stamp
from heatpool_agent.kept_orders import OverrideFile

_FACTORS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_OPTIONS = {"for_s": "--for in seconds", "reason": "--reason"}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


class Span(click.ParamType[float]):
    """A length of time with its unit, as s."""

    name = "SPAN"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds."""
        found = _SPAN.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no length of time, for example 90s, 10m or 2h", param, ctx)
        return float(found[1]) * _FACTORS[found[2]]


@click.command("override")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option("--for", "for_s", type=Span(), help="How long, for example 2h; at most 7d.")
@click.option("--reason", default="", help="Why, for those who wonder where the heat is.")
@click.option("--end", "is_end", is_flag=True, help="Take it back before its time.")
def command(*, path: Path | None, for_s: float | None, reason: str, is_end: bool) -> None:
    """Reject all heat here, whatever is ordered from outside, for a time that has an end."""
    if is_end == (for_s is not None):
        raise click.UsageError("say either --for SPAN --reason TEXT, or --end")
    file = OverrideFile(inhabited_dir(load(path, os.environ), os.environ))
    if for_s is None:
        had_one = file.remove()
        click.echo("the override has ended" if had_one else "there was no override")
        return
    if mistake := ask_mistake(for_s, reason):
        name = next(name for name in _OPTIONS if mistake.startswith(name))
        raise click.UsageError(_OPTIONS[name] + mistake.removeprefix(name))
    ask = asked(for_s, reason, event_ns=SystemClock().event_ns())
    file.write(ask)
    click.echo(f"all heat is rejected here until {stamp(ask.until_ns)}; an agent that runs obeys")
    click.echo(f"within two seconds, one that starts before then too. Asked in {file.path}")
