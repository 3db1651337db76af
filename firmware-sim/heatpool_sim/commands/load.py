"""`heatpool-sim load`: thousands of light agents in one process, on the real wire."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from heatpool_sim.commands.spans import Span

SPAN = Span()
SHARE = click.FloatRange(0.0, 1.0)
FILE = click.Path(path_type=Path, dir_okay=False)
THERE = click.Path(path_type=Path, dir_okay=False, exists=True)


class _Storm(click.ParamType[tuple[int, float]]):
    name = "N@T"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        match = re.fullmatch(r"(\d+)@(.+)", str(value))
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is no N@T, such as 8000@30s", param, ctx)
        return int(match[1]), SPAN.convert(match[2], param, ctx)


class _Burst(click.ParamType[tuple[float, float, float]]):
    name = "F@T:LENGTH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)@([^:]+):(.+)", str(value))
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is no F@T:LENGTH, such as 10@30s:5min", param, ctx)
        at_s, length_s = (SPAN.convert(part, param, ctx) for part in (match[2], match[3]))
        return float(match[1]), at_s, length_s


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def with_all(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return with_all


_what = _options(
    click.option("--agents", type=click.IntRange(1, 100_000), default=100, show_default=True),
    click.option(
        "--rows",
        type=click.IntRange(1, 1_000),
        default=6,
        show_default=True,
        help="Rows of a message; they lie PERIOD / ROWS apart.",
    ),
    click.option(
        "--period", "period_s", type=SPAN, default="60s", help="Between messages; 60s if not said."
    ),
    click.option(
        "--register-period", type=SPAN, default="15min", help="Between meter readings; 15min."
    ),
    click.option("--seconds", type=SPAN, help="Length of the run; else until TERM."),
    click.option("--ramp", "ramp_s", type=SPAN, help="Starts are spread over it; 1.3 ms an agent."),
    click.option(
        "--drain", "drain_s", type=SPAN, default="60s", help="Waits so long for the last acks; 60s."
    ),
    click.option(
        "--site-prefix", default="load", show_default=True, help="Sites: PREFIX-00000 on."
    ),
    click.option("--seed", type=int, default=1, show_default=True),
    click.option(
        "--spool-batches",
        type=click.IntRange(min=1),
        default=100_000,
        show_default=True,
        help="Frames that an agent holds undelivered; the oldest go, and are told as gaps.",
    ),
    click.option("--quiet", is_flag=True, help="Hello and no more: what a stream itself costs."),
)
_where = _options(
    click.option("--address", default="127.0.0.1:8443", show_default=True, help="gRPC."),
    click.option("--http", help="The aggregator's web port, for --verify; no TLS."),
    click.option(
        "--tls-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="SITE_ID.pem (key and chain) of every agent, and ca.pem.",
    ),
    click.option(
        "--join",
        metavar="URL",
        help="Agents without a certificate in --tls-dir get one there: https://HOST:8080.",
    ),
    click.option("--token", help="Of a fleet: `token new --site-id 'PREFIX-*'`; for --join."),
    click.option("--token-file", type=THERE, help="The token, where others cannot see it."),
    click.option("--ca-hash", help="What `token new` prints; for --join."),
    click.option("--ca", type=THERE, help="CA of the aggregator; by itself TLS without a name."),
    click.option("--cert", type=THERE, help="One certificate for all streams."),
    click.option("--key", type=THERE, help="Its key, if it is in a file of its own."),
    click.option("--operator", type=THERE, help="Key and certificate of who may read; --verify."),
    click.option(
        "--streams-per-connection", type=click.IntRange(1, 128), default=1, show_default=True
    ),
)
_faults = _options(
    click.option("--backlog", "backlog_s", type=SPAN, help="Unsent history of each agent: 7d."),
    click.option(
        "--backlog-rows",
        type=click.IntRange(1, 1_000),
        default=360,
        show_default=True,
        help="Rows of 10 s in a message of history; packed from 60 on.",
    ),
    click.option(
        "--storm", "storms", type=_Storm(), multiple=True, help="N agents reconnect at once at T."
    ),
    click.option(
        "--burst", "bursts", type=_Burst(), multiple=True, help="F times as much from T on."
    ),
    click.option("--bad-clock", type=SHARE, default=0.0, help="Share of agents off by 1 h to 7 d."),
    click.option("--duplicates", type=SHARE, default=0.0, help="Share of frames sent twice."),
    click.option("--reorder", type=SHARE, default=0.0, help="Share of frames behind the next."),
    click.option(
        "--garbage", type=SHARE, default=0.0, help="Share of agents whose live rows are garbage."
    ),
    click.option(
        "--noisy-tenant",
        type=click.FloatRange(min=1.0),
        metavar="N",
        help="One agent sends N times as much, and does not slow down.",
    ),
    click.option("--kill-every", type=SPAN, help="Mean life of a stream before it is dropped."),
)
_report = _options(
    click.option("--json", "as_json", is_flag=True, help="The report as one JSON line."),
    click.option("--progress", type=SPAN, default="5s", help="Between lines on stderr; 5s."),
    click.option(
        "--verify", "is_verified", is_flag=True, help="Asks the aggregator for its sums, too."
    ),
    click.option(
        "--write-config",
        type=FILE,
        help="Writes settings of an aggregator with these sites as members, and ends.",
    ),
)


@click.command("load")
@_what
@_where
@_faults
@_report
def command(*, as_json: bool, write_config: Path | None, **asked: Any) -> None:
    """Load an aggregator with light agents, and count what becomes of every frame.

    Ends with 1 if a frame was acknowledged and later denied, the witness disagrees, or no agent got
    in.
    """
    from heatpool_sim.load import report, running, settings

    if asked["tls_dir"] and asked["streams_per_connection"] > 1:
        raise click.UsageError("a certificate names one site: one stream a connection, or no TLS")
    if asked["http"] and (asked["tls_dir"] or asked["ca"]):
        raise click.UsageError(
            "--http is for an aggregator without certificates: with them its web port wants a token"
        )
    asked["newcomers"] = _newcomers(asked)
    wish = _asked(asked)
    if write_config is not None:
        state_dir = write_config.absolute().with_suffix(".state")
        text = settings.aggregator(wish, state_dir=str(state_dir))
        write_config.write_text(text, encoding="utf-8")
        click.echo(f"heatpool-aggregator run --config {write_config}")
        return
    found = running.run(wish)
    click.echo(json.dumps(found) if as_json else report.text(found))
    witness = found["witness"]
    if not found["agents"]["connected_most"]:
        told = "`ends` says why" if found["ends"] else "there was no time to try"
        click.echo(f"heatpool-sim: {wish.doors.grpc}: no agent got in; {told}", err=True)
        raise SystemExit(1)
    if found["lost"] or (witness is not None and not witness["is_right"]):
        raise SystemExit(1)


def _newcomers(told: dict[str, Any]) -> Any:
    """Where agents join; None: they have what they need."""
    from heatpool_sim.load.asked import Newcomers

    if told["join"] is None:
        return None
    if told["tls_dir"] is None or not told["ca_hash"]:
        raise click.UsageError("--join needs --tls-dir, where keys stay, and --ca-hash")
    if not told["join"].startswith("https://"):
        raise click.UsageError("--join: must be https://HOST:PORT, the aggregator's web port")
    file = told["token_file"]
    token = told["token"] or (file.read_text(encoding="utf-8").strip() if file else "")
    if not token:
        raise click.UsageError("--join needs --token or --token-file")
    return Newcomers(url=told["join"].rstrip("/"), token=token, ca_hash=told["ca_hash"])


def _asked(told: dict[str, Any]) -> Any:
    from heatpool_sim.load.asked import Asked, Burst, Doors, Faults, Storm

    doors = Doors(
        grpc=told["address"],
        http=told["http"],
        ca=told["ca"],
        cert=told["cert"],
        key=told["key"],
        folder=told["tls_dir"],
        newcomers=told["newcomers"],
        operator=told["operator"],
        streams_per_connection=told["streams_per_connection"],
    )
    faults = Faults(
        bad_clock_frac=told["bad_clock"],
        duplicates_frac=told["duplicates"],
        reorder_frac=told["reorder"],
        garbage_frac=told["garbage"],
        noisy_factor=told["noisy_tenant"],
        kill_every_s=told["kill_every"],
        storms=tuple(Storm(agents=n, at_s=at_s) for n, at_s in told["storms"]),
        bursts=tuple(
            Burst(factor=factor, at_s=at_s, length_s=length_s)
            for factor, at_s, length_s in told["bursts"]
        ),
    )
    same = ("agents", "rows", "period_s", "seconds", "ramp_s", "drain_s", "site_prefix", "seed")
    return Asked(
        **{name: told[name] for name in same},
        register_period_s=told["register_period"],
        backlog_s=told["backlog_s"] or 0.0,
        backlog_rows=told["backlog_rows"],
        spool_batches=told["spool_batches"],
        is_quiet=told["quiet"],
        is_verified=told["is_verified"],
        progress_s=told["progress"],
        faults=faults,
        doors=doors,
    )
