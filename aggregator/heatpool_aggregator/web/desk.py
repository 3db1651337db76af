"""What every view may look at: settings, the board, the store and the clock, and for whom."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heatpool.sample import SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.principal import LOCAL, Principal, sees
from heatpool_aggregator.core.settlement import LedgerEntry
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
    principal: Principal = LOCAL
    owners: Mapping[SiteId, str] = field(default_factory=dict)

    def sees(self, site_id: SiteId) -> bool:
        """Whether rows of this site are shown to the principal."""
        return sees(self.principal, self.owners.get(site_id, ""))

    async def ledger(self, start_ns: int, end_ns: int) -> Sequence[LedgerEntry]:
        """Entries of periods that lie in [start, end) and that the principal sees."""
        entries = await self.store.ledger.read(start_ns, end_ns)
        return [entry for entry in entries if self.sees(entry.line.site_id)]
