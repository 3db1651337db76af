"""The agent's line against a gRPC server of the test's own: what is sent, again, and let go."""

import asyncio
from pathlib import Path

from integration.uplink_site import (
    HOT,
    Server,
    Site,
    becomes,
    listening,
    pushing,
    site,
)

from heatpool.sample import (
    SpoolKind,
)
from heatpool.setpoint import Heartbeat, Setpoint
from heatpool_agent.core.line import lane_share
from heatpool_agent.ports import Lane, Seq


async def test_everything_is_sent_once_and_let_go_when_it_is_durable(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(30)
        await own.register(1)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 30)
            await becomes(lambda: own.spool.mark(SpoolKind.BILLING).durable_seq == 1)
    assert server.lane("telemetry", is_live=False) == list(range(1, 30))
    assert server.lane("telemetry", is_live=True) == [30]
    came = server.frames.index
    assert came(("registers", 1)) < came(("telemetry", 1)), "billing leads the backlog"
    assert (own.board.uplink.batches_sent, own.board.uplink.batches_acked) == (31, 31)


async def test_a_server_that_never_acks_gets_no_more_than_the_window(tmp_path: Path) -> None:
    async with listening(Server(acks=False, window=8)) as server, site(tmp_path) as own:
        await own.rows(1)
        async with pushing(own, server):
            await becomes(lambda: own.board.uplink.state == "connected")
            await own.rows(40, first=2)
            await becomes(lambda: len(server.frames) >= lane_share(Lane.LIVE, 8))
            await asyncio.sleep(0.5)
            assert server.numbers("telemetry") == [1, 2]
    assert own.spool.mark(SpoolKind.TELEMETRY).durable_seq == Seq(0)


async def test_live_rows_do_not_wait_for_a_backlog_that_stands_still(tmp_path: Path) -> None:
    async with listening(Server(acks=False)) as server, site(tmp_path) as own:
        await own.rows(40)
        async with pushing(own, server):
            await becomes(lambda: 40 in server.numbers("telemetry"))
            await becomes(lambda: server.lane("telemetry", is_live=False) == [1])


async def test_what_was_not_acked_when_the_line_fell_is_sent_again(tmp_path: Path) -> None:
    async with listening(Server(hang_up_after=12)) as server, site(tmp_path) as own:
        await own.rows(20)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 20)
    assert set(server.numbers("telemetry")) == set(range(1, 21))
    at_cut = server.frames[11][1]
    assert server.numbers("telemetry").count(at_cut) >= 2, "the frame at the cut was never acked"
    assert len(server.hellos) == 2


async def test_hello_s_answer_says_from_where_to_go_on(tmp_path: Path) -> None:
    async with listening(Server(durable_at_hello=15)) as server, site(tmp_path) as own:
        await own.rows(20)
        # An earlier line took these, and what it said of them was lost.
        await own.spooling.call(own.spool.read, SpoolKind.TELEMETRY, Seq(0), 15)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 20)
            await becomes(lambda: 20 in server.numbers("telemetry"))
    assert own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 20


async def test_a_server_that_lost_its_disk_gets_again_what_it_had_acknowledged(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as own:
        async with listening(Server()) as server:
            await own.rows(5)
            async with pushing(own, server):
                await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 5)
        own.board.is_line_closing = False
        async with listening(Server()) as empty, pushing(own, empty):
            await becomes(lambda: sorted(empty.numbers("telemetry")) == [1, 2, 3, 4, 5])


async def test_what_is_missed_is_sent_again_and_what_is_gone_is_told(tmp_path: Path) -> None:
    async with listening(Server(resend_at=249)) as server, site(tmp_path) as own:
        await own.rows(250)
        await own.spooling.call(own.spool._room._drop_oldest)
        first = own.spool.mark(SpoolKind.TELEMETRY).first_seq
        async with pushing(own, server):
            await becomes(lambda: server.numbers("telemetry").count(first) == 2)
    assert server.gaps[-1].last_seq == first - 1


async def test_a_new_channel_says_hello_again_before_its_rows(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(3)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 3)
            await own.rows(2, first=10, channel=HOT)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 5)
    assert [len(hello.sites[0].schemas) for hello in server.hellos] == [1, 2]


async def test_rows_that_were_dropped_are_told_as_a_gap(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(250)
        await own.spooling.call(own.spool._room._drop_oldest)
        first = own.spool.mark(SpoolKind.TELEMETRY).first_seq
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 250)
    assert server.gaps[0].first_seq == 1
    assert max(gap.last_seq for gap in server.gaps) == first - 1


async def test_a_frame_that_the_disk_spoiled_is_told_as_a_gap_and_those_behind_it_go(
    tmp_path: Path,
) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(3)
        spoil = "UPDATE frames SET payload = x'ff' WHERE seq = 2"
        await own.spooling.call(own.spool._db[SpoolKind.TELEMETRY].execute, spoil)
        async with pushing(own, server):
            await becomes(lambda: sorted(server.numbers("telemetry")) == [1, 3])
            await becomes(lambda: len(server.gaps) > 0)
    assert [(gap.first_seq, gap.last_seq) for gap in server.gaps] == [(2, 2)]


async def test_a_disk_that_cannot_be_read_for_a_while_ends_nothing(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(3)
        db = own.spool._db[SpoolKind.TELEMETRY]
        await own.spooling.call(db.execute, "ALTER TABLE frames RENAME TO away")
        async with pushing(own, server):
            await becomes(lambda: "no such table" in own.board.uplink.detail)
            await own.rows(1, first=4)
            assert "no such table" in own.board.spool_error
            await own.spooling.call(db.execute, "ALTER TABLE away RENAME TO frames")
            await own.rows(1, first=5)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 5)
    assert set(server.numbers("telemetry")) == {1, 2, 3, 4, 5}
    assert own.board.spool_error == ""


async def test_setpoints_and_heartbeats_come_to_the_board(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        one, other = own.board.listen(), own.board.listen()
        async with pushing(own, server):
            await becomes(lambda: one.qsize() == other.qsize() == 2)
        first, second = one.get_nowait(), one.get_nowait()
    assert isinstance(first, Setpoint) and first.setpoint_seq == 7
    assert isinstance(second, Heartbeat) and second.plan_id == "p"


async def test_a_server_that_comes_late_is_found(tmp_path: Path) -> None:
    server = Server()
    async with listening(server):
        pass
    async with site(tmp_path) as own, pushing(own, server):
        await own.rows(2)
        await becomes(lambda: own.board.uplink.state == "waiting")
        assert own.board.uplink.next_try_boot_ns is not None
        async with listening(server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 2)
            assert own.board.uplink.next_try_boot_ns is None


async def test_a_backlog_that_arrived_is_not_shown_once_the_line_is_lost(tmp_path: Path) -> None:
    server = Server()
    async with site(tmp_path) as own:
        await own.rows(2)
        async with listening(server), pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 2)
            await becomes(lambda: _left_count(own) == 0)
        own.board.is_line_closing = False
        async with pushing(own, server):
            await becomes(lambda: own.board.uplink.state == "waiting")
            await own.rows(2, first=100)
            assert own.board.uplink.backlog is None


def _left_count(own: Site) -> int | None:
    backlog = own.board.uplink.backlog
    return None if backlog is None else backlog.frames_count
