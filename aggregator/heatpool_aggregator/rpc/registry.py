"""The registry service: who a site is, who takes its heat, and on what terms."""

from typing import Any

import grpc
import grpc.aio

from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.ports import Store
from heatpool_aggregator.wire import registry as wire

Context = grpc.aio.ServicerContext[Any, Any]


class Registry:
    """Answers of the registry service, as bytes."""

    def __init__(self, board: Board, config: Config) -> None:
        self._board, self._config = board, config

    async def sites(self, _: bytes, context: Context) -> bytes:
        """All sites that were seen."""
        return wire.sites_to_bytes(self._board.sites)

    async def sources(self, _: bytes, context: Context) -> bytes:
        """All virtual sources, with members and terms."""
        return wire.sources_to_bytes(self._config.virtual_source)


def add_to(server: grpc.aio.Server, board: Board, store: Store, config: Config) -> None:
    """Serves the registry service on the server; the store is asked nothing yet."""
    registry = Registry(board, config)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ListSites": grpc.unary_unary_rpc_method_handler(registry.sites),
        "ListVirtualSources": grpc.unary_unary_rpc_method_handler(registry.sources),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))
