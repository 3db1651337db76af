"""Accounts: posting is idempotent, corrections are reversing entries, three counts are compared."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from heatpool.period import Period
from heatpool.sample import AgreementId, MeterId, MeteringPointId, SiteId, VirtualSourceId
from heatpool_aggregator.core.settlement import (
    LedgerEntry,
    PeriodBalance,
    StatementLine,
    posted_wh,
    reconcile,
    standing_lines,
    statement,
    worst_balance,
)

S = 10**9
SITE = SiteId("site-1")
HOUR = Period(start_ns=0, end_ns=3600 * S)
NEXT_HOUR = Period(start_ns=3600 * S, end_ns=7200 * S)
LINE = StatementLine(
    virtual_source_id=VirtualSourceId("vs-1"),
    site_id=SITE,
    metering_point_id=MeteringPointId("meter"),
    meter_id=MeterId("old"),
    register_open_wh=0,
    register_close_wh=10,
    energy_wh=10,
    price_eur_mwh="45.00",
    amount_eur="0.00",
    agreement_id=AgreementId("hpa-1"),
)


def test_settling_again_posts_nothing_new() -> None:
    settled = [LINE]
    entries = reconcile([], settled, period=HOUR, posted_ns=1)
    assert [entry.key for entry in entries] == ["0/3600000000000/vs-1/site-1/meter/old/0/0"]
    assert reconcile(entries, settled, period=HOUR, posted_ns=2) == ()


def test_a_changed_line_is_reversed_and_posted_anew() -> None:
    first = reconcile([], [replace(LINE, energy_wh=5)], period=HOUR, posted_ns=1)
    late = (replace(LINE, energy_wh=8),)
    second = reconcile(first, late, period=HOUR, posted_ns=2, reason="late register")
    assert [(entry.sign, entry.line.energy_wh) for entry in second] == [(-1, 5), (1, 8)]
    assert second[0].key == first[0].key + "/reversal"
    assert second[1].key.endswith("/1")
    assert "late register; reverses 0/3600000000000/vs-1" in second[0].reason
    assert posted_wh([*first, *second]) == 8
    assert standing_lines([*first, *second]) == late


def test_a_line_that_no_longer_holds_is_only_reversed() -> None:
    first = reconcile([], [LINE], period=HOUR, posted_ns=1)
    second = reconcile(first, [], period=HOUR, posted_ns=2)
    assert [entry.sign for entry in second] == [-1]
    third = reconcile([*first, *second], [first[0].line], period=HOUR, posted_ns=3)
    assert [entry.key for entry in third] == ["0/3600000000000/vs-1/site-1/meter/old/0/1"]


@given(versions=st.lists(st.lists(st.integers(0, 3), max_size=4, unique=True), max_size=6))
def test_whatever_was_posted_the_last_version_stands(versions: list[list[int]]) -> None:
    entries: tuple[LedgerEntry, ...] = ()
    wanted: list[StatementLine] = []
    for posted_ns, version in enumerate(versions):
        wanted = [
            replace(LINE, meter_id=MeterId(f"m{n}"), energy_wh=n * (posted_ns % 3)) for n in version
        ]
        entries += reconcile(entries, wanted, period=HOUR, posted_ns=posted_ns)
    assert set(standing_lines(entries)) == set(wanted)
    assert posted_wh(entries) == sum(line.energy_wh for line in wanted)
    assert len({entry.key for entry in entries}) == len(entries)


def test_names_with_strokes_do_not_run_into_each_other() -> None:
    odd = [
        replace(LINE, site_id=SiteId("a/b"), metering_point_id=MeteringPointId("c")),
        replace(LINE, site_id=SiteId("a"), metering_point_id=MeteringPointId("b/c")),
    ]
    entries = reconcile([], odd, period=HOUR, posted_ns=1)
    assert len({entry.key for entry in entries}) == 2


def test_a_statement_shows_its_own_period_alone() -> None:
    entries = reconcile([], [LINE], period=HOUR, posted_ns=1)
    elsewhere = statement(entries, period=NEXT_HOUR, missing=[(SITE, "late")])
    assert (elsewhere.lines, elsewhere.is_complete) == ((), False)
    here = statement(entries, period=HOUR)
    assert (len(here.lines), here.is_complete) == (1, True)


def test_the_worst_period_is_the_one_whose_counts_lie_furthest_apart() -> None:
    good = PeriodBalance(start_ns=0, end_ns=1, registers_wh=5, sources_wh=5, lines_wh=5)
    bad = PeriodBalance(start_ns=1, end_ns=2, registers_wh=7, sources_wh=5, lines_wh=6)
    assert worst_balance([good, bad]) == bad
    assert (good.error_wh, bad.error_wh) == (0, 2)
    assert worst_balance([]) is None
