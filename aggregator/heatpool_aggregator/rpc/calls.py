"""Calls that are open now, and which of them speaks for which site."""

import asyncio
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass

import grpc

from heatpool.sample import SiteId
from heatpool_aggregator.core.principal import LOCAL, Principal
from heatpool_aggregator.identity.certificates import Named
from heatpool_aggregator.rpc.refused import Refused

# A site has two, a screen a handful; more is a mistake, or meant to harm.
CALLER_LIMIT = 100


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """One call of somebody recognised, from the address `peer`.

    `certificate` is None on this machine without TLS.
    """

    method: str
    principal: Principal
    certificate: Named | None
    peer: str
    task: "asyncio.Task[object] | None"
    sites: tuple[SiteId, ...] = ()
    ending: Refused | None = None

    def end(self, refused: Refused) -> None:
        """Ends it with this status, wherever it waits."""
        if self.ending is None and self.task is not None:
            self.ending = refused
            self.task.cancel()


# The call in which this code runs.
CALL: ContextVar[Call] = ContextVar("call")


class OpenCalls:
    """All calls of those recognised."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._counts: Counter[str] = Counter()
        self._places: dict[tuple[str, SiteId], Call] = {}

    def now(self) -> tuple[Call, ...]:
        """Those that are open now; they may come and go while one looks at them."""
        return tuple(self._calls)

    def enter(self, call: Call) -> None:
        """The call has begun.

        Raises:
            Refused: its caller has too many open.
        """
        name = call.principal.name
        # Whoever is on this machine anyway needs no door to harm it.
        if call.principal != LOCAL and self._counts[name] >= CALLER_LIMIT:
            text = f"{name} has {CALLER_LIMIT} calls open, which is all that one may have"
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._calls.add(call)
        self._counts[name] += 1

    def leave(self, call: Call) -> None:
        """The call has ended."""
        self._calls.discard(call)
        self._counts[call.principal.name] -= 1
        if not self._counts[call.principal.name]:
            del self._counts[call.principal.name]
        for site_id in call.sites:
            if self._places.get((call.method, site_id)) is call:
                del self._places[(call.method, site_id)]

    def take_places(self, call: Call, site_ids: tuple[SiteId, ...]) -> dict[SiteId, str]:
        """The newest stream of a site stays: the older one is mostly a line that is dead.

        Sites that had an older one, each with the address that it came from.
        """
        found = {}
        for site_id in site_ids:
            older = self._places.get((call.method, site_id))
            if older is not None and older is not call:
                text = f"another stream speaks for site {site_id!r} since now"
                older.end(Refused(grpc.StatusCode.ABORTED, text))
                found[site_id] = older.peer
            self._places[(call.method, site_id)] = call
        # What it spoke for before it said hello again is to be left, too.
        call.sites = tuple({*call.sites, *site_ids})
        return found
