"""When a stream may come in and when it may send: quotas, storms of hellos, room in the stage.

First backlogs are slowed, then live messages, then streams are told to come back later. Who is over
its own quota waits alone; who has nothing on its way gets in as long as there is any room at all.
"""

import asyncio
import random
from asyncio import sleep
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from heatpool.sample import SiteId
from heatpool_aggregator.core.quotas import NO_QUOTA, STEADY, Account, Bucket, Limits, Quota
from heatpool_aggregator.ports import Clock
from heatpool_aggregator.wire.messages import UNACKED_LIMIT

STAGED_LIMIT_BYTES = 64 << 20  # a second of a storm; beyond it, streams wait
# Beyond half of it, only streams that have nothing on their way get in.
STAGED_SOFT_BYTES = STAGED_LIMIT_BYTES // 2
# A window of each spool: a stream that goes on without waiting for acks is held, not cut.
UNACKED_HOLD_COUNT = 2 * UNACKED_LIMIT
ROOM_S = 10.0  # longer than any commit; then the site is told to come back
HELLOS_S = 700.0  # accepts of a core with TLS
HELLOS_BURST = 1_000.0
CALM_S = 10.0
CROWDED = Limits(backlog_bytes_s=1_000.0)
FULL = Limits(backlog_bytes_s=1_000.0, message_period_s=120.0)

OwnerOf = Callable[[SiteId], Awaitable[str]]


class Held(Protocol):
    """A stream, as far as its admission knows it."""

    pending_count: int
    retry_after_s: float
    account: Account

    def slow_down(self, limits: Limits) -> None:
        """These limits are worth saying, if they are others than before."""
        ...


async def nobody(_: SiteId) -> str:
    """The owner of every site where there are no tenants."""
    return ""


class Admitting:
    """Room for streams and their messages; `staged_bytes` are on their way into the log."""

    def __init__(
        self, *, clock: Clock, quotas: Mapping[str, Quota], owner_of: OwnerOf = nobody
    ) -> None:
        self._clock, self._quotas, self._owner_of = clock, quotas, owner_of
        self._accounts: dict[str, Account] = {}
        self._hellos = Bucket(HELLOS_S, HELLOS_BURST)
        self._freed = asyncio.Event()
        self._slowed: dict[Held, int] = {}
        self.staged_bytes = 0

    async def account_of(self, site_id: SiteId) -> Account:
        """What the owner of a site has used."""
        # Where nobody has a quota, nobody is asked for.
        tenant = await self._owner_of(site_id) if self._quotas else ""
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account(self._quotas.get(tenant, NO_QUOTA))
        return account

    async def hello(self, session: Held, account: Account) -> bool:
        """Lets a stream in, in its turn; False if its turn is too far away."""
        debt_s = self._hellos.debt_s(self._clock.boot_ns())
        is_new = account is not session.account
        if debt_s > ROOM_S or (is_new and not account.has_stream_left):
            # Spread over as long again, or the storm comes back as one.
            wait_s = max(debt_s, ROOM_S)
            session.retry_after_s = random.uniform(wait_s, 2 * wait_s)  # no secret
            return False
        self._hellos.take(1)
        if debt_s:
            await sleep(debt_s)
            if is_new and not account.has_stream_left:  # others had their turn meanwhile
                session.retry_after_s = random.uniform(ROOM_S, 2 * ROOM_S)  # no secret
                return False
        return True

    def has_room(self, session: Held) -> bool:
        """Whether there is room for one more message without further ado, as nearly always."""
        return (
            session.pending_count < UNACKED_HOLD_COUNT
            and self.staged_bytes < STAGED_SOFT_BYTES
            and not session.account.is_limited
        )

    async def room(self, session: Held, n_bytes: int) -> bool:
        """Waits until there is room for one more message; False if there is none in time."""
        account = session.account
        if account.is_limited:
            debt_s = account.debt_s(self._clock.boot_ns())
            if debt_s and not await self._pay(session, debt_s):
                return False
            account.take(n_bytes)
        return await self._freed_for(session)

    async def _pay(self, session: Held, debt_s: float) -> bool:
        """Holds a stream whose tenant is over its quota; nobody else waits for it."""
        self._slow(session, session.account.limits(debt_s))
        if debt_s > ROOM_S:
            session.retry_after_s = debt_s
            return False
        await sleep(debt_s)
        return True

    async def _freed_for(self, session: Held) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S):
                while self._is_full(session):
                    is_crowded = self.staged_bytes < STAGED_LIMIT_BYTES
                    self._slow(session, CROWDED if is_crowded else FULL)
                    self._freed.clear()
                    await self._freed.wait()
        if self._is_full(session):
            session.retry_after_s = random.uniform(ROOM_S, 2 * ROOM_S)  # no secret
            return False
        return True

    def _is_full(self, session: Held) -> bool:
        if session.pending_count >= UNACKED_HOLD_COUNT or self.staged_bytes >= STAGED_LIMIT_BYTES:
            return True
        return self.staged_bytes >= STAGED_SOFT_BYTES and session.pending_count > 0

    def _slow(self, session: Held, limits: Limits) -> None:
        session.slow_down(limits)
        self._slowed[session] = self._clock.boot_ns()

    async def own_room(self) -> bool:
        """Waits until there is room for a record of our own; False if there is none in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S):
                while self.staged_bytes >= STAGED_LIMIT_BYTES:
                    self._freed.clear()
                    await self._freed.wait()
        return self.staged_bytes < STAGED_LIMIT_BYTES

    def free(self, n_bytes: int) -> None:
        """So much has got into the log."""
        self.staged_bytes -= n_bytes
        self._freed.set()

    def relax(self) -> None:
        """Lets streams go on as ever that have not been slowed for a while."""
        limit_ns = self._clock.boot_ns() - int(CALM_S * 1e9)
        for session in [one for one, at_ns in self._slowed.items() if at_ns < limit_ns]:
            session.slow_down(STEADY)
            del self._slowed[session]

    def forget(self, session: Held) -> None:
        """A stream has gone."""
        self._slowed.pop(session, None)
