"""A site whose daemon learns: its clock, its sensors as values, its shelf."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from heatpool.sample import QualityClass, SiteId
from heatpool_agent.board import Board
from heatpool_agent.calibrations import Shelf
from heatpool_agent.config import loop_priors
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.learning import Learning
from heatpool_agent.loops.loop_pass import LoopSettings
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven

S = 1_000_000_000
CPUS = 40
# The machine's own door; every other sensor is another device.
DOORS = {"rapl": "powercap"}
BOARD_W = 38.0
RACK = LoopSettings(
    loop_id="rack",
    fluid="water",
    sensor_side="cold",
    priors=loop_priors("dlc")[0],
    reported_u_frac=0.05,
    rejection_capacity_w=None,
)


class NoSensor:
    """Stands where a driver would; the test hands its readings over itself."""

    async def probe(self) -> Sequence[str]:
        return ()

    async def read(self) -> Sequence[Reading]:
        return ()

    async def close(self) -> None:
        """Nothing to free."""


@dataclass
class Clock:
    second: int = 1_760_000_000

    def event_ns(self) -> int:
        return self.second * S

    def boot_ns(self) -> int:
        return self.second * S


@dataclass
class Site:
    """One server: its load, its package counter, and the meters that a test gives it."""

    shelf: Shelf | None = None
    reference: str = ""
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.board = Board(site_id=SiteId("s1"))
        self.learning = Learning([RACK], self.clock, shelf=self.shelf, reference=self.reference)
        self.sense = Sense(
            [RACK],
            self.board,
            self.clock,
            spooling=None,
            period_s=1.0,
            report_period_s=10.0,
            learning=self.learning,
        )

    async def say(self, sensor: str, node: Node, **told: float) -> None:
        readings = [
            Reading(
                sensor=sensor,
                channel=f"{DOORS.get(sensor, sensor)}/{node.value}/{quantity}",
                quantity=quantity,
                kind=ReadingKind.GAUGE,
                value=value,
                event_ns=self.clock.event_ns(),
                boot_ns=self.clock.boot_ns(),
                node=node,
                loop="rack" if node is Node.CDU else "",
            )
            for quantity, value in told.items()
        ]
        kept = [r for r in self.board.latest.get(sensor, ()) if r.node is not node]
        self.board.latest[sensor] = (*kept, *readings)
        driven = Driven(id=sensor, kind="x", sensor=NoSensor(), period_s=1.0, timeout_s=5.0)
        await self.sense.take(driven, readings)

    def lose(self, sensor: str) -> None:
        self.board.latest.pop(sensor, None)

    async def second(
        self, busy: float, *, meters: Sequence[str] = ("bmc",), has_board: bool = False
    ) -> float:
        """One second at this load, seen by the meters named; the true power at the wall, W."""
        self.clock.second += 1
        # A figure that never moves is taken for stuck.
        cpu_w = 40 + 160 * busy + 0.01 * (self.clock.second % 7)
        wall_w = 95 + 1.15 * cpu_w
        await self.say("host", Node.HOST, busy_frac=busy, logical_cpu_count=float(CPUS))
        await self.say("rapl", Node.PACKAGE, power_w=cpu_w)
        for meter in meters:
            node = {"bmc": Node.CHASSIS, "plug": Node.PDU}[meter]
            await self.say(meter, node, power_w=wall_w)
        if has_board:
            await self.say("bmc", Node.BOARD, power_w=BOARD_W + 0.3 * (self.clock.second % 5))
        self.sense.tick(self.clock.event_ns(), self.clock.boot_ns())
        return wall_w

    async def work(self, seconds: int, *, meters: Sequence[str] = ("bmc",)) -> None:
        """A load that changes every 20 s."""
        for second in range(seconds):
            await self.second(0.1 + 0.2 * ((second // 20) % 5), meters=meters)

    def classes(self) -> list[QualityClass]:
        return [] if self.board.electric is None else [self.board.electric.quality]

    def kinds(self) -> dict[str, int]:
        return {one.kind: one.count for one in self.learning.coefficients}
