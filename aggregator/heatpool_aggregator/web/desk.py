"""What every view may look at: settings, the board, the store and the clock."""

import asyncio
from dataclasses import dataclass, field

from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The views' surroundings; `closing` is set when the server stops."""

    config: Config
    board: Board
    store: Store
    clock: Clock
    host_name: str = ""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
