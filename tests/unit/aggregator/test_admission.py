"""What may enter: ranges against plain sets, checksums, clocks, figures that cannot be."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import (
    BootId,
    Channel,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Schema,
    SiteId,
)
from heatpool.units import NS_PER_S
from heatpool_aggregator.core.admission import (
    BOOTS_LIMIT,
    FINGERPRINTS_COUNT,
    RANGES_LIMIT,
    SCHEMAS_LIMIT,
    DurableRanges,
    Fingerprints,
    Ranges,
    SiteClock,
    Verdict,
    register_mistake,
    schema_mistake,
)

KEY = (SiteId("site-a"), BootId("boot-1"))
spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair)))
)


def numbers(pairs: list[tuple[int, int]]) -> set[int]:
    return {seq for first, last in pairs for seq in range(first, last + 1)}


@given(spans)
def test_ranges_hold_what_was_added_and_nothing_else(pairs: list[tuple[int, int]]) -> None:
    ranges = Ranges(pairs)
    assert {seq for seq in range(80) if ranges.holds(seq)} == numbers(pairs)
    assert numbers(ranges.pairs()) == numbers(pairs)


@given(spans)
def test_ranges_neither_overlap_nor_touch(pairs: list[tuple[int, int]]) -> None:
    found = Ranges(pairs).pairs()
    gaps = [after[0] - before[1] for before, after in pairwise(found)]
    assert all(gap > 1 for gap in gaps)


@given(spans, st.randoms(use_true_random=False))
def test_ranges_are_blind_to_order_and_repetition(pairs: list[tuple[int, int]], chance) -> None:  # type: ignore[no-untyped-def]
    again = [*pairs, *pairs]
    chance.shuffle(again)
    assert Ranges(again).pairs() == Ranges(pairs).pairs()


@given(spans, st.integers(0, 70))
def test_the_watermark_stops_before_the_first_hole(
    pairs: list[tuple[int, int]], first: int
) -> None:
    ranges, known = Ranges(pairs), numbers(pairs)
    last = ranges.contiguous_from(first)
    assert set(range(first, last + 1)) <= known
    assert last + 1 not in known or last + 1 < first


@given(spans, st.integers(0, 70))
def test_the_oldest_hole_lies_between_durable_numbers(
    pairs: list[tuple[int, int]], first: int
) -> None:
    ranges, known = Ranges(pairs), numbers(pairs)
    hole = ranges.oldest_hole(first)
    is_open = any(seq > ranges.contiguous_from(first) for seq in known)
    assert (hole is not None) == is_open
    assert not hole or (not known & set(range(hole[0], hole[1] + 1)) and hole[1] + 1 in known)


def test_a_number_seen_before_is_a_repeat() -> None:
    durable = DurableRanges()
    durable.add(KEY, 1, 3)
    assert [durable.verdict(KEY, seq) for seq in (3, 4)] == [Verdict.REPEAT, Verdict.NEW]


def test_another_boot_id_is_another_spool() -> None:
    durable = DurableRanges()
    durable.add(KEY, 1, 3)
    assert durable.verdict((KEY[0], BootId("boot-2")), 3) is Verdict.NEW


def test_more_than_64_ranges_are_not_taken() -> None:
    durable = DurableRanges()
    for seq in range(0, 2 * RANGES_LIMIT, 2):
        durable.add(KEY, seq, seq)
    assert durable.verdict(KEY, 10_000) is Verdict.SCATTERED
    assert durable.verdict(KEY, 1) is Verdict.NEW


def test_of_too_many_boot_ids_the_one_goes_that_was_named_least_lately() -> None:
    durable, site_id = DurableRanges(), SiteId("a")
    for number in range(BOOTS_LIMIT):
        durable.add((site_id, BootId(str(number))), 1, 1)
    durable.named((site_id, BootId("0")))
    durable.add((site_id, BootId("new")), 1, 1)
    left = [number for number in range(3) if durable.of((site_id, BootId(str(number)))).pairs()]
    assert (left, durable.forgotten_count) == ([0, 2], 1)


def test_ranges_come_back_out_of_a_snapshot() -> None:
    durable = DurableRanges()
    durable.add(KEY, 1, 3)
    durable.add(KEY, 7, 9)
    assert DurableRanges.from_list(durable.to_list()).of(KEY).pairs() == [(1, 3), (7, 9)]  # type: ignore[arg-type]


def test_the_same_number_with_other_content_shows() -> None:
    prints = Fingerprints()
    prints.remember(5, 111)
    assert [prints.differs(5, 111), prints.differs(5, 222), prints.differs(6, 222)] == [
        False,
        True,
        False,
    ]


@given(st.lists(st.integers(0, 3 * FINGERPRINTS_COUNT), max_size=80))
def test_a_checksum_is_never_taken_for_that_of_another_number(seqs: list[int]) -> None:
    prints = Fingerprints()
    for seq in seqs:
        prints.remember(seq, seq + 1)
    assert not any(prints.differs(seq, seq + 1) for seq in range(3 * FINGERPRINTS_COUNT))


def observed(*offsets_s: float) -> SiteClock:
    clock = SiteClock()
    for offset_s in offsets_s:
        clock = clock.observed(sent_ns=0, received_ns=round(offset_s * NS_PER_S))
    return clock


@pytest.mark.parametrize(
    ("offsets_s", "offset_s", "is_flagged", "is_held"),
    [
        ((), 0, False, False),
        ((0.05, 0.01, 1.5), 0.01, False, False),
        ((30.0,), 30, True, False),
        ((-700.0,), -700, True, True),
        # One message that waited long says nothing about the clock.
        ((0.01, 900.0), 0.01, False, False),
        # A clock that was set right: three that agree put an end to the old offset.
        ((-700.0, -700.0, 0.1, 0.2, 0.1), 0.1, False, False),
        ((-700.0, -700.0, 0.1, 0.2), -700, True, True),
        # Far off: held until three agree.
        ((-43_200.0, -43_199.5), -43_200, True, True),
        ((-43_200.0, -43_199.5, -43_190.0), -43_200, True, True),
        ((-43_200.0, -43_199.5, -43_198.5), -43_200, True, False),
        ((0.1, 0.1, 0.1, 259_200.0, 259_200.0), 0.1, False, False),
        ((0.1, 0.1, 0.1, 259_200.0, 259_200.0, 259_200.0), 259_200, True, False),
    ],
)
def test_a_clock_is_judged_by_its_quickest_message(
    *, offsets_s: tuple[float, ...], offset_s: float, is_flagged: bool, is_held: bool
) -> None:
    clock = observed(*offsets_s)
    assert clock.offset_ns == round(offset_s * NS_PER_S)
    assert (clock.is_flagged, clock.is_held) == (is_flagged, is_held)


def test_only_a_flagged_clock_is_corrected() -> None:
    assert observed(1.0).corrected_ns(100) == 100
    assert observed(30.0).corrected_ns(100) == 100 + 30 * NS_PER_S
    # Rows of a clock that is far off are corrected as they come in, not when they are shown.
    assert observed(43_200.0).corrected_ns(100) == 100


def schema(*channels: Channel) -> Schema:
    return Schema(schema_id=1, boot_id=BootId("boot-1"), channels=channels)


@pytest.mark.parametrize(
    ("channels", "place", "told"),
    [
        ((Channel("a", "hot_c", -3),), 0, None),
        ((), 0, "0 channels"),
        (tuple(Channel("a", f"q{i}_w") for i in range(257)), 0, "257 channels"),
        ((Channel("a", "hot_c", -3), Channel("a", "hot_c", -2)), 0, "more than once"),
        ((Channel("a", "hot_c", -12),), 0, "exponent"),
        ((Channel("a", ""),), 0, "quantity"),
        ((Channel("a", "hot_c", -3),), SCHEMAS_LIMIT, "number 33"),
    ],
)
def test_a_channel_list_that_cannot_be_is_refused(
    channels: tuple[Channel, ...], place: int, told: str | None
) -> None:
    mistake = schema_mistake(schema(*channels), place=place)
    assert (mistake is None) if told is None else (mistake is not None and told in mistake)


ROW = RegisterRow(
    metering_point_id=MeteringPointId("meter"),
    meter_id=MeterId("KAM.1.2.4"),
    event_ns=1,
    raw=5,
    exponent=0,
    modulus=10**8,
    reason=RegisterReason.PERIODIC,
)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"raw": 2**63}, "raw"),
        ({"modulus": 2**63}, "modulus"),
        ({"exponent": 10}, "exponent"),
        ({"event_ns": 0}, "event_ns"),
        ({"meter_id": ""}, "meter_id"),
    ],
)
def test_a_register_that_cannot_be_is_refused(change: dict[str, int], told: str | None) -> None:
    mistake = register_mistake(replace(ROW, **change))  # type: ignore[arg-type]
    assert (mistake is None) if told is None else (mistake is not None and told in mistake)
