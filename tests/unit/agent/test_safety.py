"""No message, delay or loss takes away local rejection; silence always ends in release."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import SiteId
from heatpool.setpoint import LEASE_MAX_S, LEASE_MIN_S, Heartbeat, Setpoint, SetpointState
from heatpool_agent.core.safety import (
    Command,
    Held,
    Limits,
    LoopState,
    Override,
    SafetyReading,
    admit,
    clamp_w,
    decide,
    renew,
)

NS = 1_000_000_000
Messages = Sequence[tuple[Setpoint | Heartbeat, int, bool, int]]
EVENT_NS = 1_750_000_000 * NS
LIMITS = Limits(max_heat_rate_w=60_000, rejection_capacity_w=50_000)
WISH = Setpoint(
    setpoint_id="s1",
    setpoint_seq=1,
    plan_id="p1",
    site_id=SiteId("a"),
    heat_rate_w=40_000,
    valid_from_ns=EVENT_NS,
    lease_s=120,
    reason="plan p1",
)


def _fine(boot_ns: int) -> LoopState:
    return LoopState(
        hot_c=SafetyReading(value=45.0, boot_ns=boot_ns),
        leak=SafetyReading(value=0.0, boot_ns=boot_ns),
    )


def _held(setpoint: Setpoint = WISH, *, boot_ns: int = 0) -> Held | None:
    return admit(None, setpoint, boot_ns=boot_ns, event_ns=EVENT_NS)[0]


def _told(
    held: Held | None, *, boot_ns: int, limits: Limits = LIMITS, override: Override | None = None
) -> Command:
    return decide(held, _fine(boot_ns), limits, override=override, boot_ns=boot_ns)


def test_without_a_message_all_heat_is_rejected_here() -> None:
    assert _told(None, boot_ns=0) == Command.release("no lease")


def test_a_wish_within_limits_is_followed_while_its_lease_runs() -> None:
    assert _told(_held(), boot_ns=120 * NS - 1) == Command.deliver(40_000, "plan p1")


def test_a_lease_ends_on_time() -> None:
    assert _told(_held(), boot_ns=120 * NS).heat_rate_w is None


@pytest.mark.parametrize("lease_s", [0.0, -5.0, LEASE_MIN_S - 0.01, LEASE_MAX_S + 0.1, 1e9])
def test_a_lease_beyond_its_bounds_is_refused(lease_s: float) -> None:
    wish = replace(WISH, setpoint_seq=2, lease_s=lease_s)
    held, state, detail = admit(_held(), wish, boot_ns=0, event_ns=EVENT_NS)
    assert (held, state) == (_held(), SetpointState.REFUSED)
    assert "lease_s" in detail


@pytest.mark.parametrize("jump_s", [-3600 * 24 * 365, -3600, 0, 3600, 3600 * 24 * 365])
def test_a_clock_jump_never_lengthens_a_lease(jump_s: int) -> None:
    held, _, _ = admit(None, WISH, boot_ns=0, event_ns=EVENT_NS + jump_s * NS)
    assert _told(held, boot_ns=120 * NS).heat_rate_w is None


def test_an_older_number_loses_even_after_the_lease_of_the_newer() -> None:
    held = _held(replace(WISH, setpoint_seq=7))
    after, state, detail = admit(held, WISH, boot_ns=999 * NS, event_ns=EVENT_NS)
    assert (after, state) == (held, SetpointState.REFUSED)
    assert detail == "seq 1 is not newer than 7: seen before"


def test_a_number_of_an_earlier_life_is_refused_as_a_recording() -> None:
    wish = replace(WISH, setpoint_seq=9)
    held, state, _ = admit(None, wish, boot_ns=0, event_ns=EVENT_NS, seen_seq=9)
    assert (held, state) == (None, SetpointState.REFUSED)


def test_a_newer_number_replaces_at_once() -> None:
    newer = replace(WISH, setpoint_seq=2, heat_rate_w=10_000)
    held, state, _ = admit(_held(), newer, boot_ns=NS, event_ns=EVENT_NS)
    assert (state, _told(held, boot_ns=NS).heat_rate_w) == (SetpointState.RECEIVED, 10_000)


def test_a_setpoint_of_later_leaves_the_present_one_until_then() -> None:
    later = replace(WISH, setpoint_seq=2, heat_rate_w=10_000, valid_from_ns=EVENT_NS + 60 * NS)
    held, _, _ = admit(_held(), later, boot_ns=0, event_ns=EVENT_NS)
    assert _told(held, boot_ns=59 * NS).heat_rate_w == 40_000
    assert _told(held, boot_ns=60 * NS).heat_rate_w == 10_000
    assert _told(held, boot_ns=120 * NS).heat_rate_w is None


@pytest.mark.parametrize("boot_s", [60, 200])
def test_the_same_setpoint_sent_again_starts_no_lease(boot_s: int) -> None:
    held, state, _ = admit(_held(), WISH, boot_ns=boot_s * NS, event_ns=EVENT_NS)
    assert (held, state) == (_held(), SetpointState.REFUSED)


def test_another_wish_under_the_same_number_is_refused() -> None:
    held, state, _ = admit(_held(), replace(WISH, heat_rate_w=1.0), boot_ns=0, event_ns=EVENT_NS)
    assert (state, held) == (SetpointState.REFUSED, _held())


@pytest.mark.parametrize(
    "change",
    [
        {"heat_rate_w": float("nan")},
        {"heat_rate_w": float("inf")},
        {"heat_rate_w": -1.0},
        {"heat_rate_upper_w": float("nan")},
        {"lease_s": float("nan")},
        {"lease_s": float("inf")},
        {"hot_c": float("nan")},
        {"ramp_w_s": float("inf")},
        {"ramp_w_s": 0.0},
    ],
)
def test_a_wish_that_is_no_number_is_refused(change: dict[str, Any]) -> None:
    bad = replace(WISH, setpoint_seq=2, **change)
    held, state, detail = admit(_held(), bad, boot_ns=0, event_ns=EVENT_NS)
    assert (held, state) == (_held(), SetpointState.REFUSED)
    assert detail


def test_a_dry_run_changes_nothing() -> None:
    held, state, _ = admit(
        _held(), replace(WISH, setpoint_seq=2, dry_run=True), boot_ns=0, event_ns=0
    )
    assert (held, state) == (_held(), SetpointState.RECEIVED)


def test_a_heartbeat_of_the_plan_renews_the_lease() -> None:
    held = renew(_held(), Heartbeat(plan_id="p1", server_ns=0), boot_ns=100 * NS)
    assert _told(held, boot_ns=219 * NS).heat_rate_w == 40_000
    assert _told(held, boot_ns=220 * NS).heat_rate_w is None


@pytest.mark.parametrize(("plan_id", "boot_s"), [("other", 100), ("p1", 120), ("p1", 500)])
def test_a_heartbeat_of_another_plan_or_too_late_renews_nothing(plan_id: str, boot_s: int) -> None:
    held = renew(_held(), Heartbeat(plan_id=plan_id, server_ns=0), boot_ns=boot_s * NS)
    assert held == _held()


def test_a_heartbeat_of_no_plan_renews_not_even_a_setpoint_of_no_plan() -> None:
    nameless = _held(replace(WISH, plan_id=""))
    assert renew(nameless, Heartbeat(plan_id="", server_ns=0), boot_ns=NS) == nameless


def test_wishes_beside_the_heat_rate_come_along_within_the_limits() -> None:
    command = _told(_held(replace(WISH, hot_c=90.0, ramp_w_s=50.0)), boot_ns=0)
    assert (command.hot_c, command.ramp_w_s) == (LIMITS.hot_limit_c, 50.0)


SEEN = _fine(0)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (replace(SEEN, leak=SafetyReading(value=1.0, boot_ns=0)), "leak"),
        (replace(SEEN, leak=None), "no reading of leak"),
        (replace(SEEN, leak=SafetyReading(value=0.0, boot_ns=-4 * NS)), "leak is 4.0 s old"),
        (replace(SEEN, hot_c=None), "no reading of hot_c"),
        (replace(SEEN, hot_c=SafetyReading(value=float("nan"), boot_ns=0)), "no reading of hot_c"),
        (replace(SEEN, hot_c=SafetyReading(value=75.1, boot_ns=0)), "hot_c 75.1 above 75.0"),
        (replace(SEEN, hot_c=SafetyReading(value=45.0, boot_ns=-4 * NS)), "hot_c is 4.0 s old"),
        (replace(SEEN, pump_runs=SafetyReading(value=0.0, boot_ns=0)), "pump stands"),
    ],
)
def test_an_interlock_beats_override_and_wish(seen: LoopState, reason: str) -> None:
    override = Override(heat_rate_w=30_000, ends_boot_ns=10 * NS)
    command = decide(_held(), seen, LIMITS, override=override, boot_ns=0)
    assert command == Command.release(reason)


@pytest.mark.parametrize("age_s", [0, 3])
def test_a_safety_reading_may_miss_its_turn_twice(age_s: int) -> None:
    assert decide(_held(), _fine(0), LIMITS, override=None, boot_ns=age_s * NS) == Command.deliver(
        40_000, "plan p1"
    )


def test_a_loop_without_leak_sensor_does_not_wait_for_one() -> None:
    limits = replace(LIMITS, has_leak_sensor=False)
    seen = replace(_fine(0), leak=None)
    assert decide(_held(), seen, limits, override=None, boot_ns=0).heat_rate_w == 40_000


@pytest.mark.parametrize(
    ("heat_rate_w", "told_w"), [(20_000, 20_000), (None, None), (90_000, 50_000), (-1, 0)]
)
def test_the_local_operator_beats_the_wish_but_not_the_limits(
    heat_rate_w: float, told_w: float | None
) -> None:
    override = Override(heat_rate_w=heat_rate_w, ends_boot_ns=10 * NS)
    assert _told(_held(), boot_ns=0, override=override).heat_rate_w == told_w


def test_an_override_ends() -> None:
    override = Override(heat_rate_w=20_000, ends_boot_ns=10 * NS)
    assert _told(_held(), boot_ns=10 * NS, override=override).heat_rate_w == 40_000


@pytest.mark.parametrize(
    ("change", "told_w"),
    [
        ({"heat_rate_w": 90_000}, 50_000),
        ({"heat_rate_w": 30_000, "heat_rate_upper_w": 20_000}, 20_000),
        ({"heat_rate_w": 30_000, "heat_rate_lower_w": 35_000}, 35_000),
        ({"heat_rate_w": 30_000, "heat_rate_lower_w": 900_000}, 50_000),
        ({"heat_rate_w": 30_000, "heat_rate_lower_w": 9.0, "heat_rate_upper_w": 5.0}, 5.0),
        ({"heat_rate_w": 30_000, "heat_rate_upper_w": -5.0}, 0.0),
    ],
)
def test_bounds_only_narrow_and_the_sites_own_win(
    change: dict[str, Any], told_w: float | None
) -> None:
    assert _told(_held(replace(WISH, **change)), boot_ns=0).heat_rate_w == told_w


limits = st.builds(
    Limits,
    max_heat_rate_w=st.none() | st.floats(0, 1e6),
    rejection_capacity_w=st.none() | st.floats(0, 1e6),
)


@given(heat_rate_w=st.floats(-1e9, 1e9), limits=limits)
def test_no_wish_exceeds_what_the_site_could_take_back(heat_rate_w: float, limits: Limits) -> None:
    told_w = clamp_w(heat_rate_w, limits)
    bounds = [b for b in (limits.max_heat_rate_w, limits.rejection_capacity_w) if b is not None]
    assert told_w >= 0
    assert all(told_w <= bound for bound in bounds)


setpoints = st.builds(
    replace,
    st.just(WISH),
    setpoint_seq=st.integers(1, 6),
    heat_rate_w=st.floats(-1e5, 1e6),
    lease_s=st.floats(-10, 2000),
    plan_id=st.sampled_from(["p1", "p2"]),
    valid_from_ns=st.integers(-1200, 1200).map(lambda s: EVENT_NS + s * NS),
)
heartbeats = st.builds(Heartbeat, plan_id=st.sampled_from(["p1", "p2"]), server_ns=st.just(0))
# Each message after a delay, or lost, with the wall clock anywhere.
messages = st.lists(
    st.tuples(setpoints | heartbeats, st.integers(0, 600), st.booleans(), st.integers(-9999, 9999)),
    max_size=12,
)


def _after(messages: Messages) -> tuple[Held | None, int]:
    """What is held after all of them, and when the last one arrived."""
    held: Held | None = None
    boot_ns = 0
    for message, delay_s, is_lost, jump_s in messages:
        boot_ns += delay_s * NS
        if is_lost:
            continue
        if isinstance(message, Heartbeat):
            held = renew(held, message, boot_ns=boot_ns)
        else:
            held, _, _ = admit(held, message, boot_ns=boot_ns, event_ns=EVENT_NS + jump_s * NS)
    return held, boot_ns


@given(messages=messages, silence_s=st.integers(int(LEASE_MAX_S), 10**6))
def test_after_the_longest_lease_of_silence_the_command_is_release(
    messages: Messages, silence_s: int
) -> None:
    held, boot_ns = _after(messages)
    assert _told(held, boot_ns=boot_ns + silence_s * NS).heat_rate_w is None


@given(messages=messages, later_s=st.integers(0, 2000), limits=limits)
def test_whatever_came_the_command_stays_within_the_site(
    messages: Messages, later_s: int, limits: Limits
) -> None:
    held, boot_ns = _after(messages)
    told_w = _told(held, boot_ns=boot_ns + later_s * NS, limits=limits).heat_rate_w or 0.0
    assert told_w == clamp_w(told_w, limits)


@given(messages=messages, later_s=st.integers(0, 2000))
def test_the_number_held_never_falls(messages: Messages, later_s: int) -> None:
    seqs = [
        held.setpoint.setpoint_seq
        for count in range(len(messages) + 1)
        if (held := _after(messages[:count])[0]) is not None
    ]
    assert seqs == sorted(seqs)


@given(messages=messages, lease_s=st.floats(1, 900))
def test_a_lease_lives_exactly_as_long_as_told_if_nothing_more_comes(
    messages: Messages, lease_s: float
) -> None:
    held, boot_ns = _after(messages)
    last = replace(WISH, setpoint_seq=99, lease_s=lease_s)
    held, _, _ = admit(held, last, boot_ns=boot_ns, event_ns=EVENT_NS)
    ends_ns = boot_ns + int(lease_s * NS)
    assert _told(held, boot_ns=ends_ns - 1).heat_rate_w == 40_000
    assert _told(held, boot_ns=ends_ns).heat_rate_w is None
