"""A frame as it lies on disk: packed, and with a check sum over all that it says.

SQLite checks its own pages' build, not what stands in them: a flipped bit would go up as a figure.
"""

import zlib
from dataclasses import dataclass

import msgpack

from heatpool.errors import WireError
from heatpool_agent.ports import Seq

# What reading spoiled bytes as rows may raise.
NONSENSE = (ValueError, TypeError, LookupError, OverflowError, msgpack.UnpackException, WireError)
PLAIN, ZLIB = 0, 1
LEVEL = 1
MOST_BYTES = 16 * 1024 * 1024
COLUMNS = "seq, start_ns, end_ns, payload, codec, rows_count, step_s, check_sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One row of table `frames`; a file of version 3 knew the first four fields only."""

    seq: Seq
    start_ns: int
    end_ns: int
    blob: bytes
    codec: int | None = None
    rows_count: int | None = None
    step_s: int | None = None
    check_sum: int | None = None

    @property
    def payload(self) -> bytes:
        """What was given to the spool.

        Raises:
            WireError: the disk spoiled it.
        """
        # Version 3 had neither packing nor sum.
        if self.codec is not None and self.check_sum != sum_of(self):
            raise WireError(f"frame {self.seq} is not what was written")
        if self.codec != ZLIB:
            return self.blob
        try:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(self.blob, MOST_BYTES)
        except zlib.error as error:
            raise WireError(f"frame {self.seq} cannot be unpacked: {error}") from error
        if not unpacker.eof:
            raise WireError(f"frame {self.seq} ends early")
        return data

    def fields(self) -> tuple[object, ...]:
        """In the order of `COLUMNS`, with the check sum."""
        return (
            self.seq,
            self.start_ns,
            self.end_ns,
            self.blob,
            self.codec,
            self.rows_count,
            self.step_s,
            sum_of(self),
        )


def stored(
    seq: int, span: tuple[int, int], payload: bytes, *, rows_count: int, step_s: int = 0
) -> Stored:
    """A frame ready for the disk, packed if that makes it smaller."""
    packed = zlib.compress(payload, LEVEL)
    is_smaller = len(packed) < len(payload)
    return Stored(
        seq=Seq(seq),
        start_ns=span[0],
        end_ns=span[1],
        blob=packed if is_smaller else payload,
        codec=ZLIB if is_smaller else PLAIN,
        rows_count=rows_count,
        step_s=step_s,
    )


def sum_of(frame: Stored) -> int:
    """CRC-32 over number, span and packing, then the bytes."""
    head = f"{frame.seq} {frame.start_ns} {frame.end_ns} {frame.codec} {frame.rows_count}"
    return zlib.crc32(frame.blob, zlib.crc32(f"{head} {frame.step_s}".encode()))


def from_row(row: tuple[object, ...]) -> Stored:
    """A row of `SELECT {COLUMNS}`.

    Raises:
        WireError: the disk spoiled it.
    """
    seq, start_ns, end_ns, blob, *rest = row
    if not (isinstance(seq, int) and isinstance(start_ns, int) and isinstance(end_ns, int)):
        raise WireError(f"frame {seq} has no span")
    numbers = [field if isinstance(field, int) else None for field in rest]
    codec, rows_count, step_s, check_sum = numbers
    return Stored(
        seq=Seq(seq),
        start_ns=start_ns,
        end_ns=end_ns,
        blob=blob if isinstance(blob, bytes) else b"",
        codec=codec,
        rows_count=rows_count,
        step_s=step_s,
        check_sum=check_sum,
    )
