"""Where most sites agree with each other and not with us, it is our clock: held, then right."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.aggregator.far_clock import NOON_NS, NS, FarClock, Taken

from heatpool.sample import SiteId
from heatpool_aggregator.core.admission import HOLD_NS
from heatpool_aggregator.core.own_clock import HEARD_NS, JUDGES_COUNT, OwnClock
from heatpool_aggregator.ports import Frame

HALF_DAY_NS = 43_200 * NS
SITES = [SiteId(f"site-{place}") for place in range(9)]
FAR_NS = st.one_of(
    st.integers(HOLD_NS + 400 * NS, 10 * 86_400 * NS),
    st.integers(-10 * 86_400 * NS, -HOLD_NS - 400 * NS),
)


@dataclass(slots=True)
class Life:
    """Our clock, which is `error_ns` ahead, and sites whose clocks are off by `off_ns`."""

    own: OwnClock = field(default_factory=OwnClock)
    at_ns: int = NOON_NS
    error_ns: int = 0
    off_ns: dict[SiteId, int] = field(default_factory=dict)

    def hears(self, *sites: SiteId) -> None:
        for site_id in sites:
            self.at_ns += 5 * NS
            offset_ns = self.error_ns - self.off_ns.get(site_id, 0) + NS // 5
            received_ns = self.at_ns + self.error_ns
            if abs(offset_ns) > HOLD_NS:
                self.own.far(site_id, received_ns, offset_ns)
            else:
                self.own.near(site_id, received_ns)


@given(st.integers(1, 9), st.lists(FAR_NS, max_size=9), st.permutations(SITES))
def test_a_minority_is_never_believed(count: int, off_ns: list[int], order: list[SiteId]) -> None:
    off = dict(zip(order, off_ns[: (count - 1) // 2], strict=False))
    life = Life(off_ns=off)
    # The sites that are right come first: nobody can tell before most are there.
    members = sorted(order[:count], key=off.__contains__)
    for _ in range(3):
        life.hears(*members)
        assert not life.own.is_suspect


@given(FAR_NS, st.integers(JUDGES_COUNT, 9), st.booleans())
def test_where_all_say_it_our_clock_is_suspect_and_right_again_by_itself(
    error_ns: int,
    count: int,
    is_seen: bool,  # noqa: FBT001  # drawn
) -> None:
    life, sites = Life(), SITES[:count]
    life.hears(*sites)
    life.error_ns = error_ns
    if is_seen:
        life.own.stepped(error_ns)
        assert life.own.is_suspect
    life.hears(*sites[:1])
    assert life.own.is_suspect
    life.hears(*sites, *sites)
    assert life.own.error_ns is not None
    assert abs(life.own.error_ns - error_ns) <= NS
    life.own = OwnClock.from_list(life.own.to_list())
    life.error_ns = 0
    life.hears(*sites[: count // 2])
    assert life.own.is_suspect
    life.hears(*sites[count // 2 :])
    assert not life.own.is_suspect


@given(st.lists(FAR_NS, min_size=2, max_size=2), FAR_NS)
def test_fewer_than_three_are_no_majority(off_ns: list[int], step_ns: int) -> None:
    life = Life(off_ns=dict(zip(SITES, off_ns, strict=False)))
    life.hears(*SITES[:2], *SITES[:2])
    life.own.stepped(step_ns)
    life.error_ns = step_ns
    life.hears(*SITES[:2])
    assert not life.own.is_suspect


@given(st.lists(FAR_NS, min_size=3, max_size=9, unique_by=lambda ns: ns // (2 * HOLD_NS)))
def test_sites_that_disagree_with_each_other_say_nothing_of_us(off_ns: list[int]) -> None:
    apart = [ns for ns in off_ns if all(ns == o or abs(ns - o) > HOLD_NS for o in off_ns)]
    life = Life(off_ns=dict(zip(SITES, apart, strict=False)))
    life.hears(*SITES[: len(apart)] * 3)
    assert life.own.error_ns is None


def test_who_was_not_heard_for_an_hour_has_no_voice() -> None:
    life = Life()
    life.hears(*SITES)
    life.off_ns = dict.fromkeys(SITES[:3], HALF_DAY_NS)
    life.hears(*SITES[:3])
    assert not life.own.is_suspect
    for _ in range(2 * HEARD_NS // (300 * NS)):
        life.at_ns += 285 * NS
        life.hears(*SITES[:3])
    assert life.own.error_ns is not None


def test_half_of_the_sites_are_no_majority() -> None:
    life = Life(off_ns=dict.fromkeys(SITES[:3], HALF_DAY_NS))
    life.hears(*SITES[3:6], *SITES[:3])
    assert not life.own.is_suspect
    life.hears(SITES[0])
    assert not life.own.is_suspect


def test_what_was_said_more_than_an_hour_ago_supports_nobody() -> None:
    life = Life(off_ns=dict.fromkeys(SITES[:3], HALF_DAY_NS))
    life.hears(*SITES[3:7], *SITES[:2])
    for _ in range(2 * HEARD_NS // (300 * NS)):
        life.at_ns += 280 * NS
        life.hears(*SITES[3:7])
    life.hears(SITES[2])
    assert not life.own.is_suspect


def test_a_restart_forgets_no_voice() -> None:
    life = Life(error_ns=HALF_DAY_NS)
    life.hears(*SITES[:2])
    life.own = OwnClock.from_list(life.own.to_list())
    assert not life.own.is_suspect
    life.hears(SITES[2])
    assert life.own.error_ns is not None


def test_sites_that_stay_away_for_an_hour_do_not_keep_our_clock_suspect() -> None:
    life = Life()
    life.hears(*SITES)
    life.own.stepped(HALF_DAY_NS)
    life.error_ns = HALF_DAY_NS
    life.hears(*SITES[:5])
    assert life.own.error_ns is not None
    life.off_ns = dict.fromkeys(SITES[:4], HALF_DAY_NS)  # these agree with us since
    for _ in range(HEARD_NS // (300 * NS) + 2):
        life.at_ns += 280 * NS
        life.hears(*SITES[:4])
    assert not life.own.is_suspect


def test_the_message_that_waited_least_says_how_far_off_our_clock_was() -> None:
    own, at_ns = OwnClock(), NOON_NS
    for delay_s in (9, 4, 6, 8):
        for site_id in SITES[:3]:
            at_ns += NS
            own.far(site_id, at_ns + HALF_DAY_NS, HALF_DAY_NS + delay_s * NS)
    told = [own.near(site_id, at_ns + (2 + n) * NS) for n, site_id in enumerate(SITES[:3])]
    (mistake,) = next(one for one in told if one is not None).values()
    assert mistake.error_ns == HALF_DAY_NS + 4 * NS


def test_a_step_that_nobody_judges_within_an_hour_is_trusted() -> None:
    life = Life()
    life.hears(*SITES)
    life.own.stepped(HALF_DAY_NS)
    began_ns = life.own.last_ns
    assert life.own.judged(began_ns + HEARD_NS) is None
    assert life.own.is_suspect
    assert life.own.judged(began_ns + HEARD_NS + 1) is not None
    assert not life.own.is_suspect


# What becomes of the rows: sites with true clocks, or one that is off itself.

CHANGE = st.tuples(
    st.sampled_from([0, HALF_DAY_NS, -HALF_DAY_NS, 3_600 * NS, -86_400 * NS]), st.integers(1, 12)
)


@dataclass(slots=True)
class Fleet:
    """Sites with one aggregator; only its clock is wrong by more than what is the site's own."""

    taken: Taken
    sites: list[FarClock]
    error_ns: int = 0

    @classmethod
    def of(cls, count: int, taken: Taken, *, off_s: float = 0.0) -> "Fleet":
        fleet = cls(taken, [])
        for place in range(count):
            site_id = SiteId(f"site-{place}")

            def sent(frame: Frame, site_id: SiteId = site_id) -> None:
                received_ns = frame.received_ns + fleet.error_ns
                taken.take(frame._replace(site_id=site_id, received_ns=received_ns))

            fleet.sites.append(FarClock(sent))
        fleet.sites[-1].error_s = off_s
        for site in fleet.sites:
            site.hello()
        return fleet

    def run(self, minutes: int) -> None:
        for _ in range(minutes):
            for site in self.sites:
                site.run(1)

    def check(self) -> None:
        self.taken.apply()
        effects = self.taken.effects
        assert [refusal.detail for refusal in effects.refusals] == []
        for place, site in enumerate(self.sites):
            site_id = f"site-{place}"
            own = Taken()
            own.effects.chunks = [c for c in effects.chunks if c.site_id == site_id]
            own.effects.registers = [r for r in effects.registers if r.site_id == site_id]
            for kind in {one.kind for one in site.made}:
                found = own.times_ns(kind)
                made = [one for one in site.made if one.kind is kind]
                assert sorted(found) == [one.seq for one in made]
                for one in made:
                    pairs = zip(found[one.seq], one.true_ns, strict=True)
                    off_ns = [shown - true for shown, true in pairs]
                    assert max(map(abs, off_ns)) <= NS, (site_id, kind.name, one.seq, off_ns)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(3, 5),
    st.lists(CHANGE, min_size=1, max_size=3),
    st.sampled_from([1, 7, 40]),
    st.sampled_from([0.0, -3 * 86_400.0]),
)
def test_whatever_our_clock_does_rows_end_where_they_belong(
    count: int, changes: list[tuple[int, int]], at_once: int, off_s: float
) -> None:
    fleet = Fleet.of(count, Taken(at_once=at_once), off_s=off_s)
    fleet.run(16)
    for error_ns, minutes in changes:
        fleet.error_ns = error_ns
        fleet.run(minutes)
    fleet.error_ns = 0
    fleet.run(6)
    fleet.check()
    assert not fleet.taken.state.own_clock.is_suspect
    # A site with a true clock is one like others again: it has its course no longer.
    assert len(fleet.taken.state.courses) == (off_s != 0.0)
    # What is wrong with ours is not said of theirs.
    told = {event.site_id for event in fleet.taken.effects.events if event.name == "clock"}
    assert told == ({f"site-{count - 1}"} if off_s else set())


