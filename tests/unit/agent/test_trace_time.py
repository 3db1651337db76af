"""Stamps of a trace: each kind is told, and no stamp is read as another."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.trace_time import TimeKind, event_ns, is_ambiguous, time_kind

NEW_YEAR_NS = 1_767_225_600_000_000_000


@pytest.mark.parametrize(
    ("stamp", "kind", "at_ns", "is_assumed"),
    [
        ("2026-01-01T00:00:00Z", "iso", NEW_YEAR_NS, False),
        ("2026-01-01T01:00:00+01:00", "iso", NEW_YEAR_NS, False),
        ("2026-01-01 00:00:00", "iso", NEW_YEAR_NS, True),
        ("2026-01-01", "iso", NEW_YEAR_NS, True),
        ("2026-01-01T00:00:00.250Z", "iso", NEW_YEAR_NS + 250_000_000, False),
        ("1767225600", "epoch_s", NEW_YEAR_NS, False),
        ("1767225600.5", "epoch_s", NEW_YEAR_NS + 500_000_000, False),
        ("1767225600000", "epoch_ms", NEW_YEAR_NS, False),
        ("1767225600000000", "epoch_us", NEW_YEAR_NS, False),
        ("1767225600000000001", "epoch_ns", NEW_YEAR_NS + 1, False),
        ("12.5", "seconds_from_0", 12_500_000_000, False),
        ("13.01.2026 00:00", "day_first", NEW_YEAR_NS + 12 * 86_400 * 10**9, True),
        ("01-13-2026 00:00:00.001", "month_first", NEW_YEAR_NS + 1_036_800_001_000_000, True),
        ("01/13/2026 12:00 AM", "month_first", NEW_YEAR_NS + 12 * 86_400 * 10**9, True),
    ],
)
def test_a_stamp_is_read_as_its_kind(
    stamp: str, kind: str, at_ns: int, *, is_assumed: bool
) -> None:
    found = time_kind([stamp])
    assert found is not None
    assert found.name == kind
    assert event_ns(stamp, found) == (at_ns, is_assumed)


@pytest.mark.parametrize("stamp", ["", "kW", "soon", "2026-13-40", "inf", "1e400", "99.99.2026"])
def test_what_is_no_time_gives_none(stamp: str) -> None:
    for name in ("iso", "day_first"):
        assert event_ns(stamp, TimeKind(name=name)) is None
    assert event_ns(stamp, TimeKind(name="epoch_s", ns=10**9)) is None


def test_a_date_whose_day_and_month_could_change_places_is_refused() -> None:
    stamps = ["03/04/2026 10:00", "03/05/2026 10:00"]
    assert time_kind(stamps) is None
    assert is_ambiguous(stamps)
    assert time_kind([*stamps, "03/13/2026 10:00"]) == TimeKind(
        name="month_first", flags=("zone_assumed",)
    )


@pytest.mark.parametrize("stamps", [["40000", "40010"], ["40000.5", "40010.5"], ["46023.25"]])
def test_seconds_of_that_size_stay_seconds(stamps: list[str]) -> None:
    kind = time_kind(stamps)
    assert kind is not None
    assert kind.name == "seconds_from_0"


def test_seconds_from_0_say_so() -> None:
    found = time_kind(["0", "10", "20"])
    assert found is not None
    assert found.flags == ("time_from_zero",)


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001
def test_iso_and_epoch_tell_one_time(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    micros = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    told = event_ns(aware.isoformat(), TimeKind(name="iso"))
    assert told == (micros * 1000, False)
    assert event_ns(str(micros), TimeKind(name="epoch_us", ns=1000)) == told


@given(st.text(max_size=40))
def test_no_text_makes_it_fall(text: str) -> None:
    kind = time_kind([text])
    for one in (kind, TimeKind(name="iso"), TimeKind(name="epoch_ms", ns=10**6)):
        found = None if one is None else event_ns(text, one)
        assert found is None or abs(found[0]) < 2**63
