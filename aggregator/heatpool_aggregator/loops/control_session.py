"""What waits for one control stream: the newest setpoint of each site and the newest heartbeats."""

import asyncio

from heatpool.sample import SiteId
from heatpool.setpoint import Heartbeat, Setpoint
from heatpool_aggregator.wire.control import heartbeat_to_bytes, setpoint_to_bytes


class ControlSession:
    """One control stream: newest setpoint and heartbeat per site, so it never grows."""

    def __init__(self, site_ids: tuple[SiteId, ...]) -> None:
        self.site_ids = site_ids
        self._setpoints: dict[tuple[SiteId, bool], Setpoint] = {}
        self._heartbeats: dict[str, Heartbeat] = {}
        self._outgoing = asyncio.Event()

    def setpoint(self, setpoint: Setpoint) -> None:
        """To be sent next; an older one of the same site is not sent any more."""
        self._setpoints[setpoint.site_id, setpoint.dry_run] = setpoint
        self._outgoing.set()

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """To be sent next, after the setpoints."""
        self._heartbeats[heartbeat.plan_id] = heartbeat
        self._outgoing.set()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Plans whose heartbeat has not been sent yet."""
        return tuple(self._heartbeats)

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to be said."""
        return self._outgoing.is_set()

    async def outgoing(self) -> list[bytes]:
        """What is to be said now; waits for it."""
        await self._outgoing.wait()
        self._outgoing.clear()
        # Numbers rise on the way, too: the site refuses what is not newer.
        setpoints = sorted(self._setpoints.values(), key=lambda one: one.setpoint_seq)
        heartbeats = sorted(self._heartbeats.values(), key=lambda one: one.server_ns)
        self._setpoints, self._heartbeats = {}, {}
        return [
            *(setpoint_to_bytes(setpoint) for setpoint in setpoints),
            *(heartbeat_to_bytes(heartbeat) for heartbeat in heartbeats),
        ]
