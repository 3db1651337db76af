"""A loop obeys a fresh order over a line that lives, and nothing that was recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import SiteId
from heatpool.setpoint import LEASE_MAX_S, Heartbeat, Setpoint, SetpointState
from heatpool_agent.core.obedience import HOLD_DEFAULT_S, Obedience, beat, settled, take
from heatpool_agent.core.safety import Command, Limits, LoopState, SafetyReading, clamp_w, decide

NS = 1_000_000_000
EVENT_NS = 1_750_000_000 * NS
HOLD_S = 10
LIMITS = Limits(max_heat_rate_w=60_000, rejection_capacity_w=50_000)
WISH = Setpoint(
    setpoint_id="s",
    setpoint_seq=EVENT_NS,
    plan_id="p",
    site_id=SiteId("a"),
    heat_rate_w=40_000,
    valid_from_ns=EVENT_NS,
    lease_s=120,
    reason="winter",
)


@dataclass
class Loop:
    """A loop with its clocks; the boot clock runs on, the wall clock is wherever it is put."""

    hold_s: int = HOLD_S
    boot_ns: int = 0
    wall_ns: int = EVENT_NS
    server_ns: int = EVENT_NS
    state: Obedience = field(init=False)
    kept_seq: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Nothing but the highest number outlives a restart."""
        self.state = Obedience(
            hold_ns=self.hold_s * NS, quiet_boot_ns=self.boot_ns, seen_seq=self.kept_seq
        )

    def wait(self, seconds: float) -> None:
        for clock in ("boot_ns", "wall_ns", "server_ns"):
            setattr(self, clock, getattr(self, clock) + round(seconds * NS))

    def take(self, wish: Setpoint) -> tuple[SetpointState, str]:
        self.state, outcome, detail = take(
            self.state, wish, boot_ns=self.boot_ns, event_ns=self.wall_ns
        )
        self.kept_seq = self.state.seen_seq
        return outcome, detail

    def beat(self, plan_id: str = "") -> Heartbeat:
        self.server_ns += 1
        heartbeat = Heartbeat(plan_id=plan_id, server_ns=self.server_ns)
        self.state = beat(self.state, heartbeat, boot_ns=self.boot_ns)
        return heartbeat

    def told(self, limits: Limits = LIMITS) -> Command:
        self.state = settled(self.state, boot_ns=self.boot_ns)
        fine = LoopState(
            hot_c=SafetyReading(value=45.0, boot_ns=self.boot_ns),
            leak=SafetyReading(value=0.0, boot_ns=self.boot_ns),
        )
        return decide(
            self.state.held,
            fine,
            limits,
            override=None,
            boot_ns=self.boot_ns,
            waits=self.state.waits(self.boot_ns),
        )


def trusting() -> Loop:
    """A loop that has kept to itself for long enough, and heard that the line lives."""
    loop = Loop()
    loop.wait(HOLD_S)
    loop.beat()
    loop.beat()
    return loop


def newer(loop: Loop, **change: object) -> Setpoint:
    return replace(WISH, setpoint_seq=loop.kept_seq + 1, valid_from_ns=loop.server_ns, **change)  # type: ignore[arg-type]


def test_the_site_keeps_to_itself_for_two_minutes_unless_told() -> None:
    assert HOLD_DEFAULT_S == 120


def test_a_fresh_order_is_followed_by_a_loop_that_trusts() -> None:
    loop = trusting()
    assert loop.take(WISH) == (SetpointState.RECEIVED, "")
    assert loop.told() == Command.deliver(40_000, "winter")


def test_after_a_start_an_order_waits_for_the_hold_and_for_two_heartbeats() -> None:
    loop = Loop()
    outcome, detail = loop.take(WISH)
    assert (outcome, detail) == (SetpointState.RECEIVED, "the site keeps to itself for 10 s more")
    loop.wait(HOLD_S)
    assert loop.told() == Command.release("waits for heartbeats")
    loop.beat()
    assert loop.told().heat_rate_w is None
    loop.beat()
    assert loop.told().heat_rate_w == 40_000


@pytest.mark.parametrize(
    ("ahead_ns", "told"),
    [
        (3_000_000, "the site keeps to itself for 10 s more"),
        (5 * NS, "starts in 5 s; the site keeps to itself for 10 s more"),
    ],
)
def test_an_order_whose_time_comes_soon_is_told_of_the_hold_as_well(
    ahead_ns: int, told: str
) -> None:
    loop = Loop()
    order = replace(WISH, valid_from_ns=WISH.valid_from_ns + ahead_ns)
    assert loop.take(order) == (SetpointState.RECEIVED, told)


