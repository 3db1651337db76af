"""A planner on a store of its own, with a clock turned by hand: what tests of it ask."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from heatpool.errors import StoreError
from heatpool.sample import BootId, MeterId, MeteringPointId, RegisterReason, RegisterRow, SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Agreement, Config, Member, Settlement, VirtualSource
from heatpool_aggregator.core.settlement import LedgerEntry, standing_lines
from heatpool_aggregator.loops.planner import Planner
from heatpool_aggregator.ports import Ledger, StoredRegister

S = 10**9
T0 = 1_790_000_100 * S  # a quarter of an hour begins here
QUARTER = 900


class HandClock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.at_ns = T0

    def now_ns(self) -> int:
        return self.at_ns

    def boot_ns(self) -> int:
        return self.at_ns - T0


class Faulty:
    """A ledger whose disk is full, or that forgets a period, when a test wants it to."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.is_full = False
        self.lost_start_ns: int | None = None

    async def post(self, entries: Sequence[LedgerEntry]) -> None:
        if self.is_full:
            raise StoreError("store: disk is full")
        await self.ledger.post(entries)

    async def read(self, start_ns: int, end_ns: int) -> Sequence[LedgerEntry]:
        entries = await self.ledger.read(start_ns, end_ns)
        return [entry for entry in entries if entry.start_ns != self.lost_start_ns]


class Bench:
    """A planner with its store, clock and board, and what tests ask of them."""

    def __init__(self, store: Any, *, until: datetime | None = None) -> None:
        self.store, self.clock, self.until = store, HandClock(), until
        self.ledger = store.ledger = Faulty(store.ledger)
        self.seq = 0
        self.restart()

    def restart(
        self,
        period_s: int = QUARTER,
        *,
        source_id: str = "vs-1",
        price_eur_mwh: str = "45.00",
        sites: Sequence[str] = ("site-1", "site-2"),
    ) -> None:
        source = VirtualSource(
            id=source_id,
            kind="greenhouse",
            agreement=Agreement(id="hpa-1", price_eur_mwh=Decimal(price_eur_mwh)),
            member=tuple(
                Member(site_id=site, until=self.until if site == "site-1" else None)
                for site in sites
            ),
        )
        self.board = Board()
        config = Config(
            settlement=Settlement(period_s=period_s, grace_s=120), virtual_source=(source,)
        )
        self.planner = Planner(config, self.store, self.board, self.clock)

    async def reads(self, site: str, *at_s: int, **changes: Any) -> None:
        """A meter that moves 1 Wh a second is read at these seconds."""
        for s in at_s:
            self.seq += 1
            stored = StoredRegister(
                site_id=SiteId(site),
                boot_id=BootId("b1"),
                seq=self.seq,
                index=0,
                received_ns=self.clock.at_ns,
                row=row(site, s, **changes),
            )
            await self.store.registers.put([stored])

    async def at(self, at_s: int, *, steps: int = 1) -> None:
        self.clock.at_ns = T0 + at_s * S
        for _ in range(steps):
            await self.planner.step()

    async def entries(self) -> Sequence[LedgerEntry]:
        return await self.store.ledger.read(0, 2**62)  # type: ignore[no-any-return]

    async def energies_wh(self, site: str) -> list[int]:
        entries = await self.entries()
        starts = sorted({e.start_ns for e in entries})
        lines = [standing_lines(e for e in entries if e.start_ns == start) for start in starts]
        return [line.energy_wh for group in lines for line in group if line.site_id == site]


def row(
    site: str,
    at_s: int,
    *,
    raw: int | None = None,
    meter: str = "m",
    reason: RegisterReason = RegisterReason.PERIODIC,
) -> RegisterRow:
    return RegisterRow(
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId(f"{meter}.{site}"),
        event_ns=T0 + at_s * S,
        raw=1000 + at_s if raw is None else raw,
        exponent=0,
        modulus=10**8,
        reason=reason,
    )
