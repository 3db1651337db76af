"""The ledger of a site whose saved totals could not be read: they are added once they can be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heatpool_agent.core.ledger import Account, GapRecord, Key, Ledger, Page
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.totals import Step

_UJ_PER_J = 1_000_000


@dataclass(frozen=True, slots=True)
class _First:
    """A counter's first reading, and what it made of the account."""

    reading: Reading
    rated_w: float | None
    account: Account


class ProvisionalLedger(Ledger):
    """Counts from what was read at the start, and remembers where each counter stood first."""

    def __init__(self, saved: Page | None = None, *, boot_id: str = "") -> None:
        super().__init__(saved, boot_id=boot_id)
        self._begun = saved or Page()
        self._firsts: dict[Key, _First] = {}

    def _take(self, key: Key, reading: Reading, rated_w: float | None) -> Step:
        step = super()._take(key, reading, rated_w)
        if key in self._read and key not in self._firsts:
            self._firsts[key] = _First(reading, rated_w, self._accounts[key])
        return step

    def rebase(self, saved: Page, waiting: Page | None) -> Page:
        """The page to be saved now that the saved ledger is known: totals of both, J, added.

        Each counter goes from its saved account to its first reading here, as at any start, and
        from there on by what was counted meanwhile. `waiting` is what no disk took yet.
        """
        waiting = waiting or Page()
        if saved.accounts == self._begun.accounts:
            return waiting
        true = Ledger(saved, boot_id=self._boot_id)
        true._steps, true._clock = self._steps, self._clock
        found: list[GapRecord] = []
        for key, first in self._firsts.items():
            true._take(key, first.reading, first.rated_w)
            base = true._accounts[key]
            found += self._shift(key, first.account, base, waiting.gaps)
            if key not in self._open and key in true._open:
                self._open[key] = true._open[key]
        own = {key: self._accounts[key] for key in self._firsts}
        self._accounts = {**true._accounts, **own}
        return replace(
            waiting, accounts=tuple(own.values()), gaps=(*true._new_gaps.values(), *found)
        )

    def _shift(
        self, key: Key, mine: Account, base: Account, gaps: Sequence[GapRecord]
    ) -> list[GapRecord]:
        """Moves an account from one first reading to another; its gaps since, renumbered."""
        shift = base.gaps_count - mine.gaps_count
        self._accounts[key] = _moved(self._accounts[key], mine, base)
        if (opened := self._open.pop(key, None)) and opened.record.number > mine.gaps_count:
            record = replace(opened.record, number=opened.record.number + shift)
            self._open[key] = replace(opened, record=record)
        # One that the first reading opened was against the wrong account.
        return [
            replace(gap, number=gap.number + shift)
            for gap in gaps
            if (gap.sensor, gap.channel) == key and gap.number > mine.gaps_count
        ]


def _moved(account: Account, mine: Account, base: Account) -> Account:
    carry_j, uj = divmod(
        account.total.total_uj - mine.total.total_uj + base.total.total_uj, _UJ_PER_J
    )
    total_j = account.total.total_j - mine.total.total_j + base.total.total_j + carry_j
    return replace(
        account,
        total=replace(account.total, total_j=total_j, total_uj=uj),
        gaps_count=account.gaps_count - mine.gaps_count + base.gaps_count,
        gaps_j=account.gaps_j - mine.gaps_j + base.gaps_j,
        gaps_j_u=max(0.0, account.gaps_j_u - mine.gaps_j_u + base.gaps_j_u),
    )
