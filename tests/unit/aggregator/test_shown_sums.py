"""Which sums a caller may see: laws over any sources, owners and callers."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import SiteId
from heatpool_aggregator.core.shown_sums import part_sources, whole_sources


@dataclass(frozen=True, slots=True)
class Who:
    site_id: str


@dataclass(frozen=True, slots=True)
class Source:
    id: str
    member: tuple[Who, ...]


SITES = st.sampled_from([f"s{n}" for n in range(6)])
SOURCES = st.lists(st.lists(SITES.map(Who), max_size=5).map(tuple), max_size=4).map(
    lambda found: [Source(f"v{n}", member) for n, member in enumerate(found)]
)


@given(sources=SOURCES, seen=st.frozensets(SITES))
def test_a_shown_sum_holds_nothing_that_is_not_seen(
    sources: list[Source], seen: frozenset[str]
) -> None:
    whole = whole_sources(sources, seen.__contains__)
    for source in sources:
        if source.id in whole:
            assert source.member and {who.site_id for who in source.member} <= seen


@given(sources=SOURCES, seen=st.frozensets(SITES))
def test_a_source_is_whole_part_or_not_there(sources: list[Source], seen: frozenset[str]) -> None:
    whole, part = (find(sources, seen.__contains__) for find in (whole_sources, part_sources))
    assert not whole & part
    has_part = {one.id for one in sources if any(who.site_id in seen for who in one.member)}
    assert whole | part == has_part


@given(sources=SOURCES, seen=st.frozensets(SITES), more=SITES)
def test_seeing_more_hides_no_sum(sources: list[Source], seen: frozenset[str], more: str) -> None:
    before = whole_sources(sources, seen.__contains__)
    assert before <= whole_sources(sources, (seen | {more}).__contains__)


def test_one_s_own_of_two_members_is_a_part() -> None:
    source = Source("v", (Who("mine"), Who("theirs")))
    assert whole_sources([source], lambda site: site == SiteId("mine")) == frozenset()
    assert part_sources([source], lambda site: site == SiteId("mine")) == {"v"}
