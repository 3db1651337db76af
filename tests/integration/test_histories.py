"""Histories give way to live frames, all alike."""

import pytest
from integration.gateway_rig import NS, HandClock, greeted, heard, hello, made, send, told, turns

from heatpool_aggregator.loops import admitting as admitting_room


async def test_histories_are_slowed_alike_while_live_frames_wait_and_then_released() -> None:
    clock = HandClock()
    gateway = made(clock=clock)
    behind = [await greeted(gateway, name, boundary_seq=3) for name in ("site-a", "site-b")]
    live = await greeted(gateway, "site-c")
    await turns(gateway, clock, waits_s=0.1, rate=1e5)
    assert [await told(one) for one in (*behind, live)] == [[], [], []]
    for _ in range(4):
        await turns(gateway, clock, waits_s=2.0, rate=1e5)
    assert [(await told(one))[-1:] for one in (*behind, live)] == [[5e5], [5e5], []]
    for seq in (1, 2):
        assert await send(behind[0], seq)
    await gateway.step()
    await turns(gateway, clock, waits_s=0.1, rate=1e6)
    # One has none left; what it leaves over is the other's.
    assert [await told(one) for one in (*behind, live)] == [[None], [None], []]


async def test_a_history_that_comes_into_a_crowd_hears_its_share_with_the_answer() -> None:
    clock = HandClock()
    gateway = made(clock=clock)
    await greeted(gateway, boundary_seq=3)
    await greeted(gateway, "site-c", boundary_seq=3)
    for _ in range(4):
        await turns(gateway, clock, waits_s=2.0, rate=2e5)
    session = await hello(gateway, "site-b", boundary_seq=3)
    assert session is not None
    (answer,) = await heard(session)
    assert answer.hello_reply.limits.backlog_bytes_s == pytest.approx(6e5)


async def test_a_tenant_s_own_limit_and_its_share_are_both_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = HandClock()
    gateway = made(clock=clock)
    session = await greeted(gateway, boundary_seq=3)
    await greeted(gateway, "site-b", boundary_seq=3)
    for _ in range(4):
        await turns(gateway, clock, waits_s=2.0, rate=1e6)
    gateway.admitting._slow(session, admitting_room.CROWDED)
    clock.at_ns += 11 * NS
    await gateway.step()
    assert (await told(session))[-2:] == [1_000.0, 6e5]
