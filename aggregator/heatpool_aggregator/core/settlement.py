"""Registers + terms -> ledger entries and statement lines: whole Wh and Decimal, nothing else."""

from dataclasses import dataclass

from heatpool.sample import AgreementId, MeterId, MeteringPointId, SiteId, VirtualSourceId


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """Energy of one meter in one period, between two registers of that meter, and its price.

    `register_close_wh` may lie below `register_open_wh` after a roll-over; `energy_wh` is right.
    """

    virtual_source_id: VirtualSourceId
    site_id: SiteId
    metering_point_id: MeteringPointId
    meter_id: MeterId
    register_open_wh: int
    register_close_wh: int
    energy_wh: int
    price_eur_mwh: str
    amount_eur: str
    agreement_id: AgreementId
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One line posted to the accounts of a period; `sign` -1 reverses an earlier one."""

    key: str
    start_ns: int
    end_ns: int
    posted_ns: int
    sign: int
    line: StatementLine
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Accounts of one settlement period [start, end), all virtual sources."""

    start_ns: int
    end_ns: int
    lines: tuple[StatementLine, ...]
    missing: tuple[tuple[SiteId, str], ...]

    @property
    def is_complete(self) -> bool:
        """Every metered member has a register on both ends."""
        return not self.missing
