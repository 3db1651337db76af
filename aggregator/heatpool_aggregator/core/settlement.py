"""Registers + terms -> ledger entries and statement lines: whole Wh and Decimal, nothing else.

How registers move is in `registers`, what energy is worth in `agreement`. Estimates, substitutes
and shares have no place here: a line is made of two readings of one meter or not at all.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from heatpool.errors import LedgerError
from heatpool.period import Period
from heatpool.sample import (
    AgreementId,
    MeterId,
    MeteringPointId,
    RegisterRow,
    SiteId,
    VirtualSourceId,
)
from heatpool_aggregator.core.agreement import Membership, price, spans
from heatpool_aggregator.core.registers import Movement, Stretch, moved, movement_wh, stretches

FLAG_OPENING = "opening"  # the point's first reading lies inside the period
FLAG_EXCHANGE = "exchange"  # the meter was exchanged inside the period
FLAG_ROLL_OVER = "roll-over"  # the register passed its end and began again at 0
FLAG_CLOCK = "clock"  # a register at an end was read under a clock far off: its time is corrected
FLAG_BRIDGED = "bridged"  # two periods without a reading: the share of each is linear


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """Energy of one meter in one period, between two registers of that meter, and its price.

    `register_close_wh` may lie below `register_open_wh` after a roll-over; `energy_wh` is right.
    """

    virtual_source_id: VirtualSourceId
    site_id: SiteId
    metering_point_id: MeteringPointId
    meter_id: MeterId
    register_open_wh: int
    register_close_wh: int
    energy_wh: int
    price_eur_mwh: str
    amount_eur: str
    agreement_id: AgreementId
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One line posted to the accounts of a period; `sign` -1 reverses an earlier one.

    `key` names period, virtual source, site, point, meter, part and revision.
    """

    key: str
    start_ns: int
    end_ns: int
    posted_ns: int
    sign: int
    line: StatementLine
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Accounts of one settlement period [start, end), all virtual sources."""

    start_ns: int
    end_ns: int
    lines: tuple[StatementLine, ...]
    missing: tuple[tuple[SiteId, str], ...]

    @property
    def is_complete(self) -> bool:
        """Every metered member has a register on both ends."""
        return not self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSeries:
    """Registers of one metering point: those in the period and the nearest around it."""

    site_id: SiteId
    point_id: MeteringPointId
    rows: Sequence[RegisterRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodBalance:
    """Energy of one period, Wh, counted three ways: registers, running sums, ledger lines."""

    start_ns: int
    end_ns: int
    registers_wh: int
    sources_wh: int
    lines_wh: int

    @property
    def error_wh(self) -> int:
        """How far the three lie apart, Wh; 0 where the accounts hold."""
        counts = (self.registers_wh, self.sources_wh, self.lines_wh)
        return max(counts) - min(counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What can be said about a period: lines, sites without a register, and Wh by registers."""

    lines: tuple[StatementLine, ...]
    missing: tuple[tuple[SiteId, str], ...]
    registers_wh: int


def settle(
    series: PointSeries, period: Period, members: Iterable[Membership]
) -> tuple[StatementLine, ...]:
    """Lines of one metering point in the period; none before its first reading.

    Energies add up exactly over any split of the period.
    Raises: LedgerError if it cannot be settled, or not yet; the text says why.
    Source: physics.md 17, settlement rules 1-5 and 10.
    """
    parts = spans(members, series.site_id, period)
    meters = stretches(series.rows)
    if not parts or not meters or meters[0].first_ns >= parts[-1][0].end_ns:
        return ()
    if meters[-1].last_ns < parts[-1][0].end_ns and not meters[-1].is_closed:
        raise LedgerError(
            f"point {series.point_id} has no register at the end of the period or after it; "
            "the line waits for one"
        )
    return tuple(
        _line(series, movement, member, meter_id=stretch.meter_id, flags=flags)
        for span, member in parts
        for stretch in meters
        if (movement := moved(stretch, span.start_ns, span.end_ns)) is not None
        for flags in [_flags(meters, stretch, span, movement, period=period)]
    )


def settle_all(
    points: Iterable[PointSeries], period: Period, members: Sequence[Membership]
) -> Settled:
    """Lines of every metering point; who cannot be settled stands in `missing` with the reason."""
    lines: list[StatementLine] = []
    missing = []
    registers_wh = 0
    for series in points:
        try:
            lines += settle(series, period, members)
            registers_wh += _moved_wh(series, period, members)
        except LedgerError as error:
            missing.append((series.site_id, str(error)))
    return Settled(lines=tuple(lines), missing=tuple(missing), registers_wh=registers_wh)


def reconcile(
    existing: Sequence[LedgerEntry],
    lines: Iterable[StatementLine],
    *,
    period: Period,
    posted_ns: int,
    reason: str = "registers restated",
) -> tuple[LedgerEntry, ...]:
    """What to post so that exactly these lines stand: nothing if they do already.

    A changed line is reversed and posted anew as the next revision; nothing is edited.
    `existing` holds all entries of the period in posting order. Source: physics.md 17, rule 7.
    """
    standing = {_part_key(entry.key): entry for entry in _standing(existing)}
    revisions = Counter(_part_key(entry.key) for entry in existing if entry.sign > 0)
    wanted = _keyed(lines, period)
    entries = []
    for key, entry in standing.items():
        if wanted.get(key) != entry.line:
            entries.append(_reversed(entry, posted_ns=posted_ns, reason=reason))
    for key, line in wanted.items():
        if key in standing and standing[key].line == line:
            continue
        revision = revisions[key]
        entries.append(
            LedgerEntry(
                key=f"{key}/{revision}",
                start_ns=period.start_ns,
                end_ns=period.end_ns,
                posted_ns=posted_ns,
                sign=1,
                line=line,
                reason=reason if revision else "period closed",
            )
        )
    return tuple(entries)


