"""Totals counted while the saved ones could not be read: in the end as if they had been there."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.ledger import Account, Ledger, Page, merged
from heatpool_agent.core.provisional import ProvisionalLedger
from heatpool_agent.core.reading import Node, Reading, ReadingKind

S = 1_000_000_000
KEY = ("cpu", "powercap/intel-rapl:0")
LIVES = ("a", "b")


def zone(raw_uj: int, boot_s: int, *, boot: str) -> Reading:
    return Reading(
        sensor=KEY[0],
        channel=KEY[1],
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=raw_uj / 1e6,
        event_ns=(1_750_000_000 + boot_s) * S,
        boot_ns=boot_s * S,
        node=Node.PACKAGE,
        raw=raw_uj,
        exponent=-6,
        modulus=2**32,
        generation=boot,
    )


def counted(ledger: Ledger, counts_uj: list[int], *, boot: str, from_s: int) -> None:
    for at, raw in enumerate(counts_uj):
        ledger.take(KEY[0], [zone(raw, from_s + at, boot=boot)])


def account(ledger: Ledger) -> Account:
    found = ledger.account(*KEY)
    assert found is not None
    return found


COUNTS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8)


@given(COUNTS, COUNTS, COUNTS, st.sampled_from(LIVES))
def test_reading_the_saved_ledger_late_changes_no_total(
    before: list[int], missed: list[int], after: list[int], boot: str
) -> None:
    earlier = Ledger(boot_id="a")
    counted(earlier, before, boot="a", from_s=10)
    saved = earlier.page()
    punctual = Ledger(saved, boot_id=boot)
    late = ProvisionalLedger(boot_id=boot)
    for ledger in (punctual, late):
        counted(ledger, missed, boot=boot, from_s=100)
    waiting = late.page()
    page = late.rebase(saved, waiting)
    for ledger in (punctual, late):
        counted(ledger, after, boot=boot, from_s=200)
    mine, due = account(late), account(punctual)
    assert replace(mine.total, generation="") == replace(due.total, generation="")
    assert mine.gaps_count == due.gaps_count
    told = merged(page, late.page(), most_count=1_000)
    numbers = [gap.number for gap in told.gaps if gap.number > account(earlier).gaps_count]
    assert sorted({*numbers}) == list(range(account(earlier).gaps_count + 1, mine.gaps_count + 1))


@given(COUNTS, COUNTS)
def test_what_could_be_read_is_not_added_twice(before: list[int], missed: list[int]) -> None:
    earlier = Ledger(boot_id="a")
    counted(earlier, before, boot="a", from_s=10)
    saved = earlier.page()
    late = ProvisionalLedger(saved, boot_id="a")
    counted(late, missed, boot="a", from_s=100)
    total, waiting = account(late).total, late.page()
    assert late.rebase(saved, waiting) == waiting
    assert account(late).total == total


def test_a_counter_that_was_not_read_meanwhile_keeps_what_was_saved() -> None:
    earlier = Ledger(boot_id="a")
    counted(earlier, [0, 5_000_000], boot="a", from_s=10)
    late = ProvisionalLedger(boot_id="a")
    page = late.rebase(earlier.page(), Page())
    assert page.accounts == ()
    assert account(late).total.total_j == 5
