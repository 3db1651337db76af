"""Every step of an order is in the audit log, and no order outlives what its site was trusted."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from integration.door import pki
from integration.door.calls import COMMAND, ask, eventually, hello_of, order, stream
from integration.order_site import Clock, line, made

from heatpool.errors import StoreError
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointReport, SetpointState
from heatpool_aggregator.core.audit import AuditEntry, Deed, first_break
from heatpool_aggregator.core.enrolment import Issued, JoinAsk, JoinToken
from heatpool_aggregator.core.orders import Ask, Order
from heatpool_aggregator.identity.tokens import new_join_token
from heatpool_aggregator.loops import order_trail
from heatpool_aggregator.loops.order_book import OrderBook
from heatpool_aggregator.loops.order_trail import OrderTrail
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.wire.control import report_to_bytes

E1 = SiteId("e1")
S = SetpointState
SITE, US = "site/e1", "aggregator"


async def steps(audit: Any) -> list[AuditEntry]:
    """The steps of orders in the log, oldest first."""
    found = [e for e in await audit.read(1_000) if e.action.startswith("setpoint.")]
    return [e for e in reversed(found) if e.action not in ("setpoint.set", "setpoint.end")]


async def next_setpoint(control: Any) -> Any:
    while not (said := await control.next()).HasField("setpoint"):
        pass
    return said.setpoint


async def test_each_step_of_an_order_is_audited_once_with_who_and_why(rig: Any) -> None:
    async with (
        rig.as_("site/e1") as at_site,
        rig.as_("machine/scada") as channel,
        stream(at_site, "Control") as control,
    ):
        await control.send(hello_of("e1"))
        assert (await control.next()).HasField("heartbeat")
        await ask(channel, f"{COMMAND}/SetSetpoint", order())
        seq = (await next_setpoint(control)).setpoint_seq
        told = (S.RECEIVED, S.APPLIED, S.RENEWED, S.APPLIED, S.EFFECT_SEEN, S.RENEWED)
        for number, state in enumerate((*told, S.OVERRIDDEN, S.APPLIED, S.OVERRIDDEN, S.EXPIRED)):
            report = SetpointReport(
                site_id=E1, setpoint_seq=seq, state=state, event_ns=number + 1, detail="pump"
            )
            await control.send(report_to_bytes(report))

        async def is_over() -> bool:
            return any(e.action == "setpoint.expired" for e in await steps(rig.audit))

        await eventually(is_over)
    found = await steps(rig.audit)
    assert [(e.who, e.action.partition(".")[2]) for e in found] == [
        (US, "sent"),
        (SITE, "received"),
        (SITE, "applied"),
        (SITE, "effect_seen"),
        (SITE, "overridden"),
        (SITE, "applied"),
        (SITE, "overridden"),
        (SITE, "expired"),
    ]
    assert {e.subject for e in found} == {SITE}
    assert [e.reason for e in found[:2]] == ["warm", "warm; pump"]
    detail = json.loads(found[1].detail)
    assert (detail["asked_by"], detail["setpoint_seq"]) == ("machine/scada", seq)
    assert first_break(list(await rig.audit.read(1_000))[::-1]) is None


async def rejoined(rig: Any) -> pki.Identity:
    """The site comes back by a new token, as POST /v1/join takes it in."""
    who: pki.Identity = rig.caller("site/e1")
    secret, now_ns = new_join_token(), time.time_ns()
    token = JoinToken(
        token_id=secret.token_id,
        site_id=E1,
        owner="north",
        uses_count=1,
        uses_left=1,
        created_ns=now_ns,
        expires_ns=now_ns + 10**12,
        is_approval_needed=False,
    )
    await rig.identities.add_join_token(token, secret.sha256)
    issued = Issued(
        serial=who.serial,
        name=SITE,
        key_sha256=bytes(32),
        issued_ns=now_ns,
        expires_ns=now_ns + 10**12,
        chain_pem=who.chain.decode(),
    )
    ask_for = JoinAsk(token=secret.text, site_id=E1, key_sha256=bytes(32), peer="127.0.0.1")
    await rig.identities.enrol(ask_for, issued)
    return who


@pytest.mark.parametrize("look", ["seen revoked", "back at once"])
async def test_an_order_of_before_a_revocation_is_not_sent_to_who_joins_anew(
    rig: Any, look: str
) -> None:
    until_ns = time.time_ns() + 3_600 * 10**9
    async with rig.as_("machine/scada") as channel:
        await ask(channel, f"{COMMAND}/SetSetpoint", order(until_ns=until_ns))

        async def is_ended() -> bool:
            ends = [e for e in await rig.audit.read(99) if e.action == "setpoint.end"]
            return [(e.who, e.subject) for e in ends] == [(US, SITE)]

        await rig.identities.revoke_site(E1, "stolen")
        if look == "seen revoked":
            await eventually(is_ended)
        who = await rejoined(rig)
        async with rig.channel(who) as at_site, stream(at_site, "Control") as control:
            await control.send(hello_of("e1"))
            # A setpoint would come before the first heartbeat.
            assert (await control.next()).HasField("heartbeat")
            await eventually(is_ended)
            # The next order finds the site well.
            await ask(channel, f"{COMMAND}/SetSetpoint", order(reason="again"))
            assert (await next_setpoint(control)).reason == "again"


class Disk:
    """An audit log on a disk that can be full, or take what it says that it did not."""

    def __init__(self, audit: Any) -> None:
        self._audit = audit
        self.is_full = self.is_late = False

    async def append_all(self, deeds: Sequence[Deed]) -> None:
        if self.is_full:
            raise StoreError("audit.db: the disk is full")
        await self._audit.append_all(deeds)
        if self.is_late:
            raise StoreError("audit.db: did not answer within 30 s")

    async def read(self, limit: int, before_number: int = 0) -> Sequence[AuditEntry]:
        found: Sequence[AuditEntry] = await self._audit.read(limit, before_number)
        return found


def report(state: SetpointState) -> SetpointReport:
    return SetpointReport(site_id=E1, setpoint_seq=7, state=state, event_ns=1)


ORDER = Order(
    ask=Ask(site_id=E1, heat_rate_w=1.0, lease_s=60.0, reason="warm"),
    number=7,
    asked_by="person/ada",
    asked_ns=1,
)


async def test_steps_wait_for_a_log_that_fails_and_are_told_until_they_are_in(
    tmp_path: Path,
) -> None:
    notes: list[str] = []
    async with open_audit(tmp_path) as audit:
        disk = Disk(audit)
        trail = OrderTrail(audit=disk, clock=Clock(), note=notes.append)  # type: ignore[arg-type]
        disk.is_full = True
        trail.told(ORDER, report(S.RECEIVED), who=SITE)
        await trail.flush()
        assert notes == ["1 steps of orders wait: audit.db: the disk is full"]
        disk.is_full, disk.is_late = False, True
        trail.told(ORDER, report(S.APPLIED), who=SITE)
        await trail.flush()
        disk.is_late = False
        await trail.flush()
        assert notes[-1] == ""
        # What was in the log although it seemed not to be is there once.
        assert [e.action for e in await steps(audit)] == ["setpoint.received", "setpoint.applied"]


async def test_what_finds_no_room_is_counted_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_trail, "ROOM_COUNT", 1)
    async with open_audit(tmp_path) as audit:
        trail = OrderTrail(audit=audit, clock=Clock(), note=lambda _: None)
        for state in (S.RECEIVED, S.APPLIED, S.EFFECT_SEEN):
            trail.told(ORDER, report(state), who=SITE)
        await trail.flush()
        found = await steps(audit)
        assert [e.action for e in found] == ["setpoint.received", "setpoint.steps_lost"]
        assert found[1].reason.startswith("2 steps of orders")


async def test_a_restart_repeats_no_step(tmp_path: Path) -> None:
    async with open_audit(tmp_path) as audit:
        for _ in range(2):
            trail = OrderTrail(audit=audit, clock=Clock(), note=lambda _: None)
            await trail.restore()
            trail.told(ORDER, report(S.RECEIVED), who=SITE)
            await trail.flush()
        assert [e.action for e in await steps(audit)] == ["setpoint.received"]


async def test_a_log_that_hangs_holds_up_no_lease(tmp_path: Path) -> None:
    async with line(tmp_path) as running, open_audit(tmp_path) as audit:
        disk = Disk(audit)
        disk.is_full = True
        trail = OrderTrail(audit=disk, clock=running.clock, note=lambda _: None)  # type: ignore[arg-type]
        running.book = OrderBook(running.store, trail)
        running.control = made(running.clock, running.book, running.frames, ())
        await running.connect()
        end_ns = running.clock.now_ns() + 600 * 10**9
        held = await running.order(until_ns=end_ns)
        await running.pass_s(200)
        assert running.site.now_w == 8_000.0
        assert "applied" in await running.states(held)
        disk.is_full = False
        await trail.flush()
        assert [e.action for e in await steps(audit)][:3] == [
            "setpoint.sent",
            "setpoint.received",
            "setpoint.applied",
        ]
