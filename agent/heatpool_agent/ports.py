"""Through what the agent meets the world: sensors, actuators, uplink, spool, clock."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from heatpool.sample import (
    BootId,
    MeteringPointId,
    RegisterRow,
    Row,
    Schema,
    SiteId,
    SpoolKind,
)
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport
from heatpool_agent.core.calibrate import Calibration
from heatpool_agent.core.ledger import Page
from heatpool_agent.core.line import Durable as Durable
from heatpool_agent.core.line import Identity as Identity
from heatpool_agent.core.line import Lane as Lane
from heatpool_agent.core.line import LineBusy as LineBusy
from heatpool_agent.core.line import LineLimits as LineLimits
from heatpool_agent.core.line import LineRefused as LineRefused
from heatpool_agent.core.line import Resend as Resend
from heatpool_agent.core.line import Sent as Sent
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.safety import Command as Command
from heatpool_agent.core.spooled import QueueStat as QueueStat
from heatpool_agent.core.spooled import Seq as Seq
from heatpool_agent.core.spooled import SpoolFrame as SpoolFrame
from heatpool_agent.core.spooled import SpoolLoss as SpoolLoss
from heatpool_agent.core.spooled import SpoolMark as SpoolMark


class Clock(Protocol):
    """The only source of time; passed in, so that tests own it."""

    def event_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        ...

    def boot_ns(self) -> int:
        """Nanoseconds since boot, running on through suspend; no clock step touches it."""
        ...


class Tape(Protocol):
    """Between a driver and its device: every raw exchange passes here, to be kept or played back.

    `request` names the exchange and is the same each time the same thing is asked; an answer is
    bytes, or one of OSError, TimeoutError, SensorBusy, SensorGone and WireError. `hide` takes
    secrets and serial numbers out of what is kept. While a tape plays, nothing is asked.
    """

    @property
    def is_playing(self) -> bool:
        """Whether answers come from the tape, so that no device must be opened or connected."""
        ...

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """The device's answer."""
        ...

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """The same for what answers at once or blocks its own worker thread, such as a file."""
        ...


class Live:
    """No tape: every exchange goes straight to the device."""

    is_playing = False

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """The device's answer."""
        return await ask()

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What is there."""
        return see()


LIVE = Live()


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the machine's own files lie; settings, so that dumps replay through the same code.

    `state` is a folder of the agent where a driver may leave a small file for its next life, such
    as a session to log out of; None where nothing may be left behind.
    """

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    nvml: str = "auto"
    state: Path | None = None
    tape: Tape = LIVE


class Sensor(Protocol):
    """One device or one part of the machine, read in one pass."""

    async def probe(self) -> Sequence[str]:
        """Channels that exist here, without side effects; repeatable.

        Raises:
            SensorGone: nothing can be read, with the reason and what mends it.
        """
        ...

    async def read(self) -> Sequence[Reading]:
        """All channels once; cancellable, under the caller's timeout.

        Raises:
            SensorBusy: again later.
            SensorGone: not readable any more.
        """
        ...

    async def close(self) -> None:
        """Frees the device; may be called twice."""
        ...


class SensorModule(Protocol):
    """What a module behind the entry point `heatpool.sensors` gives."""

    Config: type[Any]

    def open(self, config: Any, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Sensor]:
        """The sensor, ready to be probed; opening touches no device."""
        ...


class Actuator(Protocol):
    """Writes to one unit; never reads for the estimator.

    One that follows more of a setpoint than its heat rate has `uses`, a frozenset of the names of
    those fields of a Command; of others it is reported that they are not used.
    """

    async def apply(self, command: Command) -> float:
        """Writes, reads back, compares; the heat rate, W, that the device confirms.

        Raises:
            ActuatorError: not confirmed; the caller releases.
        """
        ...

    async def release(self) -> None:
        """Rejects all heat locally; idempotent.

        Raises:
            ActuatorError: not confirmed; the caller tries again and alarms.
        """
        ...

    async def close(self) -> None:
        """Frees the device; may be called twice."""
        ...


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


class Uplink(Protocol):
    """The line to one aggregator; opened with Hello already answered.

    `durable` is all that Hello's answer says: another disk there may know less than was told
    before. What is packed by one of `refused_schemas` is kept aside there, unread.
    """

    durable: Sequence[Durable]
    refused_schemas: Sequence[str]

    @property
    def limits(self) -> LineLimits:
        """What is to be kept now; the aggregator may change it at any time."""
        ...

    async def send(self, frame: SpoolFrame) -> Sent | None:
        """Hands one frame to the line; waits while the window of its lane is full.

        None: a Resend came meanwhile and nothing is written: go back to it first.

        Raises:
            UplinkError: the line is down.
        """
        ...

    async def aged(self) -> None:
        """Returns once a new line with a newer certificate should be opened; never without one."""
        ...

    async def settled(self, lane: Lane) -> bool:
        """Returns once all that was sent on a lane has arrived; False: a Resend came first."""
        ...

    async def tell(self, loss: SpoolLoss) -> None:
        """Says which rows will never come; telling twice is harmless.

        Raises:
            UplinkError: the line is down.
        """
        ...

    def acks(self) -> AsyncIterator[Durable | Resend | LineLimits]:
        """What becomes durable after Hello's answer, what is missed, what is to be kept now."""
        ...

    def setpoints(self) -> AsyncIterator[Setpoint | Heartbeat]:
        """What is wished from this site."""
        ...

    async def report(self, report: SetpointReport) -> None:
        """Tells what became of a setpoint."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who opens a line: the site, its queues and schemas, and what proves it."""

    site_id: SiteId
    marks: Sequence[SpoolMark]
    schemas: Sequence[Schema]
    rejection_capacity_w: float | None
    loop_ids: Sequence[str]
    identity: Identity | None = None


class Shelf(Protocol):
    """What was learnt of hosts and loops, on disk; every method blocks."""

    def calibration(self) -> Calibration:
        """What a person has had learnt."""
        ...

    def learned(self) -> Calibration:
        """What the daemon has learnt in an earlier life."""
        ...

    def is_changed(self) -> bool:
        """Whether a person has had something learnt since that was last read."""
        ...

    def is_forgotten(self) -> bool:
        """Whether a person has taken away what the daemon has learnt; told once."""
        ...

    def keep_learned(self, told: Calibration, *, saved_ns: int) -> None:
        """Replaces what the daemon has learnt.

        Raises:
            StoreError: the disk refused.
        """
        ...
