"""Energies of a trace: one account of it all, and one for each period of the UTC grid.

Gain errors are common to all periods, so the doubt of the total is its own account's, and no root
of the sum of squares. What the estimator learns late corrects the total; the periods get it by
their doubts, so that they add up to the total exactly.
"""

from dataclasses import dataclass, field, replace

from heatpool.period import align_down_ns
from heatpool.sample import Estimate, QualityClass
from heatpool.units import NS_PER_S
from heatpool_agent.core.loop_estimator import LoopEstimator

TOTAL, PERIOD = "total", "period"
PARTIAL, NO_HEAT, PERIODS_OMITTED = "partial", "no_heat_known", "empty_periods_omitted"
# Periods without any row that are listed between two others: a month of hours.
_MOST_EMPTY = 750


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Heat of a span, Wh, with its u; None where no row tells of it. `coverage_frac` is seen."""

    start_ns: int
    end_ns: int
    heat_wh: float | None
    heat_wh_u: float | None
    quality: QualityClass | None
    coverage_frac: float
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class _Open:
    """A span that is still being added to; `heat_wh` is what accounts closed before gaps held."""

    start_ns: int
    heat_wh: float = 0.0
    heat_wh_u: float = 0.0
    seen_ns: int = 0
    quality: QualityClass | None = None
    flags: dict[str, None] = field(default_factory=dict)


class Accounts:
    """The energies of one trace while it is read."""

    def __init__(self, estimator: LoopEstimator, *, period_s: int) -> None:
        self._estimator = estimator
        self._period_s = period_s
        self._grid_ns = period_s * NS_PER_S
        self._opens: dict[str, _Open] = {}
        self._closed: list[Span] = []
        self._last_ns = 0
        self._is_omitted = False
        self.total = Span(
            start_ns=0, end_ns=0, heat_wh=None, heat_wh_u=None, quality=None, coverage_frac=0.0
        )

    @property
    def periods(self) -> list[Span]:
        """The periods that are closed, in order."""
        return self._closed

    def begin(self, at_ns: int) -> None:
        """Opens all accounts at the first row."""
        self._opens = {TOTAL: _Open(at_ns), PERIOD: _Open(align_down_ns(at_ns, self._period_s))}
        self._last_ns = at_ns
        self._start()

    def boundary_ns(self) -> int:
        """The end of the period that is open, ns."""
        return self._opens[PERIOD].start_ns + self._grid_ns

    def cover(self, until_ns: int, heat: Estimate | None, flags: tuple[str, ...] = ()) -> None:
        """A span that a row tells of, up to this time; it lies in one period."""
        span_ns, self._last_ns = until_ns - self._last_ns, until_ns
        for one in self._opens.values():
            one.seen_ns += span_ns
            one.flags.update(dict.fromkeys(flags))
            if heat is not None:
                one.quality = max(one.quality or heat.quality, heat.quality)
                if heat.flags:
                    one.flags.update(dict.fromkeys(heat.flags))

    def turn(self) -> None:
        """Ends the period that is open, at its end, and opens the next one."""
        boundary_ns = self.boundary_ns()
        self._bank(PERIOD)
        self._shut(boundary_ns)
        self._opens[PERIOD] = _Open(boundary_ns)
        self._estimator.start_energy(PERIOD)

    def pause(self) -> None:
        """Before a gap: what was told so far is kept, and what a gap might add is not."""
        self._bank(TOTAL)
        self._bank(PERIOD)

    def resume(self, at_ns: int) -> None:
        """After a gap: in the period of this time; those in between have no heat."""
        start_ns = align_down_ns(at_ns, self._period_s)
        begun_ns = self._opens[PERIOD].start_ns
        if start_ns != begun_ns:
            self._shut(begun_ns + self._grid_ns)
            self._skip(begun_ns + self._grid_ns, start_ns)
            self._opens[PERIOD] = _Open(start_ns)
        self._last_ns = at_ns
        self._start()

    def close(self) -> None:
        """Ends all accounts at the last row."""
        if not self._opens:
            return
        self.pause()
        if self._opens[PERIOD].seen_ns or not self._closed:
            self._shut(self.boundary_ns())
        one = self._opens[TOTAL]
        self.total = self._span(one, one.start_ns, self._last_ns)
        if self._is_omitted:
            self.total = replace(self.total, flags=(*self.total.flags, PERIODS_OMITTED))
        self._reconcile()

    def _start(self) -> None:
        for name in (TOTAL, PERIOD):
            self._estimator.start_energy(name)

    def _bank(self, name: str) -> None:
        one, found = self._opens[name], self._estimator.energy(name)
        one.heat_wh += found.heat_wh
        # What errs before a gap errs after it, too: doubts add up.
        one.heat_wh_u += found.heat_wh_u

    def _shut(self, end_ns: int) -> None:
        one = self._opens[PERIOD]
        self._closed.append(self._span(one, one.start_ns, end_ns))

    def _skip(self, start_ns: int, end_ns: int) -> None:
        count = (end_ns - start_ns) // self._grid_ns
        self._is_omitted = self._is_omitted or count > _MOST_EMPTY
        for number in range(count if count <= _MOST_EMPTY else 0):
            begun_ns = start_ns + number * self._grid_ns
            self._closed.append(self._span(_Open(begun_ns), begun_ns, begun_ns + self._grid_ns))

    def _span(self, one: _Open, start_ns: int, end_ns: int) -> Span:
        coverage_frac = one.seen_ns / (end_ns - start_ns) if end_ns > start_ns else 0.0
        is_told = one.seen_ns > 0
        mark = () if coverage_frac >= 1.0 else (PARTIAL,) if is_told else (NO_HEAT,)
        return Span(
            start_ns=start_ns,
            end_ns=end_ns,
            heat_wh=one.heat_wh if is_told else None,
            heat_wh_u=one.heat_wh_u if is_told else None,
            quality=one.quality if is_told else None,
            coverage_frac=coverage_frac,
            flags=(*one.flags, *mark),
        )

    def _reconcile(self) -> None:
        if self.total.heat_wh is None:
            return
        told = [span.heat_wh or 0.0 for span in self._closed]
        doubts = [span.heat_wh_u or 0.0 for span in self._closed]
        left_wh, doubt_wh = self.total.heat_wh - sum(told), sum(doubts)
        if doubt_wh <= 0.0:
            return
        self._closed = [
            span
            if span.heat_wh is None
            else replace(span, heat_wh=span.heat_wh + left_wh * (span.heat_wh_u or 0.0) / doubt_wh)
            for span in self._closed
        ]
