"""The door to what waits on disk."""

from collections.abc import Sequence
from typing import Protocol

from heatpool.sample import BootId, MeteringPointId, RegisterRow, Row, Schema, SpoolKind
from heatpool_agent.core.ledger import Page
from heatpool_agent.core.spooled import QueueStat, Seq, SpoolFrame, SpoolLoss, SpoolMark


class Spool(Protocol):
    """The agent's queue on disk; blocking, so it is called from a worker thread.

    `rows_per_frame`: rows after which a frame is closed; may be set at any time.
    """

    rows_per_frame: int

    @property
    def saved_ledger(self) -> Page:
        """The energy ledger as it was when this was opened; blocks nothing."""
        ...

    @property
    def kernel_boot_id(self) -> str:
        """The life of this machine's kernel; blocks nothing."""
        ...

    def append(self, row: Row, page: Page | None = None) -> None:
        """Adds a row to the open frame, with a page of the ledger; on disk when this returns."""
        ...

    def save(self, page: Page) -> None:
        """Puts a page of the ledger on disk, whole."""
        ...

    def append_registers(self, rows: Sequence[RegisterRow]) -> None:
        """Adds one billing frame, synced to the disk when this returns."""
        ...

    def last_register(self, point_id: MeteringPointId) -> RegisterRow | None:
        """The newest row of a metering point; None before the first one."""
        ...

    def read(
        self, kind: SpoolKind, after: Seq, limit: int, *, before: Seq | None = None
    ) -> Sequence[SpoolFrame]:
        """The next closed frames of a queue behind `after` and below `before`, oldest first.

        They count as sent from now on: no such frame is ever changed. One that the disk spoiled
        comes once, with an empty payload, and is among the losses from then on.
        """
        ...

    def forget(self, kind: SpoolKind, durable_seq: Seq, *, after: Seq | None = None) -> None:
        """Notes what is durable elsewhere; rows go 24 h later.

        Everything up to `durable_seq`; with `after` only what lies behind that number, such as
        what the live lane has brought over while a backlog waits.
        """
        ...

    def lower(self, kind: SpoolKind, there: Sequence[tuple[int, int]]) -> None:
        """Takes back what is not among these ranges, all that is durable elsewhere."""
        ...

    def begin_anew(self, kind: SpoolKind) -> None:
        """A new boot id for a queue; what is held is numbered from 1 and sent again."""
        ...

    def go_beyond(self, kind: SpoolKind, there: Sequence[tuple[int, int]]) -> bool:
        """Gives no number again that is durable elsewhere; False: none was, and nothing changed.

        A file brought back from a copy, or cut short by a power cut, gave numbers that it knows
        nothing of. `there` are all that the other end holds of its life, as ranges.
        """
        ...

    def mark(self, kind: SpoolKind) -> SpoolMark:
        """State of a queue."""
        ...

    def size_bytes(self) -> int:
        """Bytes of telemetry on disk."""
        ...

    def schemas(self) -> Sequence[Schema]:
        """Every schema that frames of the present boot id may name."""
        ...

    def losses(self) -> Sequence[SpoolLoss]:
        """What of both queues will never be sent and is not known at the other end.

        They come again until `told`, as a line may lose what it took: tell each once a connection.
        """
        ...

    def told(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Notes that the other end knows of these numbers for good: losses within are done."""
        ...

    def untold(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Notes that the other end has forgotten: losses that touch these numbers come again."""
        ...

    def lose(self, kind: SpoolKind, start_ns: int, end_ns: int) -> None:
        """Gives a number to rows that never came to the disk, and says that they are dropped."""
        ...

    def heal(self) -> Sequence[SpoolKind]:
        """Makes damaged files anew out of what can be read of them; which they were."""
        ...

    def stat(self) -> Sequence[QueueStat]:
        """What both queues hold."""
        ...

    def close_frame(self) -> None:
        """Gives the open rows their number, so that they can be sent."""
        ...

    def close(self) -> None:
        """Closes the open frame and frees the files."""
        ...
