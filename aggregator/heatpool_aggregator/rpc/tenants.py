"""What a caller may see: rows of its own tenant, or all."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

import grpc

from heatpool.sample import SiteId
from heatpool_aggregator.core.principal import LOCAL, Action, Principal, may, sees
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.ports import Identities
from heatpool_aggregator.rpc.certificate import Context
from heatpool_aggregator.rpc.refused import Refused

_NOBODY = ""
STORE_S = 10.0


class Asked(Protocol):
    """Tells who asks."""

    async def principal(self, context: Context) -> Principal:
        """Who calls."""
        ...


class Tenants:
    """Who owns which site; looked up again when the identities change."""

    def __init__(self, asked: Asked, identities: Identities) -> None:
        self._asked, self._identities = asked, identities
        self._version = -1
        self._owners: dict[SiteId, str] = {}
        self._revoked: frozenset[SiteId] = frozenset()

    async def seen(self, context: Context, site_ids: Iterable[SiteId]) -> frozenset[SiteId]:
        """Those of the sites that the caller sees.

        Raises:
            StoreError: nobody can say now.
        """
        principal = await self._asked.principal(context)
        # A site that nobody owns has the owner "", which only those see who see all.
        if sees(principal, _NOBODY):
            return frozenset(site_ids)
        owners = await self._current()
        return frozenset(one for one in site_ids if sees(principal, owners.get(one, _NOBODY)))

    async def sees_all(self, context: Context) -> bool:
        """Whether no tenant bounds what the caller sees."""
        return sees(await self._asked.principal(context), _NOBODY)

    async def check(self, context: Context, site_id: SiteId) -> None:
        """Lets the caller ask about a site, or give it an order.

        Raises:
            Refused: it is another tenant's; the same words as for a site that does not exist.
            StoreError: nobody can say now.
        """
        if site_id not in await self.seen(context, (site_id,)):
            raise Refused(
                grpc.StatusCode.NOT_FOUND, unknown_site(site_id), reason=Reason.OTHER_TENANT
            )

    async def check_hears(self, context: Context, site_id: SiteId) -> None:
        """Lets an order pass whose site may hear it; without TLS every member may.

        Raises:
            Refused: the site is cut off.
            StoreError: nobody can say now.
        """
        if await self._asked.principal(context) == LOCAL:
            return
        await self._current()
        if site_id in self._revoked:
            text = f"site {site_id!r} is revoked: it takes orders again once it has joined anew"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)

    async def principal(self, context: Context) -> Principal:
        """Who calls."""
        return await self._asked.principal(context)

    async def may(self, context: Context, action: Action) -> bool:
        """Whether the caller may do this beside what the method itself needs."""
        return may(await self._asked.principal(context), action)

    async def _current(self) -> dict[SiteId, str]:
        async with asyncio.timeout(STORE_S):
            version = await self._identities.version()
            if version == self._version:
                return self._owners
            records = await self._identities.sites()
            self._owners = {record.site_id: record.owner for record in records}
            self._revoked = frozenset(one.site_id for one in records if one.revoked_ns is not None)
            self._version = version
            return self._owners


def unknown_site(site_id: str) -> str:
    """What to tell of a site that is not there, or not for the caller."""
    return f"site {site_id!r} is not known; `heatpool sites` lists them"
