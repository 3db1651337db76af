"""The energy ledger: the total of every counter over restarts and boots, and what its gaps hide.

A gap's energy is an estimate with its doubt. It stands beside the measured total, never in it.
Source: agent.md 5.1, 7; physics.md 3.4.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from heatpool.units import NS_PER_S
from heatpool_agent.core import recent_power, totals
from heatpool_agent.core.clock_steps import ClockStep, Instant, event_ns, step_between
from heatpool_agent.core.loop_record import SavedEstimator
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.core.recent_power import RecentPower
from heatpool_agent.core.totals import PowerSpan, Step, StepKind, Total

# No zone begins anew twice in less: it would need 6 kW.
MODEL_FROM_S = 10.0
# A clock that jumps at every look must fill neither memory nor the time of a tick.
STEPS_MOST = 1_000

# By sensor and channel.
Key = tuple[str, str]


class GapCause(Enum):
    """Why a span could not be measured."""

    REBOOT = "reboot"
    # The count may have begun anew more than once, and several numbers of times are possible.
    MULTI_WRAP = "multi_wrap"
    # The count fell without a wrap, or counts in another unit: its device or driver began anew.
    RESET = "reset"
    # In one boot, but the count could not be held open.
    UNREADABLE = "unreadable"
    # Another meter stands there.
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRecord:
    """One span without measurement; its energy, J, is an estimate, None where nothing is known.

    `number` counts the gaps of a channel from 1.
    """

    sensor: str
    channel: str
    number: int
    cause: GapCause
    start: Instant
    end: Instant
    energy_j: float | None = None
    energy_j_u: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One counter: measured total, recent power, and beside them the sum over its gaps."""

    sensor: str
    total: Total
    boot_id: str
    recent: RecentPower = field(default_factory=RecentPower)
    gaps_count: int = 0
    gaps_j: float = 0.0
    # One model estimates all of them and may be wrong in one direction: the doubts add up.
    gaps_j_u: float = 0.0

    @property
    def at(self) -> Instant:
        """When the counter was last read."""
        total = self.total
        return Instant(boot_id=self.boot_id, boot_ns=total.boot_ns, event_ns=total.event_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """What the gaps of one counter hide, J: estimated, and in no total; None: nothing is known."""

    gaps_count: int
    energy_j: float | None
    energy_j_u: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What changed in the ledger since the page before: to be saved as a whole, or not at all.

    Saving a page twice is harmless.
    """

    accounts: tuple[Account, ...] = ()
    gaps: tuple[GapRecord, ...] = ()
    steps: tuple[ClockStep, ...] = ()
    clock: Instant | None = None
    # Beside the accounts, so that one commit holds both: how far each loop's estimator is.
    estimators: tuple[SavedEstimator, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenGap:
    """The last gap of a channel: what follows, or a clock put right, tells more of it."""

    record: GapRecord
    before: Account
    reading: Reading
    rated_w: float | None
    after_w: float | None = None


class Ledger:
    """Every account of one site in one life of the kernel, stepped by readings."""

    def __init__(self, saved: Page | None = None, *, boot_id: str = "") -> None:
        saved = saved or Page()
        self._boot_id = boot_id
        self._accounts = {(one.sensor, one.total.channel): one for one in saved.accounts}
        self._steps = deque(saved.steps, STEPS_MOST)
        self._clock = saved.clock
        # Counters that were read since the agent began.
        self._read: dict[Key, None] = {}
        self._open: dict[Key, _OpenGap] = {}
        self._changed: dict[Key, None] = {}
        self._new_gaps: dict[tuple[str, str, int], GapRecord] = {}
        self._new_steps: list[ClockStep] = []

    @property
    def is_urgent(self) -> bool:
        """Whether something is unsaved that no later reading could tell again."""
        return bool(self._new_gaps or self._new_steps)

    def energies_j(self) -> dict[Key, float]:
        """Measured energy, J, of each counter that was read since the agent began."""
        return {key: totals.energy_j(self._accounts[key].total) for key in self._read}

    def hidden(self) -> dict[Key, Hidden]:
        """What the gaps of each such counter hide; one without a gap is left out."""
        return {key: _hidden(it) for key in self._read if (it := self._accounts[key]).gaps_count}

    def account(self, sensor: str, channel: str) -> Account | None:
        """What is known of one counter."""
        return self._accounts.get((sensor, channel))

    def page(self) -> Page:
        """What changed since the last page; the caller sees to it that it is saved."""
        page = Page(
            accounts=tuple(self._accounts[key] for key in self._changed),
            gaps=tuple(self._new_gaps.values()),
            steps=tuple(self._new_steps),
            clock=self._clock,
        )
        self._changed, self._new_gaps, self._new_steps = {}, {}, []
        return page

    def look(self, wall_ns: int, boot_ns: int) -> None:
        """One look at both clocks: a step between this and the last one is kept."""
        now = Instant(boot_id=self._boot_id, boot_ns=boot_ns, event_ns=wall_ns)
        step = step_between(self._clock, now) if self._clock else None
        self._clock = now
        if step is not None:
            self._steps.append(step)
            self._new_steps.append(step)
            for key in self._open:
                self._estimate_again(key)

    def take(self, sensor: str, readings: Sequence[Reading]) -> dict[Key, Step]:
        """Steps every energy counter of one pass; its steps, as an estimator needs them.

        The first step since the agent began spans its absence: it is in the total, and tells
        nothing of the power now.
        """
        rated_w = {r.channel: r.value for r in readings if r.quantity == "rated_w"}
        return {
            (sensor, r.channel): self._take((sensor, r.channel), r, rated_w.get(r.channel))
            for r in readings
            if totals.is_energy(r)
        }

    def _take(self, key: Key, reading: Reading, rated_w: float | None) -> Step:
        reading = self._with_boot(reading)
        before = self._accounts.get(key)
        total, step = self._advanced(before, reading, rated_w)
        if step.kind is StepKind.REPEATED:
            return step
        is_first, self._read[key] = key not in self._read, None
        self._changed[key] = None
        if before is None:
            self._accounts[key] = Account(sensor=key[0], total=total, boot_id=self._boot_id)
        else:
            self._accounts[key] = replace(before, total=total, boot_id=self._boot_id)
            self._follow(key, before, reading, step, rated_w)
        return Step(kind=StepKind.FIRST) if is_first else self._shown(before, step)

    def _with_boot(self, reading: Reading) -> Reading:
        # A driver that cannot read the boot id leaves its counters without a life.
        if reading.generation or not totals.is_zone(reading):
            return reading
        return replace(reading, generation=self._boot_id)

    def _advanced(
        self, before: Account | None, reading: Reading, rated_w: float | None
    ) -> tuple[Total, Step]:
        if before is None or not totals.lives_one_boot(reading):
            return totals.advance(before.total if before else None, reading)
        span, likely = _spans(before, reading, rated_w)
        return totals.advance(before.total, reading, span=span, likely=likely)

    def _shown(self, before: Account | None, step: Step) -> Step:
        # Boot times of two boots make no span, and an estimate is no power of now.
        is_one_boot = before is None or before.boot_id == self._boot_id
        if step.kind is StepKind.ESTIMATED or not is_one_boot:
            return replace(step, power_w=None)
        return step

    def _follow(
        self, key: Key, before: Account, reading: Reading, step: Step, rated_w: float | None
    ) -> None:
        cause = self._cause(before, reading, step)
        if cause is not None:
            self._open_gap(key, before, reading, cause=cause, rated_w=rated_w)
        elif step.delta_j is not None and before.boot_id == self._boot_id:
            self._observe(key, step.delta_j, reading.boot_ns - before.total.boot_ns)

    def _observe(self, key: Key, delta_j: float, span_ns: int) -> None:
        account = self._accounts[key]
        recent = recent_power.observe(account.recent, delta_j, span_ns / NS_PER_S)
        self._accounts[key] = replace(account, recent=recent)
        # The first whole minute after a gap says more of it than what came before alone.
        is_told = key in self._open and self._open[key].after_w is None
        if is_told and recent.open_s == 0.0 and recent.now_w is not None:
            self._open[key] = replace(self._open[key], after_w=recent.now_w)
            self._estimate_again(key)

    def _cause(self, before: Account, reading: Reading, step: Step) -> GapCause | None:
        if step.kind is StepKind.ESTIMATED:
            return GapCause.MULTI_WRAP
        if step.kind is StepKind.RESET:
            return GapCause.RESET
        if step.kind is not StepKind.GAP:
            return None
        if reading.generation == before.total.generation:
            is_same_unit = reading.exponent == before.total.exponent
            return GapCause.MULTI_WRAP if is_same_unit else GapCause.RESET
        if reading.meter_id or reading.node is Node.HEAT_METER:
            return GapCause.EXCHANGE
        if before.boot_id != self._boot_id:
            return GapCause.REBOOT
        return GapCause.UNREADABLE if _is_reopened(before, reading) else GapCause.RESET

    def _open_gap(
        self,
        key: Key,
        before: Account,
        reading: Reading,
        *,
        cause: GapCause,
        rated_w: float | None,
    ) -> None:
        account = self._accounts[key]
        number = before.gaps_count + 1
        record = GapRecord(
            sensor=key[0],
            channel=key[1],
            number=number,
            cause=cause,
            start=before.at,
            end=account.at,
        )
        self._accounts[key] = replace(
            account, gaps_count=number, recent=recent_power.interrupted(account.recent)
        )
        self._open[key] = _OpenGap(record=record, before=before, reading=reading, rated_w=rated_w)
        self._estimate_again(key)

    def _estimate_again(self, key: Key) -> None:
        """The last gap of a channel by all that is known now; the sum beside the total follows."""
        gap, account = self._open[key], self._accounts[key]
        old, new = gap.record, self._estimated(gap)
        self._open[key] = replace(gap, record=new)
        self._accounts[key] = replace(
            account,
            gaps_j=account.gaps_j + (new.energy_j or 0.0) - (old.energy_j or 0.0),
            gaps_j_u=account.gaps_j_u + (new.energy_j_u or 0.0) - (old.energy_j_u or 0.0),
        )
        self._changed[key] = None
        self._new_gaps[*key, new.number] = new

    def _estimated(self, gap: _OpenGap) -> GapRecord:
        if gap.record.cause is GapCause.MULTI_WRAP:
            span, likely = _spans(gap.before, gap.reading, gap.rated_w, after_w=gap.after_w)
            _, step = totals.advance(gap.before.total, gap.reading, span=span, likely=likely)
            return replace(gap.record, energy_j=step.delta_j, energy_j_u=step.delta_j_u)
        on_s, maybe_s = self._hidden_s(gap.record)
        bound = recent_power.bounds(gap.before.recent, gap.rated_w, float("inf"))
        likely = recent_power.likely(
            gap.before.recent, bound, hidden_s=on_s + maybe_s, after_w=gap.after_w
        )
        if likely is None:
            return gap.record
        energy_j, energy_j_u = recent_power.hidden_j(likely, on_s=on_s, maybe_s=maybe_s)
        return replace(gap.record, energy_j=energy_j, energy_j_u=energy_j_u)

    def _hidden_s(self, record: GapRecord) -> tuple[float, float]:
        """How long the part surely ran unseen, and how long it may have been off, s."""
        start, end = record.start, record.end
        if start.boot_id == end.boot_id:
            return max(0, end.boot_ns - start.boot_ns) / NS_PER_S, 0.0
        hidden_ns = event_ns(end, self._steps) - event_ns(start, self._steps)
        # A device of its own ran on through our boot; the machine's parts may have been off.
        on_ns = hidden_ns if record.cause is GapCause.EXCHANGE else end.boot_ns
        # A clock that begins in 1970 tells no span until it is set.
        return max(0, on_ns) / NS_PER_S, max(0, hidden_ns - on_ns) / NS_PER_S


def merged(before: Page | None, after: Page, *, most_count: int) -> Page:
    """Two pages as one, of which the newest `most_count` gaps and steps are kept."""
    if before is None:
        return after
    accounts = {(a.sensor, a.total.channel): a for a in (*before.accounts, *after.accounts)}
    gaps = {(g.sensor, g.channel, g.number): g for g in (*before.gaps, *after.gaps)}
    estimators = {(e.loop_id, e.part): e for e in (*before.estimators, *after.estimators)}
    return Page(
        accounts=tuple(accounts.values()),
        gaps=tuple(gaps.values())[-most_count:],
        steps=(*before.steps, *after.steps)[-most_count:],
        clock=after.clock or before.clock,
        estimators=tuple(estimators.values()),
    )


def _spans(
    before: Account, reading: Reading, rated_w: float | None, *, after_w: float | None = None
) -> tuple[PowerSpan | None, PowerSpan | None]:
    """What bounds the mean power since the last reading, and where it likely lies."""
    hidden_s = (reading.boot_ns - before.total.boot_ns) / NS_PER_S
    if hidden_s < MODEL_FROM_S:
        return None, None
    bound = recent_power.bounds(before.recent, rated_w, totals.MAX_ZONE_W)
    likely = recent_power.likely(before.recent, bound, hidden_s=hidden_s, after_w=after_w)
    return bound, likely or (bound if rated_w else None)


def _hidden(it: Account) -> Hidden:
    # An estimate without doubt is none: of no gap of this counter was anything known.
    is_known = it.gaps_j_u > 0
    return Hidden(
        gaps_count=it.gaps_count,
        energy_j=it.gaps_j if is_known else None,
        energy_j_u=it.gaps_j_u if is_known else None,
    )


def _is_reopened(before: Account, reading: Reading) -> bool:
    """Whether the kernel's event was closed and opened again: boot id, then the opening's time."""
    old, _, opened = before.total.generation.partition("/")
    return bool(opened) and old == reading.generation.partition("/")[0]
