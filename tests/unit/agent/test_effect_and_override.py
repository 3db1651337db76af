"""An effect is a move of the meter; an override has an end that no clock and no restart moves."""

from pathlib import Path

import pytest

from heatpool.errors import StoreError
from heatpool_agent.core.effect import Applied, is_awaited, is_past, is_seen
from heatpool_agent.core.override import MOST_S, OverrideAsk, ask_mistake, asked, begun
from heatpool_agent.kept_orders import OverrideFile, SeenOrders

NS = 1_000_000_000
EVENT_NS = 1_750_000_000 * NS
LAG_S = 100.0


def applied(before_w: float | None, heat_rate_w: float = 9_000.0) -> Applied:
    return Applied(heat_rate_w=heat_rate_w, before_w=before_w, boot_ns=0)


@pytest.mark.parametrize(
    ("before_w", "now_w", "at_s", "is_effect"),
    [
        (0.0, 8_500.0, 30, True),
        (0.0, 4_000.0, 30, False),  # on its way
        (20_000.0, 9_500.0, 30, True),  # down is an effect, too
        (8_700.0, 9_000.0, 30, False),  # it was there before the order
        (None, 9_000.0, 30, False),  # nobody knows what was there
        (0.0, None, 30, False),
        (0.0, 9_000.0, 101, False),  # too late to be of this order
    ],
)
def test_an_effect_is_a_move_of_the_meter_in_time(
    before_w: float | None, now_w: float | None, at_s: int, *, is_effect: bool
) -> None:
    seen = is_seen(applied(before_w), now_w, boot_ns=at_s * NS, within_s=LAG_S)
    assert seen is is_effect


def test_down_to_nothing_is_seen_though_a_meter_never_shows_quite_nothing() -> None:
    order = applied(9_000.0, heat_rate_w=0.0)
    assert is_awaited(order)
    assert is_seen(order, 100.0, boot_ns=NS, within_s=LAG_S)
    assert is_past(order, 101 * NS, LAG_S)


@pytest.mark.parametrize(
    ("for_s", "reason"),
    [
        (0.0, "x"),
        (-1.0, "x"),
        (float("nan"), "x"),
        (float("inf"), "x"),
        (MOST_S + 1, "x"),
        (60.0, "  "),
        (60.0, "two\nlines"),
        (60.0, "x" * 999),
    ],
)
def test_an_override_without_end_or_reason_is_none(for_s: float, reason: str) -> None:
    assert ask_mistake(for_s, reason)


def test_an_override_runs_on_the_boot_clock_and_says_until_when() -> None:
    ask = asked(7200.0, "filter is changed", event_ns=EVENT_NS)
    override = begun(ask, boot_ns=5 * NS, event_ns=EVENT_NS)
    assert override is not None
    assert (override.heat_rate_w, override.ends_boot_ns) == (None, (5 + 7200) * NS)
    assert override.reason == "local override until 2025-06-15T17:06:40Z: filter is changed"


@pytest.mark.parametrize(
    ("later_s", "left_s"),
    [(0, 7200), (3600, 3600), (7199, 1), (7200, None), (-43_200, 7200), (43_200, None)],
)
def test_a_restart_keeps_what_is_left_and_never_more_than_was_asked(
    later_s: int, left_s: int | None
) -> None:
    ask = asked(7200.0, "filter", event_ns=EVENT_NS)
    override = begun(ask, boot_ns=0, event_ns=EVENT_NS + later_s * NS)
    assert (override.ends_boot_ns // NS if override else None) == left_s


def test_a_file_that_asks_for_years_gets_a_week() -> None:
    ask = OverrideAsk(asked_ns=EVENT_NS, until_ns=EVENT_NS * 2, reason="x")
    override = begun(ask, boot_ns=0, event_ns=EVENT_NS)
    assert override is not None
    assert override.ends_boot_ns == MOST_S * NS


def test_what_is_asked_is_read_back(tmp_path: Path) -> None:
    file, ask = OverrideFile(tmp_path / "state"), asked(60.0, "ä", event_ns=EVENT_NS)
    assert file.read() is None
    file.write(ask)
    assert file.read() == ask
    assert (file.path.stat().st_mode & 0o777) == 0o600
    assert (file.remove(), file.remove()) == (True, False)
    assert list(file.path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"until_ns": 1}',
        b'{"asked_ns": 5, "until_ns": 4, "reason": ""}',
        b'{"asked_ns": 4, "until_ns": 5, "reason": "K\xfchlung"}',
        b"[]",
        b"\x00" * 9,
    ],
)
def test_an_override_that_cannot_be_read_is_told(tmp_path: Path, content: bytes) -> None:
    file = OverrideFile(tmp_path)
    file.path.write_bytes(content)
    with pytest.raises(StoreError, match=r"override\.json"):
        file.read()


def test_the_highest_number_outlives_the_process(tmp_path: Path) -> None:
    seen = SeenOrders(tmp_path, "rack")
    assert seen.read() == 0
    seen.keep(7)
    seen.keep(EVENT_NS)
    assert SeenOrders(tmp_path, "rack").read() == EVENT_NS
    assert SeenOrders(tmp_path, "other").read() == 0


def test_a_lower_number_that_comes_late_to_the_disk_changes_nothing(tmp_path: Path) -> None:
    seen = SeenOrders(tmp_path, "rack")
    seen.keep(9)
    seen.keep(7)
    assert SeenOrders(tmp_path, "rack").read() == 9


def test_a_number_that_cannot_be_read_or_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "last_order.rack.json").write_text("{}")
    with pytest.raises(StoreError):
        SeenOrders(tmp_path, "rack").read()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        SeenOrders(tmp_path / "file", "rack").keep(1)
