"""What frames may do to a shard's state: none ends the shard, none shows what cannot be."""

import pytest
from integration import site_client as site

from heatpool.process.settings import convert
from heatpool.sample import BootId, Channel, LoopId, RefusedReason, SiteId
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.admission import SiteClock
from heatpool_aggregator.core.live import LOOPS_LIMIT, POINTS_LIMIT
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.applying import SCHEMAS_KEPT, Applying
from heatpool_aggregator.loops.effects import Effects
from heatpool_aggregator.loops.views import Views
from heatpool_aggregator.ports import Frame, FrameKind
from heatpool_aggregator.wire.peek import peek

NS = 10**9
NOW_NS = 1_700_000_000 * NS
SITE = SiteId("site-a")
SOURCE = {
    "id": "harbour",
    "kind": "greenhouse",
    "agreement": {"id": "HPA-1", "price_eur_mwh": "30"},
    "member": [{"site_id": SITE}],
}
VIEWS = Views(convert({"virtual_source": [SOURCE]}, Config), {})


def frame(kind: FrameKind, message: object, received_ns: int = NOW_NS) -> Frame:
    data: bytes = message.SerializeToString()  # type: ignore[attr-defined]
    boot = {FrameKind.TELEMETRY: "site-a-t", FrameKind.BILLING: "site-a-b"}.get(kind, "")
    return Frame(
        site_id=SITE,
        boot_id=BootId(boot),
        kind=kind,
        seq=peek(data).seq,
        received_ns=received_ns,
        payload=data,
    )


def registers(event_ns: int) -> object:
    message = site.registers(1, event_ns, 5)
    message.registers.sent_ns = NOW_NS
    return message


def applied(*frames: Frame) -> tuple[ShardState, Effects]:
    state, effects = ShardState(), Effects()
    applying = Applying(state, asked_w={})
    for one in (frame(FrameKind.HELLO, site.hello()), *frames):
        applying.apply(one, effects)
    return state, effects


def reasons(effects: Effects) -> list[str]:
    return [refusal.reason.name for refusal in effects.refusals]


@pytest.mark.parametrize("sent_ns", [-(2**63), 0, 2**62])
def test_a_message_sent_at_no_time_teaches_no_clock(sent_ns: int) -> None:
    frames = [
        frame(FrameKind.TELEMETRY, site.batch(seq, NOW_NS, sent_ns=sent_ns)) for seq in (2, 3, 4)
    ]
    state, effects = applied(frame(FrameKind.TELEMETRY, site.batch(1, NOW_NS, 700.0)), *frames)
    assert reasons(effects) == ["CLOCK"] * 3
    assert VIEWS.at(state, NOW_NS)[0][0].heat.heat_rate_w == 700.0


def test_a_clock_of_an_old_snapshot_shows_no_impossible_time() -> None:
    state, _ = applied(frame(FrameKind.TELEMETRY, site.batch(1, NOW_NS, 700.0)))
    state.clocks[SITE] = SiteClock(offsets_ns=(2**63 + NOW_NS,) * 3)
    again = ShardState.from_bytes(state.to_bytes())
    assert VIEWS.at(again, NOW_NS)[0][0].heat.heat_rate_w == 700.0