@pytest.mark.parametrize("error_s", [43_200.0, -43_200.0])
def test_sites_that_were_all_set_wrong_are_corrected_once_they_are_right(error_s: float) -> None:
    fleet = Fleet.of(3, Taken())
    fleet.run(16)
    for site in fleet.sites:
        site.error_s = error_s
    fleet.run(10)
    assert fleet.taken.state.own_clock.error_ns is not None
    for site in fleet.sites:
        site.error_s = 0.0
    fleet.run(10)
    fleet.check()


def test_sites_that_were_set_right_in_a_silence_were_wrong_and_not_we() -> None:
    fleet = Fleet.of(3, Taken())
    fleet.run(16)
    for site in fleet.sites:
        site.error_s = 43_200.0
    fleet.run(10)
    assert fleet.taken.state.own_clock.error_ns is not None
    for site in fleet.sites:
        site.error_s = 0.0
        site.at_ns += 7_200 * NS
    fleet.run(10)
    fleet.check()


def test_what_finds_no_room_while_our_clock_is_suspect_is_refused_by_name() -> None:
    fleet = Fleet.of(3, Taken())
    fleet.run(10)
    fleet.error_ns = HALF_DAY_NS
    fleet.run(70)
    refusals = fleet.taken.effects.refusals
    assert {refusal.reason.name for refusal in refusals} == {"CLOCK"}
    assert all("own clock" in refusal.detail for refusal in refusals)
