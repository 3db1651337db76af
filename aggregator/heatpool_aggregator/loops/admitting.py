"""When a stream may come in and when it may send: quotas, storms of hellos, room in the stage.

First backlogs are slowed, all alike, then live messages, then streams are told to come back later.
Who is over its own quota waits alone; who has nothing on its way gets in as long as there is any
room at all, and no tenant ever takes all of it.
"""

import asyncio
import logging
import random
from asyncio import sleep
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.core.pressure import Pressure, is_other
from heatpool_aggregator.core.quotas import (
    NO_QUOTA,
    STEADY,
    Account,
    Bucket,
    Buckets,
    Limits,
    Quota,
)
from heatpool_aggregator.ports import Clock
from heatpool_aggregator.wire.messages import UNACKED_LIMIT

logger = logging.getLogger(__name__)

STAGED_LIMIT_BYTES = 64 << 20  # a second of a storm; beyond it, streams wait
# Beyond half of it, only streams that have nothing on their way get in.
STAGED_SOFT_BYTES = STAGED_LIMIT_BYTES // 2
# A window of each spool: a stream that goes on without waiting for acks is held, not cut.
UNACKED_HOLD_COUNT = 2 * UNACKED_LIMIT
STREAM_HOLD_BYTES = 4 << 20  # one message of the largest there may be
# Of what is free, a tenant may have so many times as much: however many there are, some is left.
FREE_FOLD = 8
ROOM_S = 10.0  # longer than any commit; then the site is told to come back
HELLOS_S = 700.0  # with TLS a core accepts 450 of 10,000 sites, 610 of 500; without, more
HELLOS_BURST = 1_000.0
# Of one site: one that cannot keep its line, or was given a new channel again and again.
SITE_HELLOS_S, SITE_HELLOS_BURST = 0.5, 60.0
CALM_S = 10.0
CROWDED = Limits(backlog_bytes_s=1_000.0)
FULL = Limits(backlog_bytes_s=1_000.0, message_period_s=120.0)

OwnerOf = Callable[[SiteId], Awaitable[str]]