@pytest.mark.parametrize("error", [ValueError, OverflowError, KeyError])
def test_a_frame_that_we_stumble_over_is_refused(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumbling(*_: object) -> None:
        raise error("odd")

    state, effects = ShardState(), Effects()
    monkeypatch.setattr(state.live, "apply", stumbling)
    applying = Applying(state, asked_w={})
    applying.apply(frame(FrameKind.HELLO, site.hello()), effects)
    applying.apply(frame(FrameKind.TELEMETRY, site.batch(1, NOW_NS)), effects)
    assert [refusal.reason for refusal in effects.refusals] == [RefusedReason.MALFORMED]
    assert [record.msg for record in caplog.records] == ["shard.frame_failed"]


YEAR_NS = 365 * 86_400 * NS


@pytest.mark.parametrize(
    ("kind", "message", "told"),
    [
        (FrameKind.TELEMETRY, site.batch(1, NOW_NS + YEAR_NS, sent_ns=NOW_NS), ["CLOCK"]),
        (FrameKind.TELEMETRY, site.batch(1, NOW_NS + 601 * NS, sent_ns=NOW_NS), ["CLOCK"]),
        (FrameKind.TELEMETRY, site.batch(1, NOW_NS + 599 * NS, sent_ns=NOW_NS), []),
        # A clock that is 300 s ahead is corrected first.
        (FrameKind.TELEMETRY, site.batch(1, NOW_NS + 800 * NS, sent_ns=NOW_NS + 300 * NS), []),
        (FrameKind.BILLING, registers(NOW_NS + 601 * NS), ["CLOCK"]),
        (FrameKind.BILLING, registers(1_577_836_799 * NS), ["CLOCK"]),
        (FrameKind.BILLING, registers(1_577_836_800 * NS), []),
    ],
)
def test_what_has_no_true_time_is_refused(
    kind: FrameKind, message: object, told: list[str]
) -> None:
    state, effects = applied(frame(kind, message))
    assert reasons(effects) == told
    assert (len(effects.chunks) + len(effects.registers) == 0) is bool(told)
    assert (len(state.live.slots) + len(state.live.metered) == 0) is bool(told)


def test_a_quantity_that_is_sent_no_more_is_absent() -> None:
    later_ns = NOW_NS + 86_400 * NS
    poorer = site.hello()
    (schema,) = poorer.hello.sites[0].schemas
    schema.schema_id = 2
    kept = [channel for channel in schema.channels if channel.quantity == "hot_c"]
    del schema.channels[:]
    schema.channels.extend(kept)
    row = site.batch(2, later_ns, schema_id=2, cells=[45_000])
    state, effects = applied(
        frame(FrameKind.TELEMETRY, site.batch(1, NOW_NS, 700.0)),
        frame(FrameKind.HELLO, poorer),
        frame(FrameKind.TELEMETRY, row, later_ns),
    )
    (shown,), (source,) = VIEWS.at(state, later_ns)
    assert (effects.refusals, shown.is_stale) == ([], False)
    assert (shown.heat.heat_rate_w, source.heat.heat_rate_w) == (None, None)
    assert source.coverage_frac == 0.0


def test_schemas_of_a_site_are_bounded_and_the_newest_stay() -> None:
    hellos = []
    for number in range(1, SCHEMAS_KEPT + 50):
        message = site.hello()
        message.hello.sites[0].schemas[0].schema_id = number
        hellos.append(frame(FrameKind.HELLO, message))
    newest = frame(FrameKind.TELEMETRY, site.batch(1, NOW_NS, schema_id=SCHEMAS_KEPT + 49))
    state, effects = applied(*hellos, newest)
    assert len(state.schemas) == SCHEMAS_KEPT
    assert not effects.refusals


def rolled_up() -> tuple[Frame, Frame]:
    """Numbers 1 to 3 as one coarser frame, and the gap that says so."""
    gap = site.pb.Gap(
        boot_id="site-a-t", first_seq=2, last_seq=3, reason=site.pb.GAP_REASON_ROLLED_UP
    )
    told = site.pb.TelemetryServiceStreamRequest(gap=gap)
    coarse = site.batch(1, NOW_NS + 3, 999.0)
    return frame(FrameKind.TELEMETRY, coarse), frame(FrameKind.GAP, told)


@pytest.mark.parametrize("is_fine_first", [True, False])
def test_what_was_rolled_up_counts_once_whichever_comes_first(*, is_fine_first: bool) -> None:
    fine = [frame(FrameKind.TELEMETRY, site.batch(seq, NOW_NS + seq)) for seq in (1, 2, 3)]
    coarse = rolled_up()
    state, effects = applied(*((*fine, *coarse) if is_fine_first else (*coarse, *fine)))
    assert reasons(effects) == ["SEQ_CONFLICT"]
    kept = [1, 2, 3] if is_fine_first else [1]
    assert [chunk.seq for chunk in effects.chunks] == kept
    assert state.rows_count[SITE] == len(kept)
    assert [event.name for event in effects.events if event.name == "gap"] == ["gap"]


def test_a_site_that_names_ever_new_metering_points_is_refused_the_rest() -> None:
    state, effects = ShardState(), Effects()
    for seq in range(1, POINTS_LIMIT // 100 + 3):
        state = ShardState.from_bytes(state.to_bytes())
        message = site.registers(seq, NOW_NS - 3600 * NS, *range(100))
        message.registers.sent_ns = NOW_NS
        for row in message.registers.rows:
            row.metering_point_id = f"m{seq}-{row.raw}"
        Applying(state, asked_w={}).apply(frame(FrameKind.BILLING, message), effects)
    assert len(effects.registers) == len(state.live.metered) == POINTS_LIMIT
    assert reasons(effects) == ["OUT_OF_RANGE"] * 2
    known = site.registers(99, NOW_NS - 60 * NS, 0)
    known.registers.sent_ns, known.registers.rows[0].metering_point_id = NOW_NS, "m1-0"
    Applying(state, asked_w={}).apply(frame(FrameKind.BILLING, known), effects)
    assert len(effects.registers) == POINTS_LIMIT + 1


@pytest.mark.parametrize(("left_count", "is_named"), [(1, False), (2, True)])
def test_a_site_that_names_ever_new_loops_is_heard_in_those_it_had(
    *, left_count: int, is_named: bool
) -> None:
    state = ShardState()
    loops = [LoopId(f"loop-{number}") for number in range(LOOPS_LIMIT - left_count)]
    state.live.cells_of(SITE, [Channel(loop_id, "heat_rate_w", 0) for loop_id in loops])
    state = ShardState.from_bytes(state.to_bytes())
    applying = Applying(state, asked_w={})
    applying.apply(frame(FrameKind.HELLO, site.hello()), Effects())  # of the site and its rack
    assert bool(state.schemas) is is_named
    other = Frame(
        SiteId("b"), BootId(""), FrameKind.HELLO, 0, NOW_NS, site.hello("b").SerializeToString()
    )
    applying.apply(other, Effects())
    assert (SiteId("b"), BootId("b-t"), 1) in state.schemas
