"""Who was turned away is counted each time, told once, and in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from heatpool_aggregator.core import turned_away
from heatpool_aggregator.core.turned_away import Reason, TurnedAway


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Reason)))))
def test_each_one_is_counted_and_each_pair_told_once(calls: list[tuple[str, Reason]]) -> None:
    away = TurnedAway()
    told = [away.count(peer, reason, boot_ns=1) for peer, reason in calls]
    assert sum(away.counts.values()) == len(calls)
    assert sum(told) == len(set(calls))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_failed_handshakes_are_never_counted_too_many_and_none_is_forgotten(
    steps: list[tuple[bool, bool]],
) -> None:
    away, failed = TurnedAway(), 0
    for number, (is_good, is_settled) in enumerate(steps):
        away.handshakes_begun += 1
        if is_good:
            away.meet(f"host:{number}")
            away.meet(f"host:{number}")
        failed += not is_good
        if is_settled:
            away.settle_handshakes()
        assert away.counts[Reason.TLS] <= failed
    away.settle_handshakes()
    away.settle_handshakes()
    assert away.counts[Reason.TLS] == failed


def test_connections_met_are_kept_in_bounded_memory() -> None:
    away = TurnedAway()
    for number in range(turned_away.MET_LIMIT + 10):
        away.meet(f"host:{number}")
    assert len(away._met) == turned_away.MET_LIMIT
