"""A site that was cut off, or joined anew, is not given what was ordered of it before."""

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Protocol

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import SiteRecord
from heatpool_aggregator.core.orders import Order
from heatpool_aggregator.ports import Audit, Clock, Identities

logger = logging.getLogger(__name__)

LOOK_S = 1.0


class Ordering(Protocol):
    """Where orders hold."""

    def orders(self) -> Sequence[Order]:
        """Those that hold."""
        ...

    async def end(self, site_id: SiteId, *, why: str) -> Order | None:
        """Takes the order of a site back."""
        ...


class CutOff:
    """Ends orders of sites whose enrolment ended since; each is in the audit log first."""

    def __init__(
        self, *, identities: Identities, control: Ordering, audit: Audit, clock: Clock
    ) -> None:
        self._identities, self._control = identities, control
        self._audit, self._clock = audit, clock
        self._version = -1
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Looks until cancelled."""
        is_blind = False
        while True:
            try:
                await self.step()
                is_blind = False
            except (StoreError, TimeoutError) as error:
                if not is_blind:
                    logger.error("order.cut_off_failed", extra=facts(reason=str(error)))
                is_blind = True
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look; on return no order of before a revocation is left to be sent.

        Raises:
            StoreError: nobody can say, or it cannot be written: the order stands.
        """
        if not self._control.orders():
            return
        async with self._looking:
            version = await self._identities.version()
            if version == self._version:
                return
            records = {record.site_id: record for record in await self._identities.sites()}
            for order in self._control.orders():
                if why := _why(order, records.get(order.ask.site_id)):
                    await self._end(order, why)
            self._version = version

    async def _end(self, order: Order, why: str) -> None:
        site_id = order.ask.site_id
        await self._audit.append(
            who="aggregator",
            action="setpoint.end",
            subject=f"site/{site_id}",
            reason=why,
            detail=json.dumps({"number": order.number, "asked_by": order.asked_by}),
            at_ns=self._clock.now_ns(),
        )
        await self._control.end(site_id, why=why)
        logger.warning("order.cut_off", extra=facts(site=site_id, reason=why))


def _why(order: Order, record: SiteRecord | None) -> str:
    """Why an order must not be sent any more; empty: it may."""
    if record is None:
        return ""
    if record.revoked_ns is not None:
        return "the site is revoked"
    if record.enrolled_ns > order.asked_ns:
        return "the site has joined anew since"
    return ""
