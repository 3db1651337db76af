"""Renews the server's own certificate at two thirds of its life, if our CA signed it."""

import asyncio
import json
import logging

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_aggregator.core.enrolment import Issued
from heatpool_aggregator.identity import server
from heatpool_aggregator.identity.authority import Authority
from heatpool_aggregator.identity.places import Places
from heatpool_aggregator.ports import Audit, Clock

logger = logging.getLogger(__name__)

LOOK_S = 3600.0


class Renewal:
    """The server's certificate is never older than two thirds of its life."""

    def __init__(self, *, ca: Authority, files: Places, audit: Audit, clock: Clock) -> None:
        self._ca, self._files = ca, files
        self._audit, self._clock = audit, clock

    async def run(self) -> None:
        """Looks once an hour until cancelled."""
        while True:
            try:
                await self.step()
            except HeatpoolError as error:
                # A month is left to mend it; the certificate in use goes on.
                logger.error("certificate.not_renewed", extra=facts(reason=str(error)))
            await asyncio.sleep(LOOK_S)

    async def step(self) -> bool:
        """One look; whether there is a new certificate.

        Raises:
            HeatpoolError: it is due and could not be made.
        """
        issued = await asyncio.to_thread(self._renewed)
        if issued is None:
            return False
        logger.info("certificate.renewed", extra=facts(serial=issued.serial))
        await self._audit.append(
            who="local",
            action="certificate.renew_server",
            subject="server",
            reason="two thirds of its life are over, or it was dated ahead",
            detail=json.dumps({"serial": issued.serial}),
            at_ns=self._clock.now_ns(),
        )
        return True

    def _renewed(self) -> Issued | None:
        now_ns, ca = self._clock.now_ns(), self._ca.current()
        if not server.is_due(ca, self._files, now_ns=now_ns):
            return None
        return server.renew(ca, self._files, now_ns=now_ns)
