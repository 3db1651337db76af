"""State of a shard -> what people see of sites and virtual sources, at one time."""

from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np
from numpy.typing import NDArray

from heatpool.sample import MeteringPointId, Provenance, QualityClass, SiteId, VirtualSourceId
from heatpool.setpoint import SetpointState
from heatpool_aggregator.board import HeatView, MeterView, SetpointView, SiteView, SourceView
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.admission import NEW_CLOCK
from heatpool_aggregator.core.agreement import memberships
from heatpool_aggregator.core.live import NEVER_NS
from heatpool_aggregator.core.shard_state import Capability, ShardState
from heatpool_aggregator.core.virtual_source import (
    STALE_PERIODS,
    RollUp,
    is_fresh,
    leaf_of,
    roll_up,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Views:
    """Sites and virtual sources of the settings, as the state fills them."""

    def __init__(self, config: Config, asked_w: Mapping[SiteId, float]) -> None:
        self._sources = config.virtual_source
        self._memberships = memberships(config.virtual_source)
        self._period_s = config.live.message_period_s
        self._stale_ns = STALE_PERIODS * self._period_s * 1e9
        self._asked_w = asked_w
        self._members = frozenset(member.site_id for member in self._memberships)

    def at(
        self, state: ShardState, now_ns: int
    ) -> tuple[tuple[SiteView, ...], tuple[SourceView, ...]]:
        """All sites by id and all virtual sources in the order of the settings."""
        leaves = leaf_of(self._memberships, now_ns)
        sites = self._site_views(state, leaves, now_ns)
        return sites, self._source_views(state, leaves, sites, now_ns)

    def _site_views(
        self, state: ShardState, leaves: Mapping[SiteId, VirtualSourceId], now_ns: int
    ) -> tuple[SiteView, ...]:
        site_ids = self._shown(state)
        place_of = {site_id: place for place, site_id in enumerate(site_ids)}
        group = _groups(state, place_of)
        slot_ns = self._slot_ns(state)
        newest = np.full(len(site_ids), NEVER_NS, np.int64)
        np.maximum.at(newest, group[group >= 0], slot_ns[group >= 0])
        # A loop that fell silent while its site goes on is no part of the site's heat any more.
        reference_ns = np.where(group >= 0, newest[group] if len(newest) else NEVER_NS, NEVER_NS)
        group = np.where(reference_ns - slot_ns <= self._stale_ns, group, -1)
        sums = roll_up(self._values(state), group, len(site_ids))
        fresh = is_fresh(newest, now_ns, self._period_s)
        meters, loop_ids = _meters(state), _loop_ids(state)
        waiting = {site_id for site_id, course in state.courses.items() if course.held}
        return tuple(
            SiteView(
                site_id=site_id,
                virtual_source_id=leaves.get(site_id),
                heat=_heat(sums, place),
                electric_w=_number(sums.electric_w[place]),
                reported_heat_w=_number(sums.reported_heat_w[place]),
                computed_heat_w=_number(sums.computed_heat_w[place]),
                electric_heat_w=_number(sums.electric_heat_w[place]),
                rejection_capacity_w=_capacity(state, site_id, sums, place),
                event_ns=int(newest[place]) if newest[place] > NEVER_NS else None,
                is_stale=not fresh[place],
                energy_wh=_energy_wh(meters.get(site_id, ())),
                meters=meters.get(site_id, ()),
                loop_ids=loop_ids.get(site_id, ()),
                setpoint=self._setpoint(state, site_id),
                clock_offset_s=_clock_offset_s(state, site_id),
                is_clock_held=site_id in waiting,
            )
            for place, site_id in enumerate(site_ids)
        )

    def _shown(self, state: ShardState) -> list[SiteId]:
        """Members, and sites that came though no virtual source has them; by id."""
        came = {site_id for site_id, _ in state.live.slots}.union(state.courses)
        return sorted(self._members.union(came, state.capabilities))

    def _source_views(
        self,
        state: ShardState,
        leaves: Mapping[SiteId, VirtualSourceId],
        sites: Sequence[SiteView],
        now_ns: int,
    ) -> tuple[SourceView, ...]:
        source_place = {source.id: place for place, source in enumerate(self._sources)}
        place_of = {site: source_place[source] for site, source in leaves.items()}
        fresh = is_fresh(self._slot_ns(state), now_ns, self._period_s)
        # Stale heat is absent, not zero: it leaves the sum at once, and the coverage says so.
        group = np.where(fresh, _groups(state, place_of), -1)
        sums = roll_up(self._values(state), group, len(self._sources))
        members_of: dict[str | None, list[SiteView]] = {}
        for site in sites:
            members_of.setdefault(site.virtual_source_id, []).append(site)
        views = []
        for place, source in enumerate(self._sources):
            members = members_of.get(source.id, [])
            fresh_members = [site for site in members if not site.is_stale]
            covered = sum(site.heat.heat_rate_w is not None for site in fresh_members)
            events = [site.event_ns for site in fresh_members if site.event_ns is not None]
            views.append(
                SourceView(
                    virtual_source_id=VirtualSourceId(source.id),
                    kind=source.kind,
                    heat=_heat(sums, place),
                    energy_wh=sum(site.energy_wh or 0 for site in members),
                    members_count=len(members),
                    fresh_count=len(fresh_members),
                    coverage_frac=covered / len(members) if members else 0.0,
                    watermark_ns=min(events, default=None),
                    version=source.version,
                )
            )
        return tuple(views)

    def _slot_ns(self, state: ShardState) -> Ints:
        """Newest event time of each slot on our clock; (n_slots,)."""
        newest = state.live.event_ns.max(axis=1, initial=NEVER_NS)
        offsets = [_offset_ns(state, site_id) for site_id, _ in state.live.slots]
        return np.where(newest > NEVER_NS, newest + np.array(offsets, np.int64), NEVER_NS)

    def _values(self, state: ShardState) -> Floats:
        """Values of each slot; one that its loop does not send any more is absent, not frozen."""
        event_ns = state.live.event_ns
        newest = event_ns.max(axis=1, initial=NEVER_NS, keepdims=True)
        return np.where(newest - event_ns <= self._stale_ns, state.live.values, np.nan)

    def _setpoint(self, state: ShardState, site_id: SiteId) -> SetpointView | None:
        asked = state.asked.get(site_id)
        if asked is not None:
            return SetpointView(
                setpoint_seq=asked.setpoint_seq,
                heat_rate_w=asked.heat_rate_w,
                applied_heat_rate_w=asked.applied_heat_rate_w,
                state=asked.state,
                detail=asked.detail,
            )
        if site_id not in self._asked_w:
            return None
        return SetpointView(
            setpoint_seq=0,
            heat_rate_w=self._asked_w[site_id],
            applied_heat_rate_w=None,
            state=SetpointState.PLANNED,
            detail="the site has not come yet",
        )


def _groups(state: ShardState, place_of: Mapping[SiteId, int]) -> Ints:
    """The group of each slot by its site, -1 for none; (n_slots,)."""
    return np.array([place_of.get(site_id, -1) for site_id, _ in state.live.slots], np.int64)


def _offset_ns(state: ShardState, site_id: SiteId) -> int:
    return state.clocks.get(site_id, NEW_CLOCK).corrected_ns(0)


def _clock_offset_s(state: ShardState, site_id: SiteId) -> float | None:
    """How far a clock is off, s, to a tenth: the views of a fleet change with every digit."""
    clock = state.clocks.get(site_id, NEW_CLOCK)
    return round(clock.offset_ns / 1e9, 1) if clock.is_flagged else None


def _heat(sums: RollUp, place: int) -> HeatView:
    quality, provenance = int(sums.quality[place]), int(sums.provenance[place])
    return HeatView(
        heat_rate_w=_number(sums.heat_rate_w[place]),
        heat_rate_w_u=_number(sums.heat_rate_w_u[place]),
        hot_c=_number(sums.hot_c[place]),
        cold_c=_number(sums.cold_c[place]),
        volume_flow_m3_h=_number(sums.volume_flow_m3_h[place]),
        quality=QualityClass(quality) if quality else None,
        provenance=Provenance(provenance) if provenance else None,
    )


def _number(value: float) -> float | None:
    return None if isnan(value) else float(value)


def _capacity(state: ShardState, site_id: SiteId, sums: RollUp, place: int) -> float | None:
    """What the site says now, else its nameplate; W."""
    now_w = _number(sums.rejection_capacity_w[place])
    return (
        state.capabilities.get(site_id, Capability()).rejection_capacity_w
        if now_w is None
        else now_w
    )


def _loop_ids(state: ShardState) -> dict[SiteId, tuple[str, ...]]:
    """Loops that a site names, else those that it sends of."""
    found: dict[SiteId, tuple[str, ...]] = {}
    for site_id, loop_id in sorted(state.live.slots):
        if loop_id:
            found[site_id] = (*found.get(site_id, ()), loop_id)
    named = {site: one.loop_ids for site, one in state.capabilities.items() if one.loop_ids}
    return found | named


def _meters(state: ShardState) -> dict[SiteId, tuple[MeterView, ...]]:
    views: dict[SiteId, tuple[MeterView, ...]] = {}
    for (site_id, point_id), metered in sorted(state.live.metered.items()):
        view = MeterView(
            metering_point_id=MeteringPointId(point_id),
            meter_id=metered.row.meter_id,
            energy_wh=metered.energy_wh,
        )
        views[site_id] = (*views.get(site_id, ()), view)
    return views


def _energy_wh(meters: Sequence[MeterView]) -> int | None:
    return sum(meter.energy_wh for meter in meters) if meters else None
