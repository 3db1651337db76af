"""The REST endpoints: each looks at the board or the ledger and answers with a model."""

from http import HTTPStatus
from typing import Annotated

import msgspec

from heatpool_aggregator.core.shown_sums import part_sources
from heatpool_aggregator.web import models, shown
from heatpool_aggregator.web.desk import Desk
from heatpool_aggregator.web.problem import Refused
from heatpool_aggregator.web.router import route

# About ten days of quarter hours: a page of JSON that a browser still opens at once.
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
# Commits that may lie unapplied while we call ourselves ready: a few seconds of full ingest.
_READY_LAG_COUNT = 100
# Each look back into the ledger is this much longer than the last, so few looks reach any age.
_LOOK_BACK_GROWTH = 8


@route("GET", "/v1/sites", out=models.Sites)
async def sites(desk: Desk) -> models.Sites:
    """Every site now."""
    return models.Sites(sites=shown.sites(desk))


@route("GET", "/v1/sites/{site_id}", out=models.Site)
async def site(desk: Desk, *, site_id: str) -> models.Site:
    """One site now."""
    for view in desk.board.sites:
        if view.site_id == site_id:
            return shown.site(view, desk)
    raise Refused(HTTPStatus.NOT_FOUND, f"site {site_id!r} never sent; /v1/sites lists who did")


@route("GET", "/v1/sources", out=models.VirtualSources)
async def sources(desk: Desk) -> models.VirtualSources:
    """Every virtual source now."""
    return models.VirtualSources(
        virtual_sources=tuple(shown.source(view) for view in desk.board.sources)
    )


@route("GET", "/v1/sources/{virtual_source_id}", out=models.VirtualSource)
async def source(desk: Desk, *, virtual_source_id: str) -> models.VirtualSource:
    """One virtual source now."""
    for view in desk.board.sources:
        if view.virtual_source_id == virtual_source_id:
            return shown.source(view)
    if virtual_source_id in part_sources(desk.config.virtual_source, desk.sees):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            f"virtual source {virtual_source_id!r} adds up sites of other owners too, so its sums "
            "are not shown to one of them; /v1/sites shows yours",
        )
    known = ", ".join(view.virtual_source_id for view in desk.board.sources) or "none"
    raise Refused(
        HTTPStatus.NOT_FOUND, f"virtual source {virtual_source_id!r} is unknown; known: {known}"
    )


@route("GET", "/v1/statements", out=models.Statements)
async def statements(desk: Desk, *, limit: Limit = 20) -> models.Statements:
    """Closed periods, newest first, as the ledger has them."""
    found = await _from_ledger(desk, limit)
    last = desk.board.statement
    if last is not None:
        # The board's own knows who is missing; the ledger holds lines only.
        found = [shown.statement(last), *(one for one in found if one.start_ns != last.start_ns)]
    newest_first = sorted(found, key=lambda one: one.start_ns, reverse=True)
    return models.Statements(statements=tuple(newest_first[:limit]))


@route("GET", "/v1/statements/last", out=models.Statement)
async def last_statement(desk: Desk) -> models.Statement:
    """The last closed period."""
    if desk.board.statement is None:
        raise Refused(
            HTTPStatus.NOT_FOUND,
            f"no period has closed yet; one closes every {desk.config.settlement.period_s} s",
        )
    return shown.statement(desk.board.statement)


@route("GET", "/v1/status", out=models.Status)
async def status(desk: Desk) -> models.Status:
    """What came in, and how far it is applied."""
    return shown.status(desk.board)


@route("GET", "/v1/balance", out=models.Balance)
async def balance(desk: Desk) -> models.Balance:
    """How far the accounts of closed periods differ from the registers, Wh."""
    return shown.balance(desk.board)


@route("GET", "/v1/state", out=models.State)
async def state(desk: Desk) -> models.State:
    """Everything the page shows, once; /v1/events sends the same whenever it changes."""
    return shown.state(desk)


@route("GET", "/healthz", out=models.Health)
async def healthz(desk: Desk) -> models.Health:
    """The process answers."""
    return models.Health(status="ok")


@route("GET", "/readyz", out=models.Health)
async def readyz(desk: Desk) -> models.Health:
    """The disk takes what comes, and what is in the log has been applied."""
    if errors := desk.board.disk_errors:
        told = "; ".join(f"{name}: {why}" for name, why in sorted(errors.items()))
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, told, wait_s=1)
    lag_count = desk.board.log_position - desk.board.applied_position
    if lag_count > _READY_LAG_COUNT:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, f"{lag_count} commits are not applied yet", wait_s=1
        )
    return models.Health(status="ready")


async def _from_ledger(desk: Desk, limit: int) -> list[models.Statement]:
    """At least the `limit` newest statements, if there are so many."""
    end_ns = desk.clock.now_ns()
    span_ns = limit * desk.config.settlement.period_s * 1_000_000_000
    while True:
        start_ns = max(0, end_ns - span_ns)
        found = shown.statements(await desk.ledger(start_ns, end_ns))
        if len(found) >= limit or start_ns == 0:
            return found
        span_ns *= _LOOK_BACK_GROWTH
