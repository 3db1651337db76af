"""A site that is taken over again and again is told of once; one that reconnects is not."""

import pytest

from heatpool.sample import SiteId
from heatpool_aggregator.core import contested
from heatpool_aggregator.core.contested import TAKEN_NS, TELL_AGAIN_NS, Contested

E1 = SiteId("e1")


def test_the_third_time_within_hours_is_told_and_counted_the_next_is_counted() -> None:
    seen = Contested()
    assert [seen.take_over(E1, number) for number in range(5)] == [False, False, True, False, False]
    assert seen.count(5) == 1
    assert seen.count(TAKEN_NS + 5) == 0


def test_a_line_that_broke_now_and_then_is_no_quarrel() -> None:
    seen = Contested()
    told = [seen.take_over(E1, number * TAKEN_NS) for number in range(9)]
    assert (any(told), seen.count(8 * TAKEN_NS)) == (False, 0)


def test_a_quarrel_that_goes_on_is_told_again_after_a_day() -> None:
    seen = Contested()
    step_ns = TAKEN_NS // 4
    times_ns = range(0, TELL_AGAIN_NS + 3 * step_ns, step_ns)
    assert sum(seen.take_over(E1, at_ns) for at_ns in times_ns) == 2


def test_what_is_remembered_is_bounded() -> None:
    seen = Contested()
    for number in range(3 * contested.SITES_LIMIT):
        for _ in range(3):
            seen.take_over(SiteId(f"site-{number}"), number)
    assert seen.count(0) == contested.SITES_LIMIT
    assert len(seen._told_ns) == contested.SITES_LIMIT


def test_a_site_that_goes_on_is_not_forgotten_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contested, "SITES_LIMIT", 3)
    seen = Contested()
    for number, name in enumerate(("e1", "a", "e1", "b", "c", "e1")):
        told = seen.take_over(SiteId(name), number)
    assert told
