"""One sensor under its supervisor: what becomes of its readings when it leaves."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from heatpool.errors import SensorBusy, SensorError, SensorGone
from heatpool.sample import SiteId
from heatpool_agent.board import Board
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.supervise import Driven, Supervisor

SAID = Reading(
    sensor="cdu",
    channel="mqtt/leak",
    quantity="leak",
    kind=ReadingKind.STATE,
    value=0.0,
    event_ns=0,
    boot_ns=0,
    node=Node.CDU,
    holds_s=60.0,
)


class Clock:
    def event_ns(self) -> int:
        return time.time_ns()

    def boot_ns(self) -> int:
        return time.monotonic_ns()


@dataclass
class Publisher:
    """Speaks once, then ends as told; that ends the supervisor as well."""

    board: Board
    end: SensorError
    reads_count: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)

    async def probe(self) -> Sequence[str]:
        return [SAID.channel]

    async def read(self) -> Sequence[Reading]:
        self.reads_count += 1
        if self.reads_count > 1:
            self.board.is_stopping = True
            raise self.end
        return [SAID]

    async def close(self) -> None:
        """Nothing to free."""


async def _nothing(driven: Driven, readings: Sequence[Reading]) -> None:
    """Nobody counts here."""


@pytest.mark.parametrize(
    ("end", "holds_s"),
    [(SensorGone("its last will", fix="check its power"), None), (SensorBusy("later"), 60.0)],
)
async def test_what_is_gone_publishes_nothing_that_stands(
    end: SensorError, holds_s: float | None
) -> None:
    board = Board(site_id=SiteId("s1"))
    driven = Driven(
        id="cdu", kind="mqtt", sensor=Publisher(board, end), period_s=0.01, timeout_s=1.0
    )
    await Supervisor(driven, board, Clock(), _nothing).run()
    assert [reading.holds_s for reading in board.latest["cdu"]] == [holds_s]


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        ({}, ""),
        ({"/a": "is HTML"}, "1 document refused, such as /a: is HTML"),
        ({"/b": "status 500", "/a": "is HTML"}, "2 documents refused, such as /b: status 500"),
        ({"/" * 9000: "x" * 9000}, f"1 document refused, such as {'/' * 200}: {'x' * 200}"),
    ],
)
async def test_a_sensor_that_is_up_tells_which_documents_it_is_refused(
    refused: Mapping[str, str], told: str
) -> None:
    board = Board(site_id=SiteId("s1"))
    sensor = Publisher(board, SensorBusy("later"), refused=refused)
    driven = Driven(id="bmc", kind="redfish", sensor=sensor, period_s=0.01, timeout_s=1.0)
    seen: list[tuple[str, str]] = []

    async def take(driven: Driven, readings: Sequence[Reading]) -> None:
        view = board.sensors[driven.id]
        seen.append((view.state, view.detail))

    await Supervisor(driven, board, Clock(), take).run()
    assert seen == [("up", told)]