class Held(Protocol):
    """A stream, as far as its admission knows it."""

    pending_count: int
    pending_bytes: int
    retry_after_s: float
    account: Account

    def slow_down(self, limits: Limits) -> None:
        """These limits are worth saying, if they are others than before."""
        ...

    def is_behind(self) -> bool:
        """Whether it has history that is not durable here."""
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
        self._site_hellos = Buckets(lambda: Bucket(SITE_HELLOS_S, SITE_HELLOS_BURST))
        self._greeting_count = 0
        self._freed = asyncio.Event()
        self._slowed: dict[Held, tuple[Limits, int]] = {}
        self._behind: set[Held] = set()
        self._share_bytes_s: float | None = None
        self._is_pressed = False
        self.pressure = Pressure()
        self.staged_bytes = 0

    async def account_of(self, site_id: SiteId) -> Account:
        """What the owner of a site has used."""
        # Where nobody has a quota, nobody is asked for.
        tenant = await self._owner_of(site_id) if self._quotas else ""
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account(self._quotas.get(tenant, NO_QUOTA))
        return account

    async def hello(self, session: Held, account: Account, site_id: SiteId) -> bool:
        """Lets a stream in, in its turn; False if its turn is too far away."""
        boot_ns = self._clock.boot_ns()
        site_s = self._site_hellos.draw(site_id, boot_ns)
        debt_s = self._hellos.debt_s(boot_ns)
        is_new = account is not session.account
        if site_s or self._is_crowd(account, debt_s) or (is_new and not account.has_stream_left):
            # Spread over as long again, or the storm comes back as one.
            wait_s = max(site_s, debt_s, ROOM_S)
            session.retry_after_s = random.uniform(wait_s, 2 * wait_s)  # no secret
            return False
        self._hellos.take(1)
        if debt_s:
            await self._turn_of(account, debt_s)
            if is_new and not account.has_stream_left:  # others had their turn meanwhile
                session.retry_after_s = random.uniform(ROOM_S, 2 * ROOM_S)  # no secret
                return False
        return True

    def _is_crowd(self, account: Account, debt_s: float) -> bool:
        """Whether so many wait already, of this tenant or of all, that one more cannot."""
        free_count = ROOM_S * HELLOS_S - self._greeting_count
        return debt_s > ROOM_S or account.greeting_count >= max(1.0, FREE_FOLD * free_count)

    async def _turn_of(self, account: Account, debt_s: float) -> None:
        account.greeting_count += 1
        self._greeting_count += 1
        try:
            await sleep(debt_s)
        finally:
            account.greeting_count -= 1
            self._greeting_count -= 1

    def greeted(self, session: Held) -> None:
        """The stream is about to be answered: one with history hears how fast that may come."""
        if session.is_behind():
            self._behind.add(session)
            if self._share_bytes_s is None:
                self._share_bytes_s = self.pressure.share_bytes_s(len(self._behind))
            self._ask(session)

    def has_room(self, session: Held) -> bool:
        """Whether there is room for one more message without further ado, as nearly always."""
        return (
            session.pending_count < UNACKED_HOLD_COUNT
            and session.pending_bytes < STREAM_HOLD_BYTES
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
        if session.pending_count >= UNACKED_HOLD_COUNT:
            return True
        if session.pending_bytes >= STREAM_HOLD_BYTES:
            return True
        if self.staged_bytes < STAGED_SOFT_BYTES:
            return False
        free_bytes = STAGED_LIMIT_BYTES - self.staged_bytes
        if session.account.staged_bytes >= FREE_FOLD * free_bytes:
            return True
        return session.pending_count > 0 and self._is_greedy(session.account)

    def _is_greedy(self, account: Account) -> bool:
        """Whether a tenant has its even part of what is on its way, or more."""
        count = sum(one.staged_bytes > 0 for one in self._accounts.values())
        return account.staged_bytes * count >= self.staged_bytes

    def _slow(self, session: Held, limits: Limits) -> None:
        self._slowed[session] = (limits, self._clock.boot_ns())
        self._ask(session)

    def _ask(self, session: Held) -> None:
        limits, _ = self._slowed.get(session, (STEADY, 0))
        share = self._share_bytes_s if session in self._behind else None
        session.slow_down(limits.with_share(share))

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
        """Lets streams go on as ever that have not been slowed for a while, and shares anew."""
        limit_ns = self._clock.boot_ns() - int(CALM_S * 1e9)
        for session in [one for one, (_, at_ns) in self._slowed.items() if at_ns < limit_ns]:
            del self._slowed[session]
            self._ask(session)
        is_pressed = self.pressure.look(self._clock.boot_ns())
        if is_pressed is not None:
            self._note(is_pressed=is_pressed)
            self._share()

    def _share(self) -> None:
        """Histories that are in need no share any more; the others have what there is."""
        for session in [one for one in self._behind if not one.is_behind()]:
            self._behind.discard(session)
            self._ask(session)
        share = self.pressure.share_bytes_s(len(self._behind)) if self._behind else None
        if is_other(share, self._share_bytes_s):
            self._share_bytes_s = share
            for session in self._behind:
                self._ask(session)

    def _note(self, *, is_pressed: bool) -> None:
        if is_pressed and not self._is_pressed:
            streams, bytes_s = len(self._behind), self.pressure.budget_bytes_s
            logger.warning("ingest.history_slowed", extra=facts(streams=streams, bytes_s=bytes_s))
        # Told once for as long as there is any history.
        self._is_pressed = bool(self._behind) and (is_pressed or self._is_pressed)

    def forget(self, session: Held) -> None:
        """A stream has gone."""
        self._slowed.pop(session, None)
        self._behind.discard(session)
