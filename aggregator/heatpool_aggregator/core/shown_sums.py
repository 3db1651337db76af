"""Whose sums a caller may see: a total less one's own part is the neighbour's.

Both doors ask here, so that what one of them hides the other does not tell.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from heatpool.sample import SiteId, VirtualSourceId


class Named(Protocol):
    """A member as people write it down."""

    @property
    def site_id(self) -> str: ...


class Summed(Protocol):
    """A virtual source as people write it down."""

    @property
    def id(self) -> str: ...
    @property
    def member(self) -> Sequence[Named]: ...


def whole_sources(
    sources: Iterable[Summed], sees: Callable[[SiteId], bool]
) -> frozenset[VirtualSourceId]:
    """Virtual sources whose every member, former and coming ones too, is seen; none without any.

    Not even many neighbours hide one: when one of them leaves a live sum, the step is its heat.
    """
    return frozenset(
        VirtualSourceId(source.id)
        for source in sources
        if source.member and all(sees(SiteId(one.site_id)) for one in source.member)
    )


def part_sources(
    sources: Iterable[Summed], sees: Callable[[SiteId], bool]
) -> frozenset[VirtualSourceId]:
    """Virtual sources of which some members are seen and others are not."""
    sources = tuple(sources)
    some = {one.id for one in sources if any(sees(SiteId(who.site_id)) for who in one.member)}
    return frozenset(VirtualSourceId(name) for name in some) - whole_sources(sources, sees)
