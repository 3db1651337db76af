"""Lines of a closed period under the terms they were posted with, whatever settings say today."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from heatpool.period import Period
from heatpool_aggregator.core.agreement import Membership, price, spans
from heatpool_aggregator.core.settlement import StatementLine


def as_posted(
    lines: Sequence[StatementLine],
    standing: Iterable[StatementLine],
    *,
    members: Sequence[Membership],
    period: Period,
) -> tuple[StatementLine, ...]:
    """The lines under the source, agreement and price of the standing line of the same meter.

    A line that never stood has today's terms. An amount that changes with its energy is rounded to
    today's step.
    """
    unused = defaultdict[tuple[str, ...], deque[StatementLine]](deque)
    for line in standing:
        unused[_meter(line)].append(line)
    found: list[StatementLine] = list(lines)
    for is_same in (_is_same_source, _is_any_source):
        for index, line in enumerate(lines):
            was = next((old for old in unused[_meter(line)] if is_same(old, line)), None)
            if was is None or found[index] is not line:
                continue
            unused[_meter(line)].remove(was)
            found[index] = _under(was, line, members=members, period=period)
    return tuple(found)


def left_over(
    standing: Iterable[StatementLine], members: Sequence[Membership], period: Period
) -> tuple[StatementLine, ...]:
    """Standing lines of sites that settings no longer name for this period: they stay."""
    return tuple(line for line in standing if not spans(members, line.site_id, period))


def _meter(line: StatementLine) -> tuple[str, ...]:
    return line.site_id, line.metering_point_id, line.meter_id


def _is_same_source(was: StatementLine, line: StatementLine) -> bool:
    return was.virtual_source_id == line.virtual_source_id


def _is_any_source(_was: StatementLine, _line: StatementLine) -> bool:
    return True


def _under(
    was: StatementLine, line: StatementLine, *, members: Iterable[Membership], period: Period
) -> StatementLine:
    amount_eur = was.amount_eur
    if line.energy_wh != was.energy_wh:
        terms = next(
            member.terms
            for _, member in spans(members, line.site_id, period)
            if member.virtual_source_id == line.virtual_source_id
        )
        posted = replace(terms, price_eur_mwh=Decimal(was.price_eur_mwh))
        amount_eur = format(price(line.energy_wh, posted), "f")
    return replace(
        line,
        virtual_source_id=was.virtual_source_id,
        price_eur_mwh=was.price_eur_mwh,
        agreement_id=was.agreement_id,
        amount_eur=amount_eur,
    )
