"""The tick and the way down, second by second on a clock that the test owns."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from heatpool.errors import ActuatorError
from heatpool.sample import QualityClass, SiteId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointState
from heatpool_agent.board import Board
from heatpool_agent.config import loop_priors
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.safety import Command, Limits
from heatpool_agent.loops.obey import Habits, Obey
from heatpool_agent.loops.sense import LoopSettings, Sense

SECOND_NS = 1_000_000_000
WISH = Setpoint(
    setpoint_id="w",
    setpoint_seq=7,
    plan_id="p",
    site_id=SiteId("s1"),
    heat_rate_w=9_000.0,
    valid_from_ns=0,
    lease_s=100.0,
    reason="greenhouse",
)


@dataclass
class Clock:
    second: int = 1_000

    def event_ns(self) -> int:
        return self.second * SECOND_NS

    def boot_ns(self) -> int:
        return self.second * SECOND_NS


@dataclass
class Device:
    """A unit in memory; it confirms, or refuses what it is told to refuse."""

    refuses_wish: bool = False
    refuses_release: bool = False
    told: list[float | None] = field(default_factory=list)

    is_dry = False

    async def apply(self, command: Command) -> float:
        self.told.append(command.heat_rate_w)
        if self.refuses_wish or command.heat_rate_w is None:
            raise ActuatorError("reads back another value")
        return command.heat_rate_w

    async def release(self) -> None:
        self.told.append(None)
        if self.refuses_release:
            raise ActuatorError("no answer")

    async def close(self) -> None:
        """Nothing to free."""


@dataclass
class Site:
    """A site with its loops, stepped by hand."""

    clock: Clock = field(default_factory=Clock)
    board: Board = field(default_factory=lambda: Board(site_id=SiteId("s1")))
    device: Device = field(default_factory=Device)
    loops: Sequence[str] = ("rack",)

    def __post_init__(self) -> None:
        self.sense = Sense(
            [
                LoopSettings(
                    loop_id=name,
                    fluid="water",
                    sensor_side="cold",
                    priors=loop_priors("dlc")[0],
                    reported_u_frac=0.05,
                    rejection_capacity_w=90_000.0,
                )
                for name in self.loops
            ],
            self.board,
            self.clock,
            spooling=None,
            period_s=1.0,
            report_period_s=10.0,
        )
        limits = Limits(rejection_capacity_w=90_000.0)
        habits = Habits(hold_s=0.0, keep_s=60.0)
        self.obey = Obey("rack", self.device, limits, self.board, self.clock, habits=habits)
        # The line lives: orders are followed at once.
        for server_ns in (1, 2):
            self.board.post_wish(Heartbeat(plan_id="", server_ns=server_ns))

    def read(self, sensor: str, *, age_s: int = 0, loop: str = "rack", **values: float) -> None:
        at_ns = (self.clock.second - age_s) * SECOND_NS
        self.board.latest[sensor] = tuple(
            Reading(
                sensor=sensor,
                channel=f"words/{name}",
                quantity=name,
                kind=ReadingKind.STATE if name in ("leak", "pump_runs") else ReadingKind.GAUGE,
                value=value,
                event_ns=at_ns,
                boot_ns=at_ns,
                node=Node.PDU if name == "power_w" else Node.CDU,
                loop=loop,
            )
            for name, value in values.items()
        )

    async def step(self) -> None:
        """One second: look, decide, act."""
        self.clock.second += 1
        self.sense.tick(self.clock.event_ns(), self.clock.boot_ns())
        await self.obey.step()

    @property
    def now_w(self) -> float | None:
        return self.device.told[-1]


def healthy(site: Site) -> None:
    site.clock.second += 1
    site.read("cdu", hot_c=45.0, leak=0.0, pump_runs=1.0)
    site.clock.second -= 1


async def test_a_wish_is_delivered_while_all_is_well() -> None:
    site = Site()
    site.board.post_wish(WISH)
    healthy(site)
    await site.step()
    assert site.now_w == 9_000.0
    assert site.board.setpoint and site.board.setpoint.state is SetpointState.APPLIED


@pytest.mark.parametrize(
    "worse",
    [
        {"leak": 1.0, "hot_c": 45.0, "pump_runs": 1.0},
        {"leak": 0.0, "hot_c": 90.0, "pump_runs": 1.0},
        {"leak": 0.0, "hot_c": 45.0, "pump_runs": 0.0},
    ],
)
async def test_the_worst_of_two_units_on_a_loop_decides(worse: dict[str, float]) -> None:
    site = Site()
    site.board.post_wish(WISH)
    healthy(site)
    site.read("second", age_s=-1, **worse)  # type: ignore[arg-type]  # all are figures
    await site.step()
    assert site.now_w is None


async def test_an_old_leak_reading_is_no_leak_reading() -> None:
    site = Site()
    site.board.post_wish(WISH)
    site.read("cdu", age_s=-1, hot_c=45.0, pump_runs=1.0)
    site.read("leakbox", age_s=9, leak=0.0)
    await site.step()
    assert site.now_w is None


async def test_a_pump_that_fell_silent_is_a_pump_that_stands() -> None:
    site = Site()
    site.board.post_wish(WISH)
    healthy(site)
    await site.step()
    assert site.now_w == 9_000.0
    site.read("cdu", age_s=-1, hot_c=45.0, leak=0.0)
    await site.step()
    assert site.now_w is None


async def test_a_lease_that_runs_out_releases_within_a_tick() -> None:
    site = Site()
    site.board.post_wish(replace(WISH, lease_s=3.0))
    for _ in range(5):
        healthy(site)
        await site.step()
    assert site.now_w is None
    assert site.board.setpoint and site.board.setpoint.state is SetpointState.EXPIRED


async def test_a_device_that_refuses_a_wish_is_released_and_not_hammered() -> None:
    site = Site(device=Device(refuses_wish=True))
    site.board.post_wish(WISH)
    for _ in range(20):
        healthy(site)
        await site.step()
    assert site.device.told.count(9_000.0) == 1
    assert site.now_w is None
    assert site.board.setpoint and site.board.setpoint.state is SetpointState.REFUSED
    assert site.board.setpoint.applied_heat_rate_w is None


async def test_a_device_that_refused_once_is_asked_again_later() -> None:
    site = Site(device=Device(refuses_wish=True))
    site.board.post_wish(WISH)
    healthy(site)
    await site.step()
    site.device.refuses_wish = False
    for _ in range(40):
        healthy(site)
        await site.step()
    assert site.now_w == 9_000.0
    assert site.board.setpoint and site.board.setpoint.state is SetpointState.APPLIED


async def test_a_release_that_is_not_confirmed_is_shown_and_tried_each_tick() -> None:
    site = Site(device=Device(refuses_release=True))
    for _ in range(4):
        await site.step()
    assert site.device.told == [None] * 4
    assert site.board.actuator_errors == {"rack": "no answer"}
    site.device.refuses_release = False
    await site.step()
    assert site.board.actuator_errors == {}


async def test_a_reason_that_only_counts_seconds_is_told_once() -> None:
    site = Site()
    site.board.post_wish(WISH)
    site.read("cdu", hot_c=45.0, leak=0.0, pump_runs=1.0)
    for _ in range(12):
        await site.step()
    told = [site.board.reports.get_nowait().state for _ in range(site.board.reports.qsize())]
    assert told.count(SetpointState.OVERRIDDEN) <= 2


async def test_power_of_two_units_is_added_and_warms_its_own_loop() -> None:
    site = Site(loops=("rack", "row"))
    site.read("a", age_s=-1, loop="rack", power_w=10_000.0)
    site.read("b", age_s=-1, loop="row", power_w=20_000.0)
    await site.step()
    assert site.board.electric and site.board.electric.value == 30_000.0
    assert site.board.electric.quality is QualityClass.B
    shares = [view.electric.value for view in site.board.loops if view.electric]
    assert shares == [7_500.0, 15_000.0]


async def test_a_disk_that_hangs_holds_one_thread_and_no_tick() -> None:
    answers, asked = threading.Event(), []

    def keep(setpoint_seq: int) -> None:
        asked.append(setpoint_seq)
        answers.wait()

    site = Site()
    habits = Habits(hold_s=0.0, keep=keep, keep_s=0.01)
    site.obey = Obey("rack", site.device, Limits(), site.board, site.clock, habits=habits)
    for server_ns in (1, 2):
        site.board.post_wish(Heartbeat(plan_id="", server_ns=server_ns))
    site.board.post_wish(WISH)
    try:
        for _ in range(4):
            healthy(site)
            await site.step()
            assert site.now_w is None
    finally:
        answers.set()
    while site.now_w is None:
        healthy(site)
        await site.step()
    assert (asked, site.now_w) == ([7], 9_000.0)