def test_after_a_lease_that_ran_out_the_line_must_prove_itself_again() -> None:
    loop = trusting()
    loop.take(WISH)
    loop.wait(120)
    assert loop.told() == Command.release("no lease")
    loop.take(newer(loop, lease_s=600.0))
    loop.beat()
    loop.beat()
    assert "keeps to itself" in loop.told().reason
    loop.wait(HOLD_S)
    assert loop.told().heat_rate_w == 40_000


def test_an_order_that_comes_after_the_lease_and_before_the_next_look_is_not_followed_either() -> (
    None
):
    loop = trusting()
    loop.take(WISH)
    assert loop.told().heat_rate_w == 40_000
    loop.wait(120.5)
    loop.take(newer(loop))
    assert loop.told().heat_rate_w is None


def test_an_order_that_was_never_followed_lets_the_hold_go_on() -> None:
    loop = Loop(hold_s=60)
    loop.take(replace(WISH, lease_s=30))
    loop.wait(50)
    assert loop.told().heat_rate_w is None
    loop.take(newer(loop))
    loop.beat()
    loop.beat()
    loop.wait(10)
    assert loop.told().heat_rate_w == 40_000


def test_a_wish_of_nothing_that_runs_out_was_local_rejection_all_along() -> None:
    loop = trusting()
    loop.take(replace(WISH, heat_rate_w=0.0, lease_s=30))
    loop.wait(31)
    assert loop.told().heat_rate_w is None
    loop.beat()
    loop.beat()
    loop.take(newer(loop))
    assert loop.told().heat_rate_w == 40_000


def test_a_recorded_heartbeat_renews_nothing() -> None:
    loop = trusting()
    loop.take(WISH)
    loop.wait(60)
    recorded = loop.beat("p")
    ends_ns = loop.state.held.lease_ends_boot_ns  # type: ignore[union-attr]
    loop.wait(60)
    loop.state = beat(loop.state, recorded, boot_ns=loop.boot_ns)
    assert loop.state.held.lease_ends_boot_ns == ends_ns  # type: ignore[union-attr]


def test_recorded_heartbeats_prove_no_line() -> None:
    loop = Loop()
    recorded = loop.beat()
    loop.take(newer(loop))
    loop.wait(HOLD_S)
    for _ in range(3):
        loop.state = beat(loop.state, recorded, boot_ns=loop.boot_ns)
    assert loop.told() == Command.release("waits for heartbeats")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_recorded_order_is_refused_also_by_the_next_life(*, is_restarted: bool) -> None:
    loop = trusting()
    loop.take(WISH)
    loop.wait(500)
    if is_restarted:
        loop.restart()
    outcome, detail = loop.take(WISH)
    assert outcome is SetpointState.REFUSED
    assert "not newer" in detail
    assert loop.told().heat_rate_w is None


@pytest.mark.parametrize("jump_s", [-86_400 * 3, -43_200, -300, 300, 43_200, 86_400 * 3])
def test_a_wall_clock_that_is_off_neither_kills_nor_prolongs_a_lease(jump_s: int) -> None:
    loop = trusting()
    loop.wall_ns += jump_s * NS
    loop.take(newer(loop))
    assert loop.told().heat_rate_w == 40_000
    loop.wall_ns -= 2 * jump_s * NS
    loop.wait(119)
    assert loop.told().heat_rate_w == 40_000
    loop.wait(1)
    assert loop.told().heat_rate_w is None


def test_a_site_that_has_heard_no_heartbeat_does_not_take_half_a_day_for_a_beginning() -> None:
    loop = Loop(hold_s=0)
    loop.wall_ns -= 43_200 * NS
    loop.take(WISH)
    loop.beat()
    loop.beat()
    assert loop.told().heat_rate_w == 40_000


def test_an_aggregator_whose_clock_was_set_back_renews_after_its_next_order() -> None:
    loop = trusting()
    loop.take(WISH)
    loop.server_ns -= 43_200 * NS
    loop.take(newer(loop))
    loop.wait(100)
    loop.beat("p")
    loop.wait(100)
    assert loop.told().heat_rate_w == 40_000


def test_an_aggregator_whose_clock_was_set_forward_is_obeyed_from_its_next_heartbeat_on() -> None:
    loop = trusting()
    loop.take(WISH)
    loop.server_ns += 43_200 * NS
    assert loop.take(newer(loop, heat_rate_w=20_000)) == (
        SetpointState.RECEIVED,
        "starts in 43200 s",
    )
    loop.wait(40)
    assert loop.told().heat_rate_w == 40_000
    loop.beat()
    assert loop.told().heat_rate_w == 20_000


