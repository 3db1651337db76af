"""An aggregator that knows less than it once said: a new disk, or a backup put in its place."""

from pathlib import Path

from integration.uplink_site import Server, Site, becomes, listening, pushing, site

from heatpool.sample import GapReason, SpoolKind
from heatpool_agent.ports import Seq

T = SpoolKind.TELEMETRY


async def heard_by(own: Site, server: Server, count: int) -> list[tuple[int, int, int]]:
    """The gaps that an aggregator which knows nothing yet is told, beside so many frames."""
    async with listening(server), pushing(own, server):
        await becomes(lambda: len(server.numbers("telemetry")) == count)
    return [(gap.first_seq, gap.last_seq, gap.reason) for gap in server.gaps]


async def test_what_was_lost_and_told_before_is_told_to_a_new_disk_too(tmp_path: Path) -> None:
    async with site(tmp_path) as own, listening(Server()) as first:
        await own.rows(10)
        await own.spooling.call(own.spool.lose, T, 1, 2)
        await own.rows(30, first=11)
        async with pushing(own, first):
            await becomes(lambda: own.spool.mark(T).durable_seq == 41)
        assert await own.spooling.call(own.spool.losses) == []
        second = Server()
        assert await heard_by(own, second, 40) == [(11, 11, int(GapReason.DROPPED))]
        assert sorted(second.numbers("telemetry")) == [*range(1, 11), *range(12, 42)]


async def test_what_went_when_it_was_durable_is_told_to_a_new_disk(tmp_path: Path) -> None:
    async with site(tmp_path) as own, listening(Server()) as first:
        await own.rows(40)
        async with pushing(own, first):
            await becomes(lambda: own.spool.mark(T).durable_seq == 40)
        execute = own.spool._db[T].execute
        await own.spooling.call(execute, "DELETE FROM frames WHERE seq BETWEEN 20 AND 22")
        assert await heard_by(own, Server(), 37) == [(20, 22, int(GapReason.DROPPED))]


async def test_a_backup_hears_what_is_no_longer_held(tmp_path: Path) -> None:
    async with site(tmp_path) as own:
        await own.rows(20)
        await own.spooling.call(own.spool.forget, T, Seq(11))
        execute = own.spool._db[T].execute
        await own.spooling.call(execute, "DELETE FROM frames WHERE seq <= 11")
        await own.spooling.call(own.spool._files[T].note_oldest)
        gaps = await heard_by(own, Server(durable_at_hello=5), 9)
    assert gaps == [(6, 11, int(GapReason.DROPPED))]


async def test_a_hole_at_the_end_of_the_backlog_is_told_too(tmp_path: Path) -> None:
    async with site(tmp_path) as own, listening(Server()) as first:
        await own.rows(10)
        await own.spooling.call(own.spool.lose, T, 1, 2)
        await own.rows(1, first=11)
        async with pushing(own, first):
            await becomes(lambda: own.spool.mark(T).durable_seq == 12)
        second = Server()
        async with listening(second), pushing(own, second):
            await becomes(lambda: bool(second.gaps))
    assert [(gap.first_seq, gap.last_seq) for gap in second.gaps] == [(11, 11)]


async def test_what_it_lost_is_not_durable_until_it_is_there_again(tmp_path: Path) -> None:
    """Else these rows would go a day after an ack that no longer holds."""
    async with site(tmp_path) as own:
        await own.rows(5)
        await own.spooling.call(own.spool.forget, T, Seq(5))
        server = Server(acks=False, durable_at_hello=2)
        async with listening(server) as there, pushing(own, there):
            await becomes(lambda: sorted(server.numbers("telemetry")) == [3, 4, 5])
            assert own.spool.mark(T).durable_seq == 2
            assert own.board.marks[T].durable_seq == 2
        own.board.is_line_closing = False
        async with listening(Server(durable_at_hello=2)) as there, pushing(own, there):
            await becomes(lambda: own.spool.mark(T).durable_seq == 5)
