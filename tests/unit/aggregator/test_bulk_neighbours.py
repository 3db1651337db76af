"""A broken batch harms no other one of the same commit, which may be of another site."""

from hypothesis import given
from hypothesis import strategies as st

from heatpool.v1 import telemetry_pb2 as pb
from heatpool_aggregator.wire.bulk import bulk_from_bytes

CELLS = [1, -2, 300]


def batch(cells: list[int] = CELLS) -> bytes:
    said = pb.TelemetryBatch(
        seq=1,
        schema_id=1,
        start_ns=1,
        step_ns=1,
        n_rows=3,
        cells=cells,
        codec=pb.PAYLOAD_CODEC_NONE,
        sent_ns=5,
    )
    return pb.TelemetryServiceStreamRequest(telemetry=said).SerializeToString()


def cells_of(payloads: list[bytes], place: int) -> list[int]:
    heads, cells = bulk_from_bytes(payloads)
    head = heads[place]
    assert head is not None
    found: list[int] = cells[head.first : head.last].tolist()
    return found


def test_a_number_that_does_not_end_takes_nothing_from_the_next_batch() -> None:
    whole = batch()
    # The last byte of 300 says that one more follows.
    broken = whole.replace(b"\x02\x03\xd8\x04", b"\x02\x03\xd8\x84")
    assert broken != whole
    assert cells_of([broken, whole], 1) == CELLS
    assert cells_of([whole, broken, whole], 2) == CELLS
    assert bulk_from_bytes([broken]).heads == [None]


@given(st.lists(st.binary(max_size=12), max_size=3), st.integers(0, 60), st.binary(max_size=3))
def test_whatever_goes_before_a_batch_means_what_it_means_alone(
    before: list[bytes], at: int, put: bytes
) -> None:
    whole = batch()
    spoilt = whole[: at % len(whole)] + put + whole[at % len(whole) + len(put) :]
    assert cells_of([*before, spoilt, whole], len(before) + 1) == CELLS
