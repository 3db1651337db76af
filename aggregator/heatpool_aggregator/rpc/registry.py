"""The registry service: who a site is, who takes its heat and on what terms, and its papers."""

from typing import Any

import grpc
import grpc.aio
import msgspec

from heatpool.sample import SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config, VirtualSource
from heatpool_aggregator.core.enrolment import JoinRefused, NotThere
from heatpool_aggregator.core.principal import Action
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.identity.joining import Joining
from heatpool_aggregator.rpc.refused import Refused
from heatpool_aggregator.rpc.tenants import Tenants
from heatpool_aggregator.wire import registry as wire

Context = grpc.aio.ServicerContext[Any, Any]


class Registry:
    """Answers of the registry service, as bytes; each caller hears of its own sites alone.

    Without `joining` there is no CA here, and certificates are renewed where they come from.
    """

    def __init__(
        self, board: Board, config: Config, tenants: Tenants, joining: Joining | None
    ) -> None:
        self._board, self._config = board, config
        self._tenants, self._joining = tenants, joining

    async def sites(self, _: bytes, context: Context) -> bytes:
        """All sites that were seen."""
        views = self._board.sites
        seen = await self._tenants.seen(context, [view.site_id for view in views])
        return wire.sites_to_bytes([view for view in views if view.site_id in seen])

    async def sources(self, _: bytes, context: Context) -> bytes:
        """All virtual sources, with members and terms."""
        sources = self._config.virtual_source
        named = {SiteId(one.site_id) for source in sources for one in source.member}
        seen = await self._tenants.seen(context, named)
        if seen != named:
            sources = tuple(own for source in sources if (own := _part(source, seen)).member)
        has_prices = await self._tenants.may(context, Action.READ_ACCOUNTS)
        return wire.sources_to_bytes(sources, has_prices=has_prices)

    async def renew(self, request: bytes, context: Context) -> bytes:
        """A new certificate for the caller, on the key of the request.

        Raises:
            Refused: it gets none.
            WireError: this is no request.
            StoreError: it could not be recorded.
        """
        csr_der = wire.renew_request_from_bytes(request)
        if self._joining is None:
            text = "there is no CA here: renew the certificate where it came from"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
        principal = await self._tenants.principal(context)
        try:
            renewed = await self._joining.sign_renewal(principal, csr_der)
        except JoinRefused as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except NotThere as error:
            raise Refused(
                grpc.StatusCode.UNAUTHENTICATED, f"revoked: {error}", reason=Reason.REVOKED
            ) from error
        return wire.renewed_to_bytes(
            chain_pem=renewed.chain_pem,
            ca_pem=renewed.ca_pem,
            renew_after_ns=renewed.renew_after_ns,
        )


def add_to(server: grpc.aio.Server, registry: Registry) -> None:
    """Serves the registry service on the server."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ListSites": grpc.unary_unary_rpc_method_handler(registry.sites),
        "ListVirtualSources": grpc.unary_unary_rpc_method_handler(registry.sources),
        "RenewCertificate": grpc.unary_unary_rpc_method_handler(registry.renew),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))


def _part(source: VirtualSource, seen: frozenset[SiteId]) -> VirtualSource:
    """The virtual source with those members alone."""
    return msgspec.structs.replace(
        source, member=tuple(member for member in source.member if member.site_id in seen)
    )
