"""What one site says under a number: always the same, so that a repeat is one in all its bytes."""

from collections.abc import Iterator

from heatpool.sample import SpoolKind
from heatpool_sim.load import figures
from heatpool_sim.load.queue import Queue
from heatpool_sim.wire import garbage, up

POINT = "meter"
_WH_LEAST, _WH_SPREAD = 900, 300  # of one register period
_VARIANT_STEP, _WH_STEP = 31, 7_919
_KINDS = tuple(garbage.FRAMES)


class Voice:
    """Frames of one site; a liar's live telemetry cannot be used."""

    def __init__(self, number: int, *, live_from_seq: int, is_liar: bool) -> None:
        self._number, self._live_from_seq = number, live_from_seq
        self.is_liar = is_liar

    def frame(self, queue: Queue, seq: int, *, sent_ns: int, reads_zlib: bool) -> bytes:
        """The message of a frame."""
        if queue.kind is SpoolKind.BILLING:
            readings = list(self._readings(queue, seq))
            return up.registers(seq, readings, sent_ns=sent_ns)
        stretch = queue.course.at(seq)
        start_ns = stretch.start_of(seq)
        if kind := self.garbage_kind(queue, seq):
            make, _ = garbage.FRAMES[kind]
            return make(seq, start_ns, sent_ns, len(figures.CHANNELS))
        is_packed = reads_zlib and stretch.n_rows >= up.ZLIB_ROWS_LEAST
        bodies = figures.bodies(stretch.n_rows, stretch.step_ns, is_packed=is_packed)
        body = bodies[(self._number * _VARIANT_STEP + seq) % len(bodies)]
        return up.telemetry(seq, body, start_ns=start_ns, sent_ns=sent_ns)

    def garbage_kind(self, queue: Queue, seq: int) -> str | None:
        """What is wrong with a frame; None where nothing is."""
        if not self.is_liar or queue.kind is SpoolKind.BILLING or seq < self._live_from_seq:
            return None
        return _KINDS[seq % len(_KINDS)]

    def _readings(self, queue: Queue, seq: int) -> Iterator[up.Reading]:
        stretch = queue.course.at(seq)
        before = queue.course.rows(1, seq - 1)
        # Each run has a meter of its own: a register of before that fell would be no money.
        meter_id = f"HPL.{self._number:08d}.{queue.boot_id[-8:]}"
        for place in range(stretch.n_rows):
            yield up.Reading(
                metering_point_id=POINT,
                meter_id=meter_id,
                event_ns=stretch.start_of(seq) + place * stretch.step_ns,
                raw_wh=self.register_wh(before + place),
            )

    def register_wh(self, row: int) -> int:
        """What the meter shows at its row of this number, from 0; it rises with each row, Wh."""
        most = _WH_LEAST + self._number % _WH_SPREAD
        return row * most + (row * _WH_STEP + self._number) % most
