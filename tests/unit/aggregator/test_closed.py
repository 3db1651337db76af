"""Closed lines keep their terms; a move between sources inside a period mixes up nothing."""

from dataclasses import replace
from decimal import Decimal

from heatpool.period import Period
from heatpool.sample import AgreementId, MeterId, MeteringPointId, SiteId, VirtualSourceId
from heatpool_aggregator.core.agreement import Membership, Terms
from heatpool_aggregator.core.closed import as_posted, left_over
from heatpool_aggregator.core.settlement import StatementLine

PERIOD = Period(start_ns=0, end_ns=900)
EARLY = StatementLine(
    virtual_source_id=VirtualSourceId("vs-2"),
    site_id=SiteId("site-1"),
    metering_point_id=MeteringPointId("meter"),
    meter_id=MeterId("m"),
    register_open_wh=0,
    register_close_wh=10**6,
    energy_wh=10**6,
    price_eur_mwh="45.00",
    amount_eur="45.00",
    agreement_id=AgreementId("old"),
)
LATE = replace(EARLY, virtual_source_id=VirtualSourceId("vs-1"), register_open_wh=10**6)


def member(source: str, start_ns: int | None, end_ns: int | None) -> Membership:
    return Membership(
        virtual_source_id=VirtualSourceId(source),
        site_id=SiteId("site-1"),
        from_ns=start_ns,
        until_ns=end_ns,
        terms=Terms(
            agreement_id=AgreementId("new"),
            price_eur_mwh=Decimal(99),
            round_eur=Decimal("0.01"),
        ),
    )


MEMBERS = [member("vs-2", None, 300), member("vs-1", 300, None)]


def test_a_move_inside_a_period_keeps_each_line_with_its_source() -> None:
    today = [replace(line, price_eur_mwh="99", amount_eur="99.00") for line in (EARLY, LATE)]
    found = as_posted(today, [LATE, EARLY], members=MEMBERS, period=PERIOD)
    assert found == (EARLY, LATE)


def test_other_energy_is_worth_the_posted_price() -> None:
    today = replace(EARLY, energy_wh=2 * 10**6, price_eur_mwh="99", amount_eur="198.00")
    found = as_posted([today], [EARLY], members=MEMBERS, period=PERIOD)
    assert [line.amount_eur for line in found] == ["90.00"]


def test_a_site_without_a_place_in_settings_keeps_its_lines() -> None:
    assert left_over([EARLY], [], PERIOD) == (EARLY,)
    assert left_over([EARLY], MEMBERS, PERIOD) == ()
