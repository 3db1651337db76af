"""`heatpool setpoint`, `setpoints` and `audit`: gives an order and follows what becomes of it."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from heatpool.sample import SiteId
from heatpool.setpoint import LEASE_MAX_S, SetpointState
from heatpool_aggregator.client import orders
from heatpool_aggregator.client.line import Place
from heatpool_aggregator.core.orders import LEASE_LEAST_S, UNTIL_MOST_S, Ask, Commanded, Step

_NS = 10**9
LOOK_S = 0.5
# A site may keep to itself for minutes before it follows; a lease is at most a quarter of an hour.
GRACE_S = 20.0
_FACTORS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_FAILED = (
    SetpointState.REFUSED,
    SetpointState.EXPIRED,
    SetpointState.SUPERSEDED,
    SetpointState.OVERRIDDEN,
)
# What `heatpool` gives every command: options that become a place, and how answers are printed.
Options = Callable[[Any], Any]
Show = Callable[..., None]


class Span(click.ParamType[float]):
    """A length of time with its unit, as s; `limits` are told as written there."""

    name = "SPAN"

    def __init__(self, limits: str, *, least_s: float = 0.0, most_s: float) -> None:
        self._limits, self._least_s, self._most_s = limits, least_s, most_s

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds."""
        found = _SPAN.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no length of time, for example 90s, 10m or 2h", param, ctx)
        span_s = float(found[1]) * _FACTORS[found[2]]
        if not self._least_s <= span_s <= self._most_s:
            self.fail(f"{value!r} is outside of what can be ordered: {self._limits}", param, ctx)
        return span_s


def add_to(main: click.Group, *, options: Options, show: Show) -> None:
    """Adds the commands to `heatpool`."""
    main.add_command(_setpoint(options, show))
    main.add_command(_setpoints(options, show))
    main.add_command(_audit(options, show))


def _setpoint(options: Options, show: Show) -> click.Command:
    @click.command("setpoint")
    @click.argument("site_id", metavar="SITE")
    @click.option(
        "--heat-rate-w", type=click.FloatRange(min=0), help="Heat rate wished into the network, W."
    )
    @click.option(
        "--lease",
        "lease_s",
        type=Span("30s to 15m", least_s=LEASE_LEAST_S, most_s=LEASE_MAX_S),
        default="10m",
        show_default=True,
        help="How long the site goes on without hearing of it again, 30s to 15m.",
    )
    @click.option(
        "--until",
        "until_s",
        type=Span("at most 7d", most_s=UNTIL_MOST_S),
        help="Renew the lease for so long, at most 7d.",
    )
    @click.option("--reason", required=True, help="Why; for people and the audit log.")
    @click.option("--loop", "loop_id", default="", help="Which loop, where the site has several.")
    @click.option("--hot-c", type=float, help="Wished temperature of the hot pipe, degC.")
    @click.option(
        "--dry-run",
        is_flag=True,
        help="The site checks the order and answers; nothing is done.",
    )
    @click.option("--end", "is_end", is_flag=True, help="Take the order back.")
    @click.option("--watch", is_flag=True, help="Show each step until the effect or a failure.")
    @options
    def setpoint(place: Place, *, as_json: bool, debug: bool, **told: Any) -> None:
        """Ask one site for a heat rate; without a lease it rejects all its heat locally."""
        ask = _ask_of(told)
        if ask is None:
            taken = told["site_id"], told["reason"]
            ended_shape = orders.order_json if as_json else _ended_text
            show(lambda: orders.end(place, *taken), ended_shape, debug=debug)
        elif told["watch"]:
            _watch(place, ask, show, as_json=as_json, debug=debug)
        else:
            shape = orders.order_json if as_json else orders.given_text
            show(lambda: orders.give(place, ask), shape, debug=debug)

    command: click.Command = setpoint
    return command


def _setpoints(options: Options, show: Show) -> click.Command:
    @click.command("setpoints")
    @click.option("--site", "site_id", default="", metavar="SITE_ID", help="Only this site.")
    @click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
    @options
    def setpoints(place: Place, *, site_id: str, limit: int, as_json: bool, debug: bool) -> None:
        """What sites were asked for, and what became of it."""
        shape = orders.orders_json if as_json else orders.orders_table
        show(lambda: orders.listed(place, site_id, limit), shape, debug=debug)

    command: click.Command = setpoints
    return command


