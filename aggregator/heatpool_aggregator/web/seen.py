"""The board as one reader may see it: rows of its tenant, money only for who has to do with it."""

from collections.abc import Callable
from dataclasses import replace

from heatpool.sample import SiteId
from heatpool_aggregator.board import Board, SourceView
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.principal import Action, may, sees
from heatpool_aggregator.core.settlement import Statement
from heatpool_aggregator.core.shown_sums import whole_sources
from heatpool_aggregator.web.desk import Desk

Sees = Callable[[SiteId], bool]


def narrowed(desk: Desk) -> Desk:
    """The desk of its principal: a board without what the principal does not see."""
    has_accounts = may(desk.principal, Action.READ_ACCOUNTS)
    sees_all = sees(desk.principal, "")
    if has_accounts and sees_all:
        return desk
    board = desk.board
    shown = Board(
        sites=tuple(view for view in board.sites if desk.sees(view.site_id)),
        sources=board.sources if sees_all else _sources(board, desk.config, desk.sees),
        statement=_statement(board.statement, desk.sees) if has_accounts else None,
        # Sums over everybody's meters are the business of who sees everybody.
        balance=board.balance if has_accounts and sees_all else None,
        ingest=board.ingest,
        log_position=board.log_position,
        applied_position=board.applied_position,
        version=board.version,
    )
    return replace(desk, board=shown)


def _sources(board: Board, config: Config, seen: Sees) -> tuple[SourceView, ...]:
    whole = whole_sources(config.virtual_source, seen)
    return tuple(view for view in board.sources if view.virtual_source_id in whole)


def _statement(statement: Statement | None, seen: Sees) -> Statement | None:
    if statement is None:
        return None
    return replace(
        statement,
        lines=tuple(line for line in statement.lines if seen(line.site_id)),
        missing=tuple(one for one in statement.missing if seen(one[0])),
    )
