"""A site whose clock is set while it runs, and whose line comes and goes: frames as they arrive.

True times are known here alone; what the aggregator makes of the frames is held against them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from integration import site_client as site

from heatpool.codec import pack
from heatpool.sample import BootId, Row, SiteId
from heatpool_aggregator.core.chunk import chunk_from_bytes
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.applying import Applying
from heatpool_aggregator.loops.effects import Effects
from heatpool_aggregator.ports import Frame, FrameKind

NS = 10**9
NOON_NS = 1_700_000_000 * NS
SITE = SiteId("site-a")
ROWS_COUNT, ROW_S = 6, 10
READ_MINUTES = 15
VALUES = (1000.0, 900.0, 45.0, 45.0, 35.0, 2.0, 4.0)


@dataclass(slots=True, repr=False)
class Made:
    """A frame that a site has written: true and shown times of its rows, ns."""

    kind: FrameKind
    seq: int
    true_ns: list[int]
    shown_ns: list[int]


@dataclass(slots=True, repr=False)
class FarClock:
    """The site; `sent` takes each frame at its arrival."""

    sent: Callable[[Frame], None]
    at_ns: int = NOON_NS
    error_s: float = 0.0
    is_cut: bool = False
    is_live_first: bool = False
    delay_s: float = 0.2
    made: list[Made] = field(default_factory=list)
    waiting: list[Made] = field(default_factory=list)
    minutes_count: int = 0

    def hello(self) -> None:
        """Says which channels it has."""
        data = site.hello().SerializeToString()
        self.sent(Frame(SITE, BootId(""), FrameKind.HELLO, 0, self.at_ns, data))

    def run(self, minutes: int) -> None:
        """Lives on: a frame of telemetry each minute, a register each quarter of an hour."""
        for _ in range(minutes):
            true_ns = [self.at_ns + (place + 1) * ROW_S * NS for place in range(ROWS_COUNT)]
            self.at_ns = true_ns[-1]
            self._make(FrameKind.TELEMETRY, true_ns)
            self.minutes_count += 1
            if self.minutes_count % READ_MINUTES == 0:
                self._make(FrameKind.BILLING, [self.at_ns])
            if not self.is_cut:
                self._send_some()

    def drain(self) -> None:
        """Sends all that waits."""
        while self.waiting:
            self._send(self.waiting.pop(0))

    def _make(self, kind: FrameKind, true_ns: list[int]) -> None:
        shown_ns = [ns + round(self.error_s * NS) for ns in true_ns]
        seq = 1 + sum(one.kind is kind for one in self.made)
        self.made.append(Made(kind, seq, true_ns, shown_ns))
        self.waiting.append(self.made[-1])

    def _send_some(self) -> None:
        """Registers first and in order; of telemetry the newest, and some of the backlog."""
        bills = [one for one in self.waiting if one.kind is FrameKind.BILLING]
        rest = [one for one in self.waiting if one.kind is FrameKind.TELEMETRY]
        old, fresh = (rest[:-1], rest[-1:]) if self.is_live_first else (rest, [])
        count = 3 if self.is_live_first else len(old)
        self.waiting = old[count:]
        for one in (*bills, *fresh, *old[:count]):
            self._send(one)

    def _send(self, one: Made) -> None:
        self.at_ns += NS // 1000
        sent_ns = self.at_ns + round(self.error_s * NS)
        received_ns = self.at_ns + round(self.delay_s * NS)
        is_billing = one.kind is FrameKind.BILLING
        message = _registers(one, sent_ns) if is_billing else _batch(one, sent_ns)
        boot_id = BootId("site-a-b" if is_billing else "site-a-t")
        data: bytes = message.SerializeToString()
        self.sent(Frame(SITE, boot_id, one.kind, one.seq, received_ns, data))


def _batch(one: Made, sent_ns: int) -> Any:
    rows = [
        Row(event_ns=ns, cells=dict(zip(site.CHANNELS, VALUES, strict=True))) for ns in one.shown_ns
    ]
    columns = pack(rows, site.CHANNELS, schema_id=1)
    return site.batch(
        one.seq,
        columns.start_ns,
        n_rows=len(rows),
        step_ns=columns.step_ns,
        dt_ns=columns.dt_ns,
        cells=columns.cells,
        sent_ns=sent_ns,
    )


def _registers(one: Made, sent_ns: int) -> Any:
    message = site.registers(one.seq, one.shown_ns[0], 1000 * one.seq)
    message.registers.sent_ns = sent_ns
    return message


@dataclass(slots=True, repr=False)
class Taken:
    """An aggregator of one site; frames that come in one by one, or many at once."""

    at_once: int = 1
    restarts_in: int = 3
    state: ShardState = field(default_factory=ShardState)
    effects: Effects = field(default_factory=Effects)
    waiting: list[Frame] = field(default_factory=list)

    def take(self, frame: Frame) -> None:
        """One frame of the log."""
        self.waiting.append(frame)
        if len(self.waiting) >= self.at_once:
            self.apply()

    def apply(self) -> None:
        """All that came; now and then after a restart: a snapshot has to know everything."""
        self.restarts_in -= 1
        if self.restarts_in <= 0:
            self.state, self.restarts_in = ShardState.from_bytes(self.state.to_bytes()), 7
        Applying(self.state, asked_w={}).apply_all(self.waiting, self.effects)
        self.waiting = []

    def times_ns(self, kind: FrameKind) -> dict[int, list[int]]:
        """What became of the times of each frame's rows; a frame that came twice fails."""
        found: dict[int, list[int]] = {}
        if kind is FrameKind.BILLING:
            for stored in self.effects.registers:
                assert stored.seq not in found
                found[stored.seq] = [stored.row.event_ns]
            return found
        for chunk in self.effects.chunks:
            raw_ns = chunk_from_bytes(chunk.blob).times_ns.tolist()
            assert chunk.seq not in found
            found[chunk.seq] = [ns + chunk.start_ns - min(raw_ns) for ns in raw_ns]
        return found