def _audit(options: Options, show: Show) -> click.Command:
    @click.command("audit")
    @click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
    @click.option("--verify", is_flag=True, help="Check the chain of the whole log.")
    @options
    def audit(place: Place, *, limit: int, verify: bool, as_json: bool, debug: bool) -> None:
        """Who did what and why, newest first."""
        if not verify:
            shape = orders.audit_json if as_json else orders.audit_table
            show(lambda: orders.audit(place, limit), shape, debug=debug)
            return
        verdicts: list[dict[str, Any]] = []

        def check() -> dict[str, Any]:
            verdicts.append(orders.verdict(orders.whole_audit(place)))
            return verdicts[-1]

        show(check, (lambda found: found) if as_json else orders.verdict_text, debug=debug)
        if not verdicts[-1]["holds"]:
            raise click.exceptions.Exit(1)

    command: click.Command = audit
    return command


def _ask_of(told: dict[str, Any]) -> Ask | None:
    """The order that is asked for; None: one is to be taken back."""
    heat_rate_w, until_s = told["heat_rate_w"], told["until_s"]
    if told["is_end"]:
        if heat_rate_w is not None or until_s is not None:
            raise click.UsageError("--end takes the order back; --heat-rate-w, --until give one")
        return None
    if heat_rate_w is None:
        raise click.UsageError("--heat-rate-w is missing; or did you mean --end?")
    return Ask(
        site_id=SiteId(told["site_id"]),
        loop_id=told["loop_id"],
        heat_rate_w=heat_rate_w,
        lease_s=told["lease_s"],
        hot_c=told["hot_c"],
        reason=told["reason"],
        dry_run=told["dry_run"],
        until_ns=None if until_s is None else time.time_ns() + round(until_s * _NS),
    )


def _ended_text(row: Commanded | None) -> str:
    return "there was no order to end" if row is None else orders.order_text(row)


def _watch(place: Place, ask: Ask, show: Show, *, as_json: bool, debug: bool) -> None:
    """Prints each step as it becomes known; exit status 1 where the order came to no effect."""
    steps, seen = _steps(place, ask), list[Step]()

    def following() -> Step:
        seen.append(next(steps))
        return seen[-1]

    try:
        while True:
            # Each look may fail, and is told as any question is.
            show(following, _step_line if as_json else orders.step_text, debug=debug)
    except StopIteration:
        pass
    if not seen or not _is_end(seen[-1], ask):
        click.echo("heatpool: no effect was seen in the time of the order", err=True)
    if not seen or seen[-1].state in _FAILED or not _is_end(seen[-1], ask):
        raise click.exceptions.Exit(1)


def _step_line(step: Step) -> str:
    return json.dumps(orders.step_json(step))


def _steps(place: Place, ask: Ask) -> Iterator[Step]:
    """Steps of a new order, until it has come to an end that a watcher waits for."""
    row = orders.give(place, ask)
    span_s = ask.lease_s if ask.until_ns is None else (ask.until_ns - time.time_ns()) / _NS
    ends_s = time.monotonic() + span_s + GRACE_S
    shown = 0
    while True:
        for step in row.steps[shown:]:
            yield step
            if _is_end(step, ask):
                return
        shown = len(row.steps)
        if time.monotonic() > ends_s:
            return
        time.sleep(LOOK_S)
        found = orders.listed(place, ask.site_id, 10)
        # The newest number of an order may be another after a stream opened anew.
        row = next((one for one in found if _is_same(one, row)), row)


def _is_same(one: Commanded, row: Commanded) -> bool:
    return one.steps[:1] == row.steps[:1]


def _is_end(step: Step, ask: Ask) -> bool:
    if ask.dry_run:
        return step.state in (SetpointState.RECEIVED, *_FAILED)
    has_no_effect = step.state is SetpointState.APPLIED and "meter shows it" in step.detail
    return has_no_effect or step.state in (SetpointState.EFFECT_SEEN, *_FAILED)
