"""Signed numbers of many messages at once: the same as one by one."""

from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heatpool_aggregator.core.varints import ends_of, signed_at, values_at, zigzag
from heatpool_aggregator.wire.acks import varint

ENDLESS = b"\x81" * 9 + b"\x01"
NUMBERS = st.one_of(st.integers(0, 127), st.integers(0, 2**21), st.integers(0, 2**63 - 1))
WRITTEN = st.lists(st.one_of(NUMBERS.map(varint), st.just(ENDLESS)), max_size=40)


def signed(number: int) -> int:
    return number >> 1 ^ -(number & 1)


@given(st.lists(NUMBERS, max_size=40))
def test_numbers_are_what_was_written_and_none_is_too_long(numbers: list[int]) -> None:
    written = [varint(number) for number in numbers]
    bounds = [0, *accumulate(map(len, written))]
    data = np.frombuffer(b"".join(written), np.uint8)
    found, counts, too_long = signed_at(data, np.array(bounds))
    assert found.tolist() == [signed(number) for number in numbers]
    assert counts.tolist() == list(range(len(numbers) + 1))
    assert not len(too_long)


@given(WRITTEN)
def test_those_that_do_not_end_in_time_are_named(written: list[bytes]) -> None:
    bounds = [0, *accumulate(map(len, written))]
    data = np.frombuffer(b"".join(written), np.uint8)
    found, counts, too_long = signed_at(data, np.array(bounds))
    assert too_long.tolist() == [place for place, one in enumerate(written) if one == ENDLESS]
    assert counts.tolist() == list(range(len(written) + 1))
    assert found.tolist() == zigzag(values_at(data, ends_of(data))[0]).tolist()
