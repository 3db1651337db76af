"""The ledger as rows of tables, and back.

Counts and totals lie there as text: some registers and sums are beyond what SQLite's int64 holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from heatpool_agent.core.clock_steps import ClockStep, Instant
from heatpool_agent.core.ledger import Account, GapCause, GapRecord, Page
from heatpool_agent.core.loop_record import SavedEstimator
from heatpool_agent.core.recent_power import RecentPower
from heatpool_agent.core.totals import Total

Fields = tuple[Any, ...]

ACCOUNT: Mapping[str, type] = {
    "sensor": str,
    "channel": str,
    "quantity": str,
    "exponent": int,
    "raw": str,
    "generation": str,
    "boot_id": str,
    "boot_ns": int,
    "event_ns": int,
    "total_j": str,
    "total_uj": int,
    "now_w": float,
    "low_w": float,
    "high_w": float,
    "seen_s": float,
    "gaps_count": int,
    "gaps_j": float,
    "gaps_j_u": float,
}
GAP: Mapping[str, type] = {
    "sensor": str,
    "channel": str,
    "number": int,
    "cause": str,
    "start_boot_id": str,
    "start_boot_ns": int,
    "start_event_ns": int,
    "end_boot_id": str,
    "end_boot_ns": int,
    "end_event_ns": int,
    "energy_j": float,
    "energy_j_u": float,
}
STEP: Mapping[str, type] = {"boot_id": str, "boot_ns": int, "step_ns": int}
ESTIMATOR: Mapping[str, type] = {
    "loop_id": str,
    "part": str,
    "boot_id": str,
    "boot_ns": int,
    "event_ns": int,
    "state": str,
}


def puts(page: Page) -> Iterator[tuple[str, Iterable[Fields]]]:
    """Statements that save a page, each with its rows; the later of two rows stands."""
    yield _put("ledger", ACCOUNT), map(account_row, page.accounts)
    yield _put("ledger_gaps", GAP), map(gap_row, page.gaps)
    yield _put("clock_steps", STEP), map(step_row, page.steps)
    if page.estimators:
        yield _put("estimators", ESTIMATOR), map(estimator_row, page.estimators)
    if page.clock is not None:
        yield _put("meta", ("name", "value")), [("clock", clock_text(page.clock))]


def _put(table: str, columns: Iterable[str]) -> str:
    names = list(columns)
    return (
        f"INSERT OR REPLACE INTO {table}({', '.join(names)})"
        f" VALUES ({', '.join('?' for _ in names)})"
    )


def select(table: str, columns: Iterable[str]) -> str:
    """The statement that gives every row, oldest first."""
    return f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid"


def account_row(account: Account) -> Fields:
    """One account in the order of `ACCOUNT`."""
    total, recent = account.total, account.recent
    return (
        account.sensor,
        total.channel,
        total.quantity,
        total.exponent,
        str(total.raw),
        total.generation,
        account.boot_id,
        total.boot_ns,
        total.event_ns,
        str(total.total_j),
        total.total_uj,
        recent.now_w,
        recent.low_w,
        recent.high_w,
        recent.seen_s,
        account.gaps_count,
        account.gaps_j,
        account.gaps_j_u,
    )


def account_of(row: Sequence[Any]) -> Account:
    """The account of a row; a minute of power that was not yet full begins anew."""
    told = dict(zip(ACCOUNT, row, strict=True))
    return Account(
        sensor=told["sensor"],
        boot_id=told["boot_id"],
        total=Total(
            channel=told["channel"],
            raw=int(told["raw"]),
            boot_ns=told["boot_ns"],
            event_ns=told["event_ns"],
            generation=told["generation"],
            quantity=told["quantity"],
            exponent=told["exponent"],
            total_j=int(told["total_j"]),
            total_uj=told["total_uj"],
        ),
        recent=RecentPower(**{name: told[name] for name in ("now_w", "low_w", "high_w", "seen_s")}),
        gaps_count=told["gaps_count"],
        gaps_j=told["gaps_j"],
        gaps_j_u=told["gaps_j_u"],
    )


def gap_row(gap: GapRecord) -> Fields:
    """One gap in the order of `GAP`."""
    ends = (
        moment
        for at in (gap.start, gap.end)
        for moment in (at.boot_id, at.boot_ns, at.event_ns)
    )  # fmt: skip
    name = (gap.sensor, gap.channel, gap.number, gap.cause.value)
    return *name, *ends, gap.energy_j, gap.energy_j_u


def gap_of(row: Sequence[Any]) -> GapRecord:
    """The gap of a row."""
    sensor, channel, number, cause, *ends, energy_j, energy_j_u = row
    return GapRecord(
        sensor=sensor,
        channel=channel,
        number=number,
        cause=GapCause(cause),
        start=_instant(ends[:3]),
        end=_instant(ends[3:]),
        energy_j=energy_j,
        energy_j_u=energy_j_u,
    )


def _instant(fields: Sequence[Any]) -> Instant:
    boot_id, boot_ns, event_ns = fields
    return Instant(boot_id=boot_id, boot_ns=int(boot_ns), event_ns=int(event_ns))


def step_row(step: ClockStep) -> Fields:
    """One clock step in the order of `STEP`."""
    return step.boot_id, step.boot_ns, step.step_ns


def step_of(row: Sequence[Any]) -> ClockStep:
    """The clock step of a row."""
    boot_id, boot_ns, step_ns = row
    return ClockStep(boot_id=boot_id, boot_ns=boot_ns, step_ns=step_ns)


def estimator_row(saved: SavedEstimator) -> Fields:
    """One estimator in the order of `ESTIMATOR`."""
    at = saved.at
    return saved.loop_id, saved.part, at.boot_id, at.boot_ns, at.event_ns, saved.state


def estimator_of(row: Sequence[Any]) -> SavedEstimator:
    """The estimator of a row."""
    loop_id, part, *at, state = row
    return SavedEstimator(loop_id=loop_id, part=part, at=_instant(at), state=state)


def clock_text(clock: Instant) -> str:
    """The last look at the clocks as one text."""
    return f"{clock.boot_ns} {clock.event_ns} {clock.boot_id}"


def clock_of(text: str | None) -> Instant | None:
    """The last look of such a text; None where there is none."""
    if not text:
        return None
    boot_ns, event_ns, boot_id = text.split(" ", 2)
    return _instant((boot_id, boot_ns, event_ns))
