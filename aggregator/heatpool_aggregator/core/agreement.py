"""What metered heat is worth, and to whom a site's heat belongs at a time.

Terms come in as data; nothing here knows registers (`settlement`) or files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

from heatpool.errors import LedgerError
from heatpool.period import Period
from heatpool.sample import AgreementId, SiteId, VirtualSourceId

WH_PER_MWH = 10**6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Terms of one heat purchase agreement; amounts are whole multiples of `round_eur`."""

    agreement_id: AgreementId
    price_eur_mwh: Decimal
    round_eur: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A site in a virtual source for [from, until); an open end is None."""

    virtual_source_id: VirtualSourceId
    site_id: SiteId
    from_ns: int | None
    until_ns: int | None
    terms: Terms


class AgreementTerms(Protocol):
    """An agreement as people write it down."""

    @property
    def id(self) -> str: ...
    @property
    def price_eur_mwh(self) -> Decimal: ...
    @property
    def round_eur(self) -> Decimal: ...


class MemberSpan(Protocol):
    """A member as people write it down."""

    @property
    def site_id(self) -> str: ...
    @property
    def from_(self) -> datetime | None: ...
    @property
    def until(self) -> datetime | None: ...


class SourceTerms(Protocol):
    """A virtual source as people write it down."""

    @property
    def id(self) -> str: ...
    @property
    def agreement(self) -> AgreementTerms: ...
    @property
    def member(self) -> Sequence[MemberSpan]: ...


def price(energy_wh: int, terms: Terms) -> Decimal:
    """Amount of one line, EUR: rounded once, half to even, to the agreement's `round_eur`.

    Raises: ValueError if `round_eur` is not above 0. Source: physics.md 17, settlement rule 3.
    """
    if terms.round_eur <= 0:
        raise ValueError(f"agreement: round_eur is {terms.round_eur}; use a step above 0")
    exact_eur = Fraction(terms.price_eur_mwh) * energy_wh / WH_PER_MWH
    # Rounding a Fraction is exact and half to even: no digit is lost on the way to the step.
    return round(exact_eur / Fraction(terms.round_eur)) * terms.round_eur


def instant_ns(at: datetime) -> int:
    """The instant, ns since 1970 UTC, exact to the microsecond that it carries."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def memberships(sources: Iterable[SourceTerms]) -> tuple[Membership, ...]:
    """Every membership of every virtual source, in the order in which they are written down."""
    return tuple(
        Membership(
            virtual_source_id=VirtualSourceId(source.id),
            site_id=SiteId(member.site_id),
            from_ns=None if member.from_ is None else instant_ns(member.from_),
            until_ns=None if member.until is None else instant_ns(member.until),
            terms=_terms(source.agreement),
        )
        for source in sources
        for member in source.member
    )


def spans(
    members: Iterable[Membership], site_id: SiteId, period: Period
) -> tuple[tuple[Period, Membership], ...]:
    """The parts of the period in which the site is a member, with what binds it, by start.

    Raises: LedgerError if two memberships overlap: no Wh is sold twice.
    """
    found = sorted(
        (
            (clipped, member)
            for member in members
            if member.site_id == site_id
            if (clipped := _clipped(member, period)) is not None
        ),
        key=lambda part: part[0],
    )
    for (before, first), (after, second) in pairwise(found):
        if after.start_ns < before.end_ns:
            raise LedgerError(
                f"site {site_id} is a member of {first.virtual_source_id} and of "
                f"{second.virtual_source_id} at once; give one of them from or until"
            )
    return tuple(found)


def is_member(members: Iterable[Membership], site_id: SiteId, period: Period) -> bool:
    """Whether the site is a member of any virtual source within the period."""
    return any(
        member.site_id == site_id and _clipped(member, period) is not None for member in members
    )


def _terms(agreement: AgreementTerms) -> Terms:
    return Terms(
        agreement_id=AgreementId(agreement.id),
        price_eur_mwh=agreement.price_eur_mwh,
        round_eur=agreement.round_eur,
    )


def _clipped(member: Membership, period: Period) -> Period | None:
    starts = period.start_ns if member.from_ns is None else member.from_ns
    ends = period.end_ns if member.until_ns is None else member.until_ns
    start_ns, end_ns = max(period.start_ns, starts), min(period.end_ns, ends)
    return Period(start_ns=start_ns, end_ns=end_ns) if start_ns < end_ns else None
