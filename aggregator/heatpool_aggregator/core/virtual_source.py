"""Many streams of heat as one: sums, mixed temperatures, doubt, freshness; membership has dates.

The same arithmetic rolls loops up to a site and members up to a virtual source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatpool.sample import Provenance, QualityClass, SiteId, VirtualSourceId
from heatpool_aggregator.core.admission import HOLD_NS
from heatpool_aggregator.core.agreement import Membership
from heatpool_aggregator.core.quantity import INDEX

STALE_PERIODS = 3
# Below this spread the pipes tell nothing about the heat capacity rate. [O]
SPREAD_MIN_K = 0.1
# The class of a sum: the worst one that, with those below it, carries this share of the heat. [O]
CLASS_SHARE_FRAC = 0.1
# How much of a member's u is shared by members of its group and does not average out. The wire does
# not tell it yet: half for measured heat (meter type, fluid), all for priors (eps). [O]
COMMON_MEASURED_FRAC = 0.5
COMMON_PRIOR_FRAC = 1.0

ABSENT_CODE = 0  # of a class or provenance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollUp:
    """Sums over groups of slots, each (n_groups,); NaN is absent, code 0 is no class."""

    heat_rate_w: Floats
    heat_rate_w_u: Floats
    hot_c: Floats
    cold_c: Floats
    volume_flow_m3_h: Floats
    electric_w: Floats
    reported_heat_w: Floats
    computed_heat_w: Floats
    electric_heat_w: Floats
    rejection_capacity_w: Floats
    quality: Ints
    provenance: Ints


def is_valid(membership: Membership, at_ns: int) -> bool:
    """Whether the site belongs to the virtual source at this time."""
    is_begun = membership.from_ns is None or membership.from_ns <= at_ns
    return is_begun and (membership.until_ns is None or at_ns < membership.until_ns)


def leaf_of(memberships: Sequence[Membership], at_ns: int) -> Mapping[SiteId, VirtualSourceId]:
    """The virtual source of each site that has one at this time; the first of two counts."""
    leaves: dict[SiteId, VirtualSourceId] = {}
    for membership in memberships:
        if is_valid(membership, at_ns):
            leaves.setdefault(membership.site_id, membership.virtual_source_id)
    return leaves


def is_fresh(event_ns: Ints, at_ns: int, message_period_s: float) -> NDArray[np.bool_]:
    """Which slots had a row within three message periods before `at_ns`; (n_slots,)."""
    age_ns = at_ns - event_ns
    # What lies further ahead than any clock that we use is no row of now.
    is_now = (age_ns >= -HOLD_NS) & (age_ns <= STALE_PERIODS * message_period_s * 1e9)
    return (event_ns >= 0) & is_now


def roll_up(values: Floats, group: Ints, n_groups: int) -> RollUp:
    """Sums of (n_slots, n_quantities) by group; a group below 0 is left out.

    An absent value is left out of its sum: neither zero, nor NaN for the others. No value at all
    gives NaN.
    """
    used = group >= 0
    values, group = values[used], group[used]

    def column(name: str) -> Floats:
        return values[:, INDEX[name]]

    heat_w = column("heat_rate_w")
    quality = _codes(column("quality"))
    hot, cold = _mixed_c(values, group, n_groups)
    return RollUp(
        heat_rate_w=_sums(heat_w, group, n_groups),
        heat_rate_w_u=_sum_u_w(heat_w, column("heat_rate_w_u"), quality, group, n_groups),
        hot_c=hot,
        cold_c=cold,
        volume_flow_m3_h=_sums(column("volume_flow_m3_h"), group, n_groups),
        electric_w=_sums(column("electric_w"), group, n_groups),
        reported_heat_w=_sums(column("reported_heat_w"), group, n_groups),
        computed_heat_w=_sums(column("computed_heat_w"), group, n_groups),
        electric_heat_w=_sums(column("electric_heat_w"), group, n_groups),
        rejection_capacity_w=_sums(column("rejection_capacity_w"), group, n_groups),
        quality=_quality(heat_w, quality, group, n_groups),
        provenance=_provenance(_codes(column("provenance")), group, n_groups),
    )


def _codes(column: Floats) -> Ints:
    return np.where(np.isnan(column), ABSENT_CODE, column).astype(np.int64)


def _sums(column: Floats, group: Ints, n_groups: int) -> Floats:
    known = ~np.isnan(column)
    counts = np.bincount(group[known], minlength=n_groups)
    sums = np.bincount(group[known], column[known], minlength=n_groups)
    return np.where(counts > 0, sums, np.nan)


def _sum_u_w(heat_w: Floats, u: Floats, quality: Ints, group: Ints, n_groups: int) -> Floats:
    """Standard uncertainty of each sum, W: independent parts by squares, common ones straight.

    Heat without its u leaves the sum without one.

    Source: physics.md 7.3.
    """
    known = ~np.isnan(heat_w)
    group, u, quality = group[known], u[known], quality[known]
    is_prior = (quality >= QualityClass.D) | (quality == ABSENT_CODE)
    common = u * np.where(is_prior, COMMON_PRIOR_FRAC, COMMON_MEASURED_FRAC)
    squares = u * u - common * common
    total = np.bincount(group, squares, minlength=n_groups)
    for shared in (is_prior, ~is_prior):
        total += np.bincount(group[shared], common[shared], minlength=n_groups) ** 2
    counts = np.bincount(group, minlength=n_groups)
    return np.where(counts > 0, np.sqrt(total), np.nan)


def _mixed_c(values: Floats, group: Ints, n_groups: int) -> tuple[Floats, Floats]:
    """Hot and cold temperature of streams that meet, degC, weighted by heat capacity rate.

    A stream alone shows its own pipes, also when no heat moves.
    """
    heat_w, hot, cold = (values[:, INDEX[name]] for name in ("heat_rate_w", "hot_c", "cold_c"))
    has_pipes = ~(np.isnan(hot) | np.isnan(cold))
    spread_k = np.where(has_pipes, hot - cold, np.nan)
    is_moving = (np.abs(spread_k) >= SPREAD_MIN_K) & (heat_w / np.where(spread_k, spread_k, 1) > 0)
    is_alone = np.bincount(group[has_pipes], minlength=n_groups)[group] == 1
    weight = np.where(is_moving, heat_w / np.where(is_moving, spread_k, 1.0), 0.0)
    weight = np.where(is_alone & has_pipes, 1.0, weight)
    used = weight > 0
    total = np.bincount(group[used], weight[used], minlength=n_groups)
    mixed = [
        np.bincount(group[used], (weight * pipe)[used], minlength=n_groups)
        / np.where(total > 0, total, np.nan)
        for pipe in (hot, cold)
    ]
    return mixed[0], mixed[1]


def _quality(heat_w: Floats, quality: Ints, group: Ints, n_groups: int) -> Ints:
    """The worst class that, with those below it, carries a tenth of the heat; 0 without one.

    Without any heat the streams are counted instead.
    """
    known = ~np.isnan(heat_w) & (quality != ABSENT_CODE)
    place = group[known] * (QualityClass.E + 1) + quality[known]
    size = n_groups * (QualityClass.E + 1)
    shape = (n_groups, QualityClass.E + 1)
    amounts = np.bincount(place, np.abs(heat_w[known]), minlength=size).reshape(shape)
    counts = np.bincount(place, minlength=size).reshape(shape)
    amounts = np.where(amounts.sum(axis=1, keepdims=True) > 0, amounts, counts)
    total = amounts.sum(axis=1, keepdims=True)
    from_here_down = amounts[:, ::-1].cumsum(axis=1)[:, ::-1]
    counts_as = (from_here_down >= CLASS_SHARE_FRAC * total) & (amounts > 0)
    codes = np.arange(QualityClass.E + 1) * counts_as
    return np.asarray(codes.max(axis=1), dtype=np.int64)


def _provenance(codes: Ints, group: Ints, n_groups: int) -> Ints:
    """The origin that all share, or FUSED for several; 0 without one."""
    known = codes != ABSENT_CODE
    lowest = np.full(n_groups, np.iinfo(np.int64).max)
    highest = np.zeros(n_groups, np.int64)
    np.minimum.at(lowest, group[known], codes[known])
    np.maximum.at(highest, group[known], codes[known])
    return np.where((lowest < highest), int(Provenance.FUSED), highest)
