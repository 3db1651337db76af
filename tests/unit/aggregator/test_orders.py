"""What may be ordered, and who decides; all of it without clocks and stores."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import SiteId
from heatpool_aggregator.core.arbitration import Rank, Wish, decides, upper_w
from heatpool_aggregator.core.orders import Ask, Order, ask_mistake, site_mistake

NS = 1_000_000_000
NOW_NS = 1_750_000_000 * NS
NAN, INF = float("nan"), float("inf")
ASK = Ask(site_id=SiteId("e1"), heat_rate_w=9_000.0, lease_s=60.0, reason="cold")
WISH = Wish(
    site_id=SiteId("e1"),
    plan_id="p",
    rank=Rank.STANDING,
    heat_rate_w=1.0,
    lease_s=60.0,
    reason="",
)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"heat_rate_w": NAN}, "heat_rate_w is no number"),
        ({"heat_rate_w": INF}, "heat_rate_w is no number"),
        ({"heat_rate_w": -1.0}, "only gives heat"),
        ({"lease_s": 29.0}, "must be 30 to 900"),
        ({"lease_s": 901.0}, "must be 30 to 900"),
        ({"lease_s": NAN}, "lease_s is no number"),
        ({"hot_c": 120.0}, "hot_c is 120"),
        ({"hot_c": NAN}, "hot_c is no number"),
        ({"reason": "  "}, "reason is missing"),
        ({"reason": "a\nb"}, "one line"),
        ({"reason": "x" * 999}, "one line"),
        ({"until_ns": 1}, "less than one lease"),
        ({"until_ns": NOW_NS + 59 * NS}, "less than one lease"),
        ({"until_ns": NOW_NS + 60 * NS}, ""),
        ({"until_ns": 2**63 - 1}, "must be at most 7"),
    ],
)
def test_an_order_is_checked_figure_by_figure(change: dict[str, Any], why: str) -> None:
    told = ask_mistake(replace(ASK, **change), now_ns=NOW_NS)
    assert (why in told) if why else not told


@pytest.mark.parametrize(
    ("change", "capacity_w", "loop_ids", "why"),
    [
        ({}, 9_000.0, ("rack",), ""),
        ({}, 8_999.0, ("rack",), "can take back 8999 W"),
        ({}, None, ("rack",), "has not said what it can reject"),
        ({"heat_rate_w": 0.0}, None, ("rack",), ""),
        ({"loop_id": "cellar"}, 9_000.0, ("rack",), "the site has rack"),
        ({}, 9_000.0, ("a", "b"), "loop_id is missing"),
        ({"loop_id": "b"}, 9_000.0, ("a", "b"), ""),
    ],
)
def test_an_order_is_held_against_what_the_site_said(
    change: dict[str, Any], capacity_w: float | None, loop_ids: tuple[str, ...], why: str
) -> None:
    told = site_mistake(replace(ASK, **change), rejection_capacity_w=capacity_w, loop_ids=loop_ids)
    assert (why in told) if why else not told


def test_an_order_stands_above_the_settings_while_it_lives() -> None:
    order = replace(WISH, rank=Rank.ORDER, ends_boot_ns=10)
    assert decides((WISH, order), boot_ns=9) == order
    assert decides((WISH, order), boot_ns=10) == WISH
    assert decides((None, None), boot_ns=0) is None


@given(bounds=st.lists(st.none() | st.floats(-1e6, 1e6), max_size=4))
def test_bounds_only_narrow_and_nothing_is_always_inside(bounds: list[float | None]) -> None:
    found = upper_w(replace(WISH, upper_w=bound) for bound in bounds)
    known = [bound for bound in bounds if bound is not None]
    assert (found is None) == (not known)
    if found is not None:
        assert found >= 0
        assert all(found <= max(bound, 0.0) for bound in known)


@given(asked_s=st.integers(60, 9_999), later_s=st.integers(-99_999, 99_999))
def test_no_clock_makes_an_order_longer_than_it_was_asked(asked_s: int, later_s: int) -> None:
    ask = replace(ASK, until_ns=NOW_NS + asked_s * NS)
    order = Order(ask=ask, number=1, asked_by="x", asked_ns=NOW_NS)
    wish = order.wish(boot_ns=0, now_ns=NOW_NS + later_s * NS)
    assert wish.ends_boot_ns is not None
    assert wish.ends_boot_ns <= asked_s * NS


@pytest.mark.parametrize(
    ("boot_s", "lease_s", "may_renew"), [(0, 60.0, True), (40, 60.0, True), (41, 59.0, False)]
)
def test_no_lease_reaches_beyond_the_end(boot_s: int, lease_s: float, *, may_renew: bool) -> None:
    wish = replace(WISH, ends_boot_ns=100 * NS)
    assert wish.fresh_lease_s(boot_s * NS) == lease_s
    assert wish.may_renew(boot_s * NS) is may_renew
    assert wish.fresh_lease_s(int(99.5 * NS)) is None
    assert not replace(wish, is_renewed=False).may_renew(0)
