"""One that sends too much harms none: windows, the stage, quotas of tenants, storms of hellos."""

import asyncio

import pytest
from integration import site_client as site
from integration.gateway_rig import NS, TENANTS, HandClock, greeted, heard, hello, made, send

from heatpool.sample import BootId, SiteId
from heatpool_aggregator.core.quotas import Quota
from heatpool_aggregator.loops import admitting as admitting_room
from heatpool_aggregator.loops.admitting import UNACKED_HOLD_COUNT
from heatpool_aggregator.wire.telemetry import hello_from_bytes


@pytest.fixture
def waits_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long streams were held, s; nobody waits for it."""
    held_s: list[float] = []

    async def hasty(seconds: float) -> None:
        held_s.append(seconds)

    monkeypatch.setattr(admitting_room, "sleep", hasty)
    return held_s


async def test_a_noisy_tenant_is_slowed_then_held_then_told_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch, waits_s: list[float]
) -> None:
    monkeypatch.setattr(admitting_room, "ROOM_S", 3.0)
    gateway = made(Quota(batches_s=1.0))
    noisy, quiet = await greeted(gateway), await greeted(gateway, "site-b")
    # Its hello was the first of ten.
    taken = [await send(noisy, seq) for seq in range(1, 15)]
    assert (taken, waits_s) == ([True] * 13 + [False], [1.0, 2.0, 3.0])
    assert all([await send(quiet, seq) for seq in range(1, 20)])
    await gateway.step()
    messages = await heard(noisy)
    slows = [one.slow.limits for one in messages if one.HasField("slow")]
    assert [slow.HasField("message_period_s") for slow in slows] == [False, True]
    later_s = [one.ack.retry_after_s for one in messages if one.ack.HasField("retry_after_s")]
    assert later_s == [4.0]
    assert noisy.retry_after_s == 4.0


@pytest.mark.usefixtures("waits_s")
async def test_nothing_is_asked_of_a_stream_before_the_answer_to_its_hello() -> None:
    gateway = made(Quota(batches_s=1.0))
    noisy = await greeted(gateway)
    assert all([await send(noisy, seq) for seq in range(1, 12)])
    again = await hello(gateway, "site-c")
    assert again is not None
    (answer,) = await heard(again)
    assert answer.hello_reply.limits.HasField("backlog_bytes_s")


async def test_a_hello_beyond_the_quota_is_answered_with_when_to_come_back() -> None:
    gateway = made(Quota(batches_s=0.04))
    await greeted(gateway)
    refused = gateway.open()
    data = site.hello("site-c").SerializeToString()
    assert not await refused.hello(hello_from_bytes(data), data)
    assert (await heard(refused))[0].hello_reply.retry_after_s == pytest.approx(15.0)


@pytest.mark.parametrize("step_s", [-86_400, 0, 86_400])
async def test_a_slowed_stream_is_let_go_on_once_it_has_been_calm(step_s: int) -> None:
    clock = HandClock()
    gateway = made(Quota(batches_s=1.0), clock)
    session = await greeted(gateway)
    await gateway.step()
    clock.stepped_ns = step_s * NS
    gateway.admitting._slow(session, admitting_room.CROWDED)
    (slow,) = await heard(session)
    assert slow.slow.limits.HasField("backlog_bytes_s")
    clock.at_ns += 11 * NS
    await gateway.step()
    (steady,) = await heard(session)
    assert steady.HasField("slow")
    assert not steady.slow.limits.HasField("backlog_bytes_s")


async def test_a_tenant_with_all_its_streams_is_told_to_come_back() -> None:
    gateway = made(Quota(streams=1))
    first = await greeted(gateway)
    refused = gateway.open()
    data = site.hello("site-c").SerializeToString()
    assert not await refused.hello(hello_from_bytes(data), data)
    (response,) = await heard(refused)
    assert response.hello_reply.retry_after_s == pytest.approx(refused.retry_after_s)
    assert 10 <= refused.retry_after_s <= 20
    refused.close()
    assert await hello(gateway, "site-b")
    first.close()
    assert await hello(gateway, "site-c")


async def test_a_storm_of_one_tenant_gets_no_more_streams_than_it_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "HELLOS_BURST", 0.0)
    gateway = made(Quota(streams=2))
    found = await asyncio.gather(*(hello(gateway) for _ in range(10)))
    assert len([session for session in found if session is not None]) == 2


async def test_a_spool_whose_stream_went_before_its_commit_is_not_kept() -> None:
    gateway = made()
    session = await greeted(gateway)
    assert await send(session, 1)
    session.close()
    await gateway.step()
    assert not gateway._arrivals
    assert gateway.durable.of((SiteId("site-a"), BootId("site-a-t"))).pairs() == [(1, 1)]


async def test_who_has_nothing_on_its_way_gets_in_where_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "STAGED_SOFT_BYTES", 400)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.01)
    gateway = made()
    noisy, quiet = await greeted(gateway), await greeted(gateway, "site-b")
    await gateway.step()
    taken = [await send(noisy, seq) for seq in range(1, 12)]
    assert not all(taken)
    assert await send(quiet, 1)


async def test_what_is_staged_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting_room, "STAGED_SOFT_BYTES", 1_000)
    monkeypatch.setattr(admitting_room, "STAGED_LIMIT_BYTES", 2_000)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.0)
    gateway = made()
    sessions = [await greeted(gateway, name) for name in ("site-a", "site-b", "site-c")]
    for seq in range(1, UNACKED_HOLD_COUNT):
        for session in sessions:
            await send(session, seq)
    assert gateway.admitting.staged_bytes < 2_000 + 200
    await gateway.step()
    assert gateway.admitting.staged_bytes == 0
    assert await send(sessions[0], 99)


async def test_a_storm_of_hellos_comes_in_by_turns_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch, waits_s: list[float]
) -> None:
    monkeypatch.setattr(admitting_room, "HELLOS_BURST", 10.0)
    monkeypatch.setattr(admitting_room, "HELLOS_S", 10.0)
    gateway = made()
    found = [await hello(gateway, f"site-{number}") for number in range(140)]
    admitted = sum(session is not None for session in found)
    assert 110 <= admitted < 140
    assert max(waits_s) <= admitting_room.ROOM_S


async def test_a_tenant_that_fills_the_stage_is_refused_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(200):
        monkeypatch.setitem(TENANTS, f"noisy-{number}", "noisy")
    gateway = made(Quota(streams=1_000))
    crowd = [await greeted(gateway, f"noisy-{number}") for number in range(200)]
    quiet = await greeted(gateway, "site-b")
    await gateway.step()
    monkeypatch.setattr(admitting_room, "STAGED_SOFT_BYTES", 2_000)
    monkeypatch.setattr(admitting_room, "STAGED_LIMIT_BYTES", 4_000)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.0)
    taken = [await send(one, 1) for one in crowd]
    assert not all(taken)
    assert [await send(quiet, seq) for seq in (1, 2)] == [True, True]
    assert not any([await send(one, 2) for one in crowd])
    await gateway.step()
    assert await send(crowd[0], 2)
    assert gateway.admitting.staged_bytes == crowd[0].account.staged_bytes


async def test_one_stream_holds_no_more_of_the_stage_than_one_large_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "STREAM_HOLD_BYTES", 300)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.0)
    gateway = made()
    noisy, other = await greeted(gateway), await greeted(gateway, "site-b")
    await gateway.step()
    taken = [await send(noisy, seq) for seq in range(1, 10)]
    assert 0 < sum(taken) < 9
    assert await send(other, 1)


async def test_a_site_that_says_hello_without_end_is_refused_and_no_other() -> None:
    gateway = made(clock=HandClock())
    again = site.hello("site-a").SerializeToString()
    found = []
    for _ in range(100):
        session = gateway.open()
        found.append(await session.hello(hello_from_bytes(again), again))
        session.close()
        await gateway.step()
    assert (found[0], found[-1], 10 <= session.retry_after_s <= 20) == (True, False, True)
    assert await hello(gateway, "site-b")


async def test_a_tenant_whose_sites_all_come_at_once_leaves_turns_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "HELLOS_BURST", 0.0)
    monkeypatch.setattr(admitting_room, "HELLOS_S", 2.0)
    turn = asyncio.Event()

    async def until_told(_: float) -> None:
        await turn.wait()

    monkeypatch.setattr(admitting_room, "sleep", until_told)
    for number in range(30):
        monkeypatch.setitem(TENANTS, f"noisy-{number}", "noisy")
    gateway = made(Quota(streams=1_000), HandClock())
    names = [*(f"noisy-{number}" for number in range(30)), "site-b"]
    coming = [asyncio.create_task(hello(gateway, name), name=name) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    turn.set()
    found = [session is not None for session in await asyncio.gather(*coming)]
    assert sum(found[:-1]) < 20, "not all turns that there are"
    assert found[-1]


async def test_a_stream_that_is_held_lets_others_pass() -> None:
    gateway = made()
    held, other = await greeted(gateway), await greeted(gateway, "site-b")
    await gateway.step()
    for seq in range(1, UNACKED_HOLD_COUNT + 1):
        assert await send(held, seq)
    waiting = asyncio.create_task(send(held, 99), name="held")
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await send(other, 1)
    await gateway.step()
    assert await waiting
