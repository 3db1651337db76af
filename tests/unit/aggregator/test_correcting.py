"""Clocks that are far off: every row is there once, in order, at its true time; raw times stay."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.aggregator.far_clock import NS, SITE, FarClock, Taken

from heatpool.sample import BootId
from heatpool_aggregator.core.admission import BOOTS_LIMIT
from heatpool_aggregator.core.chunk import chunk_from_bytes
from heatpool_aggregator.core.course import HELD_BYTES, HELD_LIMIT, Course, End, HeldFrame
from heatpool_aggregator.core.registers import CorrectedRow
from heatpool_aggregator.ports import FrameKind

WITHIN_NS = NS  # corrected within 1 s
HALF_DAY_S, DAY_S = 43_200.0, 86_400.0
ERRORS_S = (0.0, HALF_DAY_S, -HALF_DAY_S, DAY_S, -3 * DAY_S, 3 * DAY_S, 1_300.0, -1_300.0)


def check(site: FarClock, taken: Taken) -> None:
    """Nothing is lost, doubled, out of order, or at another time than it was."""
    taken.apply()
    assert [refusal.detail for refusal in taken.effects.refusals] == []
    for kind in (FrameKind.TELEMETRY, FrameKind.BILLING):
        found = taken.times_ns(kind)
        made = [one for one in site.made if one.kind is kind]
        assert sorted(found) == [one.seq for one in made]
        for one in made:
            off_ns = [t - w for t, w in zip(found[one.seq], one.true_ns, strict=True)]
            assert max(map(abs, off_ns)) <= WITHIN_NS, (kind.name, one.seq, off_ns)
        times_ns = [ns for seq in sorted(found) for ns in found[seq]]
        assert times_ns == sorted(times_ns)


# Minutes without a line before and after the clock is set, and with one.
CHANGE = st.tuples(
    st.sampled_from(ERRORS_S),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(4, 20),
)


def lived(
    site: FarClock, first_s: float, minutes: int, changes: list[tuple[float, int, int, int]]
) -> None:
    """A life with these changes of clock and line; in the end all is sent."""
    site.hello()
    site.error_s = first_s
    site.run(minutes)
    for error_s, before, after, then in changes:
        site.is_cut = before + after > 0
        site.run(before)
        site.error_s = error_s
        site.run(after)
        site.is_cut = False
        site.run(then)
    site.drain()


# The same lives each time: a clock that is off by just the time without a line fools anybody.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(ERRORS_S),
    st.integers(3, 20),
    st.lists(CHANGE, max_size=4),
    st.booleans(),
    st.sampled_from([1, 7, 40]),
)
def test_whatever_a_clock_does_each_row_is_there_once_at_its_time(
    first_s: float,
    minutes: int,
    changes: list[tuple[float, int, int, int]],
    is_live_first: bool,  # noqa: FBT001  # drawn
    at_once: int,
) -> None:
    taken = Taken(at_once=at_once)
    site = FarClock(taken.take, is_live_first=is_live_first)
    lived(site, first_s, minutes, changes)
    check(site, taken)


@pytest.mark.parametrize("error_s", [HALF_DAY_S, -HALF_DAY_S, 3 * DAY_S, -3 * DAY_S, -1.7e9 + 60])
def test_a_clock_that_is_off_from_the_start_is_held_until_three_agree(error_s: float) -> None:
    taken = Taken()
    site = FarClock(taken.take, error_s=error_s)
    site.hello()
    site.run(2)
    assert (taken.effects.chunks, taken.state.live.slots) == ([], {})
    assert len(taken.state.courses[SITE].held) == 2
    site.run(20)
    assert taken.state.courses[SITE].held == []
    check(site, taken)
    words = [event.detail for event in taken.effects.events if event.name == "clock"]
    assert ['"is_held":true' in word for word in words] == [True, False]


def test_what_the_site_said_is_kept_beside_what_was_made_of_it() -> None:
    taken = Taken()
    site = FarClock(taken.take, error_s=HALF_DAY_S)
    site.hello()
    site.run(16)
    chunk, row = taken.effects.chunks[0], taken.effects.registers[0].row
    assert chunk_from_bytes(chunk.blob).times_ns.tolist() == site.made[0].shown_ns
    assert isinstance(row, CorrectedRow)
    billing = next(one for one in site.made if one.kind is FrameKind.BILLING)
    assert row.event_ns - row.offset_ns == billing.shown_ns[0]


@pytest.mark.parametrize("minutes", [1, 2])
def test_a_clock_that_is_off_too_short_to_agree_on_loses_nothing(minutes: int) -> None:
    for error_s in ERRORS_S[1:]:
        taken = Taken()
        site = FarClock(taken.take)
        site.hello()
        site.run(10)
        site.error_s = error_s
        site.run(minutes)
        site.error_s = 0.0
        site.run(5)
        check(site, taken)


def test_rows_between_which_the_clock_was_set_have_each_its_own_shift() -> None:
    taken = Taken()
    site = FarClock(taken.take)
    site.hello()
    site.run(4)
    site.is_cut = True
    site.run(1)
    one = site.waiting[-1]
    one.shown_ns[3:] = [ns + round(HALF_DAY_S * NS) for ns in one.shown_ns[3:]]
    site.error_s, site.is_cut = HALF_DAY_S, False
    site.run(5)
    check(site, taken)
    assert [event.name for event in taken.effects.events].count("clock_set") == 1


def test_a_clock_on_which_no_three_agree_is_refused_and_costs_no_memory() -> None:
    taken = Taken()
    site = FarClock(taken.take)
    site.hello()
    for minute in range(3 * HELD_LIMIT):
        site.error_s = 3_600.0 * (minute + 1)
        site.run(1)
    held = taken.state.courses[SITE].held
    assert len(held) == HELD_LIMIT
    assert taken.effects.chunks == []
    assert {refusal.reason.name for refusal in taken.effects.refusals} == {"CLOCK"}
    assert len(taken.effects.refusals) + len(held) == len(site.made)


def test_a_site_that_has_been_right_for_a_week_is_a_site_like_others() -> None:
    taken = Taken()
    site = FarClock(taken.take, error_s=HALF_DAY_S)
    site.hello()
    site.run(5)
    site.error_s = 0.0
    site.run(5)
    assert SITE in taken.state.courses
    site.at_ns += 8 * round(DAY_S) * NS
    site.run(2)
    assert SITE not in taken.state.courses
    check(site, taken)


def test_a_site_with_a_new_boot_id_for_each_frame_costs_no_memory() -> None:
    course = Course()
    for number in range(3 * BOOTS_LIMIT):
        course.passed(BootId("used"), End(number, 0, 0, 0))
        course.passed(BootId(f"b{number}"), End(1, 0, 0, 0))
    assert len(course.ends) == BOOTS_LIMIT
    assert {BootId("used"), BootId(f"b{3 * BOOTS_LIMIT - 1}")} <= course.ends.keys()


def test_large_frames_that_are_held_cost_no_more_than_many_small_ones() -> None:
    course = Course()
    payload = bytes(HELD_BYTES // 4)
    gone = []
    for seq in range(9):
        one = HeldFrame(BootId("b"), int(FrameKind.TELEMETRY), seq, 0, payload, 0)
        gone += [frame.seq for frame in course.hold(one)]
    assert ([frame.seq for frame in course.held], gone) == ([5, 6, 7, 8], [0, 1, 2, 3, 4])
