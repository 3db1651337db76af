"""More channel lists than a site may have: the newest count, none in use goes, no row is lost."""

from collections import deque
from typing import Any

from integration import site_client as site

from heatpool.sample import BootId, SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.core.admission import SCHEMAS_LIMIT
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.logs.memory import MemoryLog
from heatpool_aggregator.loops.applying import SCHEMAS_KEPT, Applying
from heatpool_aggregator.loops.effects import Effects
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.ports import Frame, FrameKind
from heatpool_aggregator.wire.telemetry import hello_from_bytes

NS = 10**9
NOW_NS = 1_700_000_000 * NS
SITE, BOOT = SiteId("site-a"), BootId("site-a-t")


class StillClock:
    """A clock that stands."""

    def now_ns(self) -> int:
        return NOW_NS

    def boot_ns(self) -> int:
        return NOW_NS


def hello(*schema_ids: int) -> Any:
    message = site.hello()
    (said,) = message.hello.sites
    schema = site.pb.Schema()
    schema.CopyFrom(said.schemas[0])
    del said.schemas[:]
    for schema_id in schema_ids:
        schema.schema_id = schema_id
        said.schemas.append(schema)
    return message


class Site:
    """A shard's state, and what one site brings."""

    def __init__(self) -> None:
        self.effects = Effects()
        self.applying = Applying(ShardState(), asked_w={})
        self._seq = 0

    def says(self, *schema_ids: int) -> None:
        self._take(FrameKind.HELLO, 0, hello(*schema_ids))

    def sends(self, schema_id: int) -> bool:
        """Whether a batch that this schema packs is used."""
        self._seq += 1
        before = len(self.effects.refusals)
        message = site.batch(self._seq, NOW_NS, schema_id=schema_id, sent_ns=NOW_NS)
        self._take(FrameKind.TELEMETRY, self._seq, message)
        return len(self.effects.refusals) == before

    def _take(self, kind: FrameKind, seq: int, message: Any) -> None:
        boot_id = BOOT if kind is FrameKind.TELEMETRY else BootId("")
        data = message.SerializeToString()
        frame = Frame(SITE, boot_id, kind, seq, NOW_NS, data)
        self.applying.apply(frame, self.effects)


def test_of_too_many_the_newest_are_taken() -> None:
    own = Site()
    own.says(*range(1, SCHEMAS_LIMIT + 9))
    assert [own.sends(number) for number in (SCHEMAS_LIMIT + 8, 9, 8, 1)] == [
        True,
        True,
        False,
        False,
    ]


def test_rows_of_one_too_many_are_kept_whole_and_named_each() -> None:
    own = Site()
    own.says(*range(1, SCHEMAS_LIMIT + 2))
    assert not any([own.sends(1) for _ in range(5)])
    assert [refusal.reason.name for refusal in own.effects.refusals] == ["UNKNOWN_SCHEMA"] * 5
    assert len([one for one in own.effects.events if one.name == "refused_frame"]) == 5


def test_one_that_was_taken_once_is_read_though_it_is_too_old_now() -> None:
    own = Site()
    own.says(*range(1, SCHEMAS_LIMIT + 1))
    own.says(*range(1, SCHEMAS_LIMIT + 9))
    assert own.sends(1)


def test_one_in_use_outlives_all_that_come_after_it() -> None:
    own = Site()
    used = []
    for number in range(2, SCHEMAS_KEPT + 9):
        own.says(1, number)
        used.append(own.sends(1))
    assert all(used)
    assert not own.sends(2)
    again = ShardState.from_bytes(own.applying.state.to_bytes())
    own.applying = Applying(again, asked_w={})
    own.says(1, SCHEMAS_KEPT + 9)
    assert own.sends(1)


async def test_the_answer_to_hello_refuses_the_oldest() -> None:
    gateway = Gateway(log=MemoryLog(), clock=StillClock(), board=Board(), refusals=deque())
    session = gateway.open()
    data = hello(*range(1, SCHEMAS_LIMIT + 3)).SerializeToString()
    assert await session.hello(hello_from_bytes(data), data)
    (answer,) = map(site.pb.TelemetryServiceStreamResponse.FromString, session.messages())
    assert [one.schema_id for one in answer.hello_reply.refused_schemas] == [1, 2]
    await gateway.step()
