"""When setpoints go down: at once to a site that comes, and a heartbeat while they are wanted.

Nothing is queued for a site that is away. Each opening of a stream brings a fresh setpoint, whose
number rises over restarts too, because it is the clock's; so does a lease that ran out at the site.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass

from heatpool.sample import BootId, SiteId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport, SetpointState
from heatpool_aggregator.ports import Clock, Frame, FrameKind
from heatpool_aggregator.wire.control import (
    heartbeat_to_bytes,
    report_to_bytes,
    setpoint_to_bytes,
)

HEARTBEAT_MAX_S = 30.0
LEASE_SHARE = 3  # two heartbeats may be lost before a lease runs out
TICK_S = 0.25  # a lease of one second must be renewed three times within it

Record = Callable[[Frame], Coroutine[None, None, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one site is asked for as long as this process lives, W and s."""

    site_id: SiteId
    heat_rate_w: float
    lease_s: float
    reason: str

    @property
    def plan_id(self) -> str:
        """One plan per site: a heartbeat renews its site's setpoint and no other."""
        return f"standing-{self.site_id}"

    @property
    def heartbeat_ns(self) -> int:
        """Time between heartbeats, ns."""
        return round(min(self.lease_s / LEASE_SHARE, HEARTBEAT_MAX_S) * 1e9)


class ControlSession:
    """One control stream: newest setpoint and heartbeat per site, so it never grows."""

    def __init__(self, site_ids: tuple[SiteId, ...]) -> None:
        self.site_ids = site_ids
        self._setpoints: dict[SiteId, Setpoint] = {}
        self._heartbeats: dict[str, Heartbeat] = {}
        self._outgoing = asyncio.Event()

    def setpoint(self, setpoint: Setpoint) -> None:
        """To be sent next; an older one of the same site is not sent any more."""
        self._setpoints[setpoint.site_id] = setpoint
        self._outgoing.set()

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """To be sent next, after the setpoints."""
        self._heartbeats[heartbeat.plan_id] = heartbeat
        self._outgoing.set()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Plans whose heartbeat has not been sent yet."""
        return tuple(self._heartbeats)

    async def outgoing(self) -> list[bytes]:
        """What is to be said now; waits for it."""
        await self._outgoing.wait()
        self._outgoing.clear()
        setpoints, self._setpoints = self._setpoints, {}
        heartbeats, self._heartbeats = self._heartbeats, {}
        return [
            *(setpoint_to_bytes(setpoint) for setpoint in setpoints.values()),
            *(heartbeat_to_bytes(heartbeat) for heartbeat in heartbeats.values()),
        ]


class Control:
    """Fans standing setpoints out, and records what became of them in the log."""

    def __init__(self, *, standing: Iterable[Standing], clock: Clock, record: Record) -> None:
        self._standing = {wish.site_id: wish for wish in standing}
        self._clock, self._record = clock, record
        self._sessions: set[ControlSession] = set()
        self._last_seq = 0
        self._due_ns: dict[SiteId, int] = {}  # on the boot clock, as leases are
        self._lapsed: set[SiteId] = set()

    async def open(self, site_ids: tuple[SiteId, ...]) -> ControlSession:
        """A stream that listens for these sites; their setpoints go down at once."""
        session = ControlSession(site_ids)
        self._sessions.add(session)
        try:
            for site_id in site_ids:
                await self._send(site_id)
        except BaseException:
            # The stream went before it was open: nobody else knows the session to close it.
            self.close(session)
            raise
        return session

    def close(self, session: ControlSession) -> None:
        """The stream has gone; its leases run out by themselves."""
        self._sessions.discard(session)

    async def report(self, report: SetpointReport, data: bytes) -> bool:
        """Records a state that a site reports; False if there was no room for it in time."""
        if report.state is SetpointState.EXPIRED:
            self._lapsed.add(report.site_id)
        elif report.state in (SetpointState.APPLIED, SetpointState.EFFECT_SEEN):
            self._lapsed.discard(report.site_id)
        return await self._record(self._frame(report.site_id, data))

    async def run(self) -> None:
        """Renews leases until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(TICK_S)

    async def step(self) -> None:
        """Sends the heartbeats that are due, and fresh setpoints where a lease ran out."""
        now_ns = self._clock.boot_ns()
        lapsed = []
        for site_id in {site for session in self._sessions for site in session.site_ids}:
            wish = self._standing.get(site_id)
            if wish is None or now_ns < self._due_ns.get(site_id, 0):
                continue
            self._due_ns[site_id] = now_ns + wish.heartbeat_ns
            heartbeat = Heartbeat(plan_id=wish.plan_id, server_ns=self._clock.now_ns())
            for session in self._listening(site_id):
                session.heartbeat(heartbeat)
            # A site whose lease ran out obeys a fresh setpoint only.
            if site_id in self._lapsed:
                lapsed.append(site_id)
        # A log without room holds up what is recorded: the leases of all others come first.
        for site_id in lapsed:
            await self._send(site_id)

    async def _send(self, site_id: SiteId) -> None:
        wish = self._standing.get(site_id)
        if wish is None:
            return
        setpoint = self._setpoint(wish)
        for session in self._listening(site_id):
            session.setpoint(setpoint)
        self._due_ns[site_id] = self._clock.boot_ns() + wish.heartbeat_ns
        sent = SetpointReport(
            site_id=site_id,
            setpoint_seq=setpoint.setpoint_seq,
            state=SetpointState.SENT,
            event_ns=setpoint.valid_from_ns,
            detail=wish.reason,
        )
        await self._record(self._frame(site_id, report_to_bytes(sent)))

    def _setpoint(self, wish: Standing) -> Setpoint:
        now_ns = self._clock.now_ns()
        self._last_seq = max(self._last_seq + 1, now_ns)
        return Setpoint(
            setpoint_id=f"{wish.site_id}-{self._last_seq}",
            setpoint_seq=self._last_seq,
            plan_id=wish.plan_id,
            site_id=wish.site_id,
            heat_rate_w=wish.heat_rate_w,
            valid_from_ns=now_ns,
            lease_s=wish.lease_s,
            reason=wish.reason,
        )

    def _listening(self, site_id: SiteId) -> list[ControlSession]:
        return [session for session in self._sessions if site_id in session.site_ids]

    def _frame(self, site_id: SiteId, data: bytes) -> Frame:
        return Frame(
            site_id=site_id,
            boot_id=BootId(""),
            kind=FrameKind.SETPOINT_REPORT,
            seq=0,
            received_ns=self._clock.now_ns(),
            payload=data,
        )