def test_a_heartbeat_does_not_begin_what_is_for_later() -> None:
    loop = trusting()
    later = newer(loop)
    loop.take(replace(later, valid_from_ns=loop.server_ns + 60 * NS))
    loop.wait(30)
    loop.beat()
    assert loop.told().heat_rate_w is None
    loop.wait(30)
    assert loop.told().heat_rate_w == 40_000


# What may come: orders, heartbeats, both again from a recording, restarts, and clocks that jump.
orders = st.builds(
    replace,
    st.just(WISH),
    setpoint_seq=st.integers(1, 8).map(lambda n: EVENT_NS + n),
    heat_rate_w=st.floats(-1e5, 1e6) | st.sampled_from([float("nan"), float("inf")]),
    lease_s=st.floats(-10, 2000) | st.sampled_from([float("nan"), float("inf")]),
    plan_id=st.sampled_from(["p", "q", ""]),
    valid_from_ns=st.integers(-1200, 1200).map(lambda s: EVENT_NS + s * NS),
    dry_run=st.booleans(),
)
beats = st.builds(
    Heartbeat,
    plan_id=st.sampled_from(["p", "q", ""]),
    server_ns=st.integers(-9999, 9999).map(lambda s: EVENT_NS + s * NS),
)
happenings = st.lists(
    st.tuples(
        orders | beats | st.just("restart"),
        st.floats(0, 600),
        st.sampled_from([0, 0, 0, -43_200, 43_200, -86_400 * 9, 86_400 * 9]),
    ),
    max_size=14,
)
Happenings = Sequence[tuple[Setpoint | Heartbeat | str, float, int]]


def lived(happened: Happenings, *, hold_s: int) -> Loop:
    """A loop after all of it; each thing lasts until the next comes."""
    loop = Loop(hold_s=hold_s)
    for what, delay_s, jump_s in happened:
        loop.wait(delay_s)
        loop.wall_ns += jump_s * NS
        if isinstance(what, Setpoint):
            loop.take(what)
        elif isinstance(what, Heartbeat):
            loop.state = beat(loop.state, what, boot_ns=loop.boot_ns)
        else:
            loop.restart()
        loop.told()
    return loop


capacities = st.builds(
    Limits,
    max_heat_rate_w=st.none() | st.floats(0, 1e6),
    rejection_capacity_w=st.floats(0, 1e6),
)


@given(happened=happenings, hold_s=st.integers(0, 300), limits=capacities, later_s=st.floats(0, 99))
def test_whatever_comes_what_is_delivered_could_be_taken_back(
    happened: Happenings, hold_s: int, limits: Limits, later_s: float
) -> None:
    loop = lived(happened, hold_s=hold_s)
    loop.wait(later_s)
    told_w = loop.told(limits).heat_rate_w or 0.0
    assert told_w == clamp_w(told_w, limits)
    assert told_w <= (limits.rejection_capacity_w or 0.0)


@given(happened=happenings, hold_s=st.integers(0, 300))
def test_no_lease_outlives_the_last_message_by_more_than_itself(
    happened: Happenings, hold_s: int
) -> None:
    loop = lived(happened, hold_s=hold_s)
    held = loop.state.held
    if held is not None:
        assert held.lease_ends_boot_ns <= loop.boot_ns + held.setpoint.lease_s * NS
    loop.wait(LEASE_MAX_S)
    assert loop.told().heat_rate_w is None


@given(happened=happenings, hold_s=st.integers(1, 300))
def test_a_loop_that_restarts_delivers_nothing_before_its_hold(
    happened: Happenings, hold_s: int
) -> None:
    loop = lived(happened, hold_s=hold_s)
    loop.restart()
    loop.take(newer(loop, lease_s=900.0))
    loop.beat()
    loop.beat()
    loop.wait(hold_s - 0.001)
    assert loop.told().heat_rate_w is None


@given(happened=happenings, hold_s=st.integers(0, 300))
def test_what_came_once_starts_no_second_lease(happened: Happenings, hold_s: int) -> None:
    loop = lived(happened, hold_s=hold_s)
    before = loop.state.held
    for what, _, _ in happened:
        if isinstance(what, Setpoint) and what.setpoint_seq <= loop.kept_seq:
            assert loop.take(what)[0] is SetpointState.REFUSED
    assert loop.state.held == before


def test_after_a_lease_that_ran_out_the_line_has_to_show_anew_that_it_lives() -> None:
    loop = trusting()
    loop.take(WISH)
    loop.told()
    loop.wait(WISH.lease_s)
    loop.told()
    loop.wait(HOLD_S)
    assert loop.take(newer(loop)) == (SetpointState.RECEIVED, "waits for heartbeats")
    loop.beat()
    assert loop.told().heat_rate_w is None
    loop.beat()
    assert loop.told().heat_rate_w == WISH.heat_rate_w
