"""TLS of the web port: what it is served with, and looking for a renewed certificate."""

import asyncio
import logging
import ssl
from dataclasses import dataclass

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_aggregator.config import TlsFiles
from heatpool_aggregator.identity import server
from heatpool_aggregator.identity.joining import Joining
from heatpool_aggregator.ports import Audit, Identities

logger = logging.getLogger(__name__)

LOOK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """What HTTPS needs; `joining` is None where the CA is elsewhere."""

    files: TlsFiles
    identities: Identities
    audit: Audit
    joining: Joining | None
    grpc_address: str


async def keep_fresh(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Gives new connections the certificate that is in the files now, until cancelled.

    Each pair is loaded into a context of its own, which whoever comes is handed whole: a pair that
    is exchanged within one context cuts off those who shake hands meanwhile.
    """
    newest = context

    def hand_over(call: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # Asked at each handshake, also where the caller names no server.
        call.context = newest

    context.sni_callback = hand_over
    seen = await asyncio.to_thread(server.mark, files.cert, files.key)
    while True:
        await asyncio.sleep(LOOK_S)
        found = await asyncio.to_thread(server.mark, files.cert, files.key)
        if found == seen:
            continue
        seen = found
        try:
            newest = await asyncio.to_thread(server.context, files.cert, files.key)
        except HeatpoolError as error:
            # Half of a new pair, or a mistake: those who come are served with the old one.
            logger.warning("tls.not_reloaded", extra=facts(port="http", reason=str(error)))
        else:
            logger.info("tls.reloaded", extra=facts(port="http", cert=str(files.cert)))
