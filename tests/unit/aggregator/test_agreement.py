"""Prices: rounded once, half to even, exact; and whose heat a span of time is."""

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import LedgerError
from heatpool.period import Period
from heatpool.sample import AgreementId, SiteId, VirtualSourceId
from heatpool_aggregator.config import Agreement, Member, VirtualSource
from heatpool_aggregator.core.agreement import (
    Membership,
    Terms,
    instant_ns,
    memberships,
    price,
    spans,
)


def terms(price_eur_mwh: str = "45.00", round_eur: str = "0.01") -> Terms:
    return Terms(
        agreement_id=AgreementId("hpa-1"),
        price_eur_mwh=Decimal(price_eur_mwh),
        round_eur=Decimal(round_eur),
    )


def member(source: str, from_ns: int | None, until_ns: int | None) -> Membership:
    return Membership(
        virtual_source_id=VirtualSourceId(source),
        site_id=SiteId("site-1"),
        from_ns=from_ns,
        until_ns=until_ns,
        terms=terms(),
    )


@pytest.mark.parametrize(
    ("energy_wh", "price_eur_mwh", "round_eur", "amount_eur"),
    [
        (1_000_000, "45.00", "0.01", "45.00"),
        (0, "45.00", "0.01", "0.00"),
        (5_000, "1", "0.01", "0.00"),  # half a cent goes to the even cent below
        (15_000, "1", "0.01", "0.02"),  # and here to the even cent above
        (5_001, "1", "0.01", "0.01"),
        (1_000_000, "-3.335", "0.01", "-3.34"),  # a negative price pays the buyer
        (1_000_000, "-3.345", "0.01", "-3.34"),
        (1_234_567, "61.37", "0.05", "75.75"),
        (1, "45.00", "0.000001", "0.000045"),
        (999_999_999_999, "12345.6789", "0.0001", "12345678899.9877"),
    ],
)
def test_an_amount_is_rounded_once_half_to_even(
    energy_wh: int, price_eur_mwh: str, round_eur: str, amount_eur: str
) -> None:
    amount = price(energy_wh, terms(price_eur_mwh, round_eur))
    assert format(amount, "f") == amount_eur


@given(
    energy_wh=st.integers(0, 10**13),
    price_eur_mwh=st.decimals(-500, 5000, places=4),
    round_eur=st.sampled_from(["0.01", "0.05", "0.0001", "1"]),
)
def test_an_amount_is_off_by_half_a_step_at_most(
    energy_wh: int, price_eur_mwh: Decimal, round_eur: str
) -> None:
    exact = Fraction(price_eur_mwh) * energy_wh / 10**6
    amount = price(energy_wh, terms(str(price_eur_mwh), round_eur))
    assert abs(Fraction(amount) - exact) <= Fraction(round_eur) / 2
    assert Fraction(amount) % Fraction(round_eur) == 0


@given(energies_wh=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_amounts_of_parts_differ_from_the_whole_by_rounding_alone(energies_wh: list[int]) -> None:
    whole = price(sum(energies_wh), terms())
    parts = sum((price(energy_wh, terms()) for energy_wh in energies_wh), Decimal(0))
    assert abs(whole - parts) <= Decimal("0.005") * (len(energies_wh) + 1)


def test_an_amount_does_not_depend_on_the_decimal_context() -> None:
    with localcontext() as context:
        context.prec = 28
        plain = price(123_456_789, terms("61.37"))
        context.prec = 12
        assert price(123_456_789, terms("61.37")) == plain


def test_a_rounding_step_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="round_eur is 0"):
        price(1, terms(round_eur="0"))


def test_an_instant_is_exact_to_the_microsecond() -> None:
    at = datetime(2026, 3, 29, 1, 0, 0, 123457, tzinfo=UTC)
    assert instant_ns(at) == 1_774_746_000_123_457_000


def test_settings_become_memberships() -> None:
    source = VirtualSource(
        id="vs-1",
        kind="greenhouse",
        agreement=Agreement(id="hpa-1", price_eur_mwh=Decimal("45.00")),
        member=(Member(site_id="site-1", from_=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),),
    )
    assert memberships([source]) == (member("vs-1", 1_000_000_000, None),)


def test_a_period_is_split_where_membership_changes() -> None:
    members = [member("vs-2", 60, None), member("vs-1", None, 60)]
    found = spans(members, SiteId("site-1"), Period(start_ns=0, end_ns=100))
    assert [(part.start_ns, part.end_ns, who.virtual_source_id) for part, who in found] == [
        (0, 60, "vs-1"),
        (60, 100, "vs-2"),
    ]


def test_time_without_membership_belongs_to_nobody() -> None:
    members = [member("vs-1", 20, 40)]
    assert spans(members, SiteId("site-2"), Period(start_ns=0, end_ns=100)) == ()
    assert spans(members, SiteId("site-1"), Period(start_ns=40, end_ns=100)) == ()


def test_no_heat_is_sold_twice() -> None:
    members = [member("vs-1", None, 61), member("vs-2", 60, None)]
    with pytest.raises(LedgerError, match="vs-1 and of vs-2 at once"):
        spans(members, SiteId("site-1"), Period(start_ns=0, end_ns=100))