def standing_lines(entries: Iterable[LedgerEntry]) -> tuple[StatementLine, ...]:
    """Lines that no reversing entry took back, by virtual source, site, point and posting."""
    lines = [entry.line for entry in _standing(entries)]
    return tuple(sorted(lines, key=lambda line: _identity(line)[:3]))


def statement(
    entries: Iterable[LedgerEntry],
    *,
    period: Period,
    missing: Iterable[tuple[SiteId, str]] = (),
) -> Statement:
    """The accounts of the period as they stand, out of its entries in posting order."""
    inside = [e for e in entries if (e.start_ns, e.end_ns) == (period.start_ns, period.end_ns)]
    return Statement(
        start_ns=period.start_ns,
        end_ns=period.end_ns,
        lines=standing_lines(inside),
        missing=tuple(sorted(missing)),
    )


def posted_wh(entries: Iterable[LedgerEntry]) -> int:
    """Energy that the entries add to the accounts, Wh; reversing entries take away."""
    return sum(entry.sign * entry.line.energy_wh for entry in entries)


def worst_balance(balances: Iterable[PeriodBalance]) -> PeriodBalance | None:
    """The period whose three counts lie furthest apart, the earliest of equals; None if none."""
    return max(balances, key=lambda balance: (balance.error_wh, -balance.start_ns), default=None)


def is_continuous(before: Iterable[StatementLine], after: Iterable[StatementLine]) -> bool:
    """Whether each meter opens a period with the register that closed the one before it.

    False also where a meter has a line on one side only and no flag says why.
    """
    closes = {_identity(line)[1:]: line for line in before}
    opens = {_identity(line)[1:]: line for line in reversed(tuple(after))}
    return all(
        closes[key].register_close_wh == opens[key].register_open_wh
        if key in closes and key in opens
        else _is_edge(closes.get(key) or opens[key])
        for key in closes.keys() | opens.keys()
    )


def _line(
    series: PointSeries,
    movement: Movement,
    member: Membership,
    *,
    meter_id: MeterId,
    flags: tuple[str, ...],
) -> StatementLine:
    return StatementLine(
        virtual_source_id=member.virtual_source_id,
        site_id=series.site_id,
        metering_point_id=series.point_id,
        meter_id=meter_id,
        register_open_wh=movement.register_open_wh,
        register_close_wh=movement.register_close_wh,
        energy_wh=movement.energy_wh,
        price_eur_mwh=_text(member.terms.price_eur_mwh),
        amount_eur=_text(price(movement.energy_wh, member.terms)),
        agreement_id=member.terms.agreement_id,
        flags=flags,
    )


def _text(amount: object) -> str:
    return format(amount, "f")


def _flags(
    meters: Sequence[Stretch],
    stretch: Stretch,
    span: Period,
    movement: Movement,
    *,
    period: Period,
) -> tuple[str, ...]:
    is_first = span.start_ns < stretch.first_ns
    is_exchanged = stretch.last_ns < span.end_ns or (is_first and stretch is not meters[0])
    flags = {
        FLAG_OPENING: is_first and stretch is meters[0],
        FLAG_EXCHANGE: is_exchanged,
        FLAG_ROLL_OVER: movement.is_rolled_over,
        FLAG_CLOCK: movement.is_corrected,
        FLAG_BRIDGED: movement.longest_step_ns > 2 * (period.end_ns - period.start_ns),
    }
    return tuple(flag for flag, is_set in flags.items() if is_set)


def _moved_wh(series: PointSeries, period: Period, members: Iterable[Membership]) -> int:
    return sum(movement_wh(series.rows, span) for span, _ in spans(members, series.site_id, period))


def _identity(line: StatementLine) -> tuple[str, str, str, str]:
    return line.virtual_source_id, line.site_id, line.metering_point_id, line.meter_id


def _is_edge(line: StatementLine) -> bool:
    return FLAG_OPENING in line.flags or FLAG_EXCHANGE in line.flags


def _keyed(lines: Iterable[StatementLine], period: Period) -> dict[str, StatementLine]:
    """Lines by what they stand for; `part` tells apart two stays of one meter in one period."""
    parts: Counter[tuple[str, ...]] = Counter()
    keyed = {}
    for line in lines:
        identity = _identity(line)
        names = "/".join(quote(name, safe="") for name in identity)
        keyed[f"{period.start_ns}/{period.end_ns}/{names}/{parts[identity]}"] = line
        parts[identity] += 1
    return keyed


_REVERSAL = "/reversal"


def _part_key(key: str) -> str:
    return key.removesuffix(_REVERSAL).rpartition("/")[0]


def _reversed(entry: LedgerEntry, *, posted_ns: int, reason: str) -> LedgerEntry:
    return LedgerEntry(
        key=entry.key + _REVERSAL,
        start_ns=entry.start_ns,
        end_ns=entry.end_ns,
        posted_ns=posted_ns,
        sign=-1,
        line=entry.line,
        reason=f"{reason}; reverses {entry.key}",
    )


def _standing(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    standing: dict[str, LedgerEntry] = {}
    for entry in entries:
        if entry.sign > 0:
            standing[entry.key] = entry
        else:
            standing.pop(entry.key.removesuffix(_REVERSAL), None)
    return list(standing.values())
