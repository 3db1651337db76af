"""Who may order what: roles, tenants, figures; and nothing goes out that is not audited."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.door.calls import COMMAND, ask, eventually, hello_of, order, status, stream
from integration.order_site import SITE, line

from heatpool.errors import StoreError, WireError
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointReport, SetpointState
from heatpool.v1 import command_pb2 as pb
from heatpool_aggregator.board import Board, HeatView, SiteView
from heatpool_aggregator.core.enrolment import UserRecord
from heatpool_aggregator.core.principal import LOCAL, Principal, Role
from heatpool_aggregator.rpc.command import Command
from heatpool_aggregator.rpc.refused import Refused
from heatpool_aggregator.rpc.tenants import Tenants
from heatpool_aggregator.wire import command as wire
from heatpool_aggregator.wire.control import report_to_bytes

NAN = float("nan")


@pytest.mark.parametrize("who", ["person/cleo", "person/rob", "person/nora", "site/e1"])
async def test_only_operators_and_admins_may_order(rig: Any, who: str) -> None:
    async with rig.as_(who) as channel:
        for request, method in ((order(), "SetSetpoint"), (b"", "EndSetpoint")):
            code, detail = await status(ask(channel, f"{COMMAND}/{method}", request))
            assert (code, "may not command" in detail) == ("PERMISSION_DENIED", True)
    assert not [e for e in await rig.audit.read(100) if e.action.startswith("setpoint")]


async def test_an_order_is_in_the_audit_log_with_who_and_why_and_goes_down(rig: Any) -> None:
    async with rig.as_("site/e1") as at_site, rig.as_("machine/scada") as channel:
        async with stream(at_site, "Control") as control:
            await control.send(hello_of("e1"))
            # The stream is open once its heartbeats come.
            assert (await control.next()).HasField("heartbeat")
            answer = await ask(channel, f"{COMMAND}/SetSetpoint", order())
            row = pb.SetSetpointResponse.FromString(answer).setpoint
            assert (row.asked_by, row.reason, row.steps[0].state) == ("machine/scada", "warm", 2)
            while not (said := await control.next()).HasField("setpoint"):
                pass
            assert said.setpoint.setpoint_seq == row.setpoint_seq
            await ask(
                channel,
                f"{COMMAND}/EndSetpoint",
                pb.EndSetpointRequest(site_id="e1", reason="done").SerializeToString(),
            )
        told = await ask(channel, f"{COMMAND}/ListAudit")
    entries = pb.ListAuditResponse.FromString(told).entries
    by_person = [e for e in entries if e.action in ("setpoint.set", "setpoint.end")]
    assert [(e.who, e.action, e.subject, e.reason) for e in by_person] == [
        ("machine/scada", "setpoint.end", "site/e1", "done"),
        ("machine/scada", "setpoint.set", "site/e1", "warm"),
    ]
    assert json.loads(by_person[1].detail)["setpoint_seq"] == row.setpoint_seq


async def test_a_tenant_orders_and_sees_its_own_sites_alone(rig: Any) -> None:
    record = UserRecord(
        name="person/olaf",
        role=Role.OPERATOR,
        tenant="north",
        added_ns=1,
        revoked_ns=None,
        expires_ns=None,
    )
    await rig.identities.add_user(record, None)
    async with rig.as_("person/ada") as channel:
        for site_id in ("e1", "e2"):
            await ask(channel, f"{COMMAND}/SetSetpoint", order(site_id=site_id))
    async with rig.as_("person/olaf") as channel:
        foreign = await status(ask(channel, f"{COMMAND}/SetSetpoint", order(site_id="e2")))
        unknown = await status(ask(channel, f"{COMMAND}/SetSetpoint", order(site_id="zz")))
        assert foreign[0] == unknown[0] == "NOT_FOUND"
        assert foreign[1].replace("e2", "zz") == unknown[1]
        listed = pb.ListSetpointsResponse.FromString(await ask(channel, f"{COMMAND}/ListSetpoints"))
        assert {row.site_id for row in listed.setpoints} == {"e1"}
        assert (await status(ask(channel, f"{COMMAND}/ListAudit")))[0] == "PERMISSION_DENIED"
        asked = pb.ListSetpointsRequest(site_id="e2").SerializeToString()
        assert (await status(ask(channel, f"{COMMAND}/ListSetpoints", asked)))[0] == "NOT_FOUND"


async def test_a_site_that_is_cut_off_is_given_no_order(rig: Any) -> None:
    await rig.identities.revoke_site(SiteId("e1"), "stolen")
    async with rig.as_("person/ada") as channel:
        code, detail = await status(ask(channel, f"{COMMAND}/SetSetpoint", order()))
        assert (code, "is revoked" in detail) == ("FAILED_PRECONDITION", True)
        await ask(channel, f"{COMMAND}/SetSetpoint", order(site_id="e2"))


async def test_an_order_that_makes_no_sense_is_refused_and_not_audited(rig: Any) -> None:
    async with rig.as_("person/ada") as channel:
        code, detail = await status(ask(channel, f"{COMMAND}/SetSetpoint", order(lease_s=NAN)))
        assert (code, detail) == ("INVALID_ARGUMENT", "lease_s is no number")
    assert not [e for e in await rig.audit.read(100) if e.action.startswith("setpoint")]


async def test_no_heat_is_ordered_from_a_site_that_never_said_what_it_can_reject(rig: Any) -> None:
    async with rig.as_("person/ada") as channel:
        code, detail = await status(ask(channel, f"{COMMAND}/SetSetpoint", order(heat_rate_w=1.0)))
        assert (code, "can reject" in detail) == ("FAILED_PRECONDITION", True)


async def test_a_site_may_not_report_what_only_the_aggregator_says(rig: Any) -> None:
    async with rig.as_("site/e1") as channel, stream(channel, "Control") as control:
        await control.send(hello_of("e1"))
        report = SetpointReport(
            site_id=SiteId("e1"), setpoint_seq=1, state=SetpointState.SENT, event_ns=1
        )
        await control.send(report_to_bytes(report))

        async def is_over() -> bool:
            try:
                await control.next()
            except EOFError as error:
                return "INVALID_ARGUMENT" in str(error)
            return False

        await eventually(is_over)


class Asked:
    """This machine asks."""

    async def principal(self, _: Any) -> Principal:
        return LOCAL


class FullDisk:
    """An audit log that takes nothing."""

    async def append(self, **_: Any) -> Any:
        raise StoreError("audit.db: the disk is full")

    async def read(self, limit: int, before_number: int = 0) -> Any:
        raise StoreError("audit.db: the disk is full")


def known(rejection_capacity_w: float | None, *loop_ids: str) -> SiteView:
    return SiteView(
        site_id=SITE,
        virtual_source_id=None,
        heat=HeatView(),
        electric_w=None,
        reported_heat_w=None,
        computed_heat_w=None,
        electric_heat_w=None,
        rejection_capacity_w=rejection_capacity_w,
        event_ns=None,
        is_stale=True,
        energy_wh=None,
        loop_ids=loop_ids,
    )


async def test_without_an_audit_entry_nothing_is_ordered_and_nothing_ended(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        held = await running.order(lease_s=600.0)
        await running.pass_s(2)
        command = made(running, FullDisk(), known(50_000.0))
        with pytest.raises(StoreError, match="disk is full"):
            await command.set(order(site_id=SITE, heat_rate_w=5_000.0), None)  # type: ignore[arg-type]
        ending = pb.EndSetpointRequest(site_id=SITE, reason="x").SerializeToString()
        with pytest.raises(StoreError, match="disk is full"):
            await command.end(ending, None)  # type: ignore[arg-type]
        await running.pass_s(3)
        assert running.site.now_w == 8_000.0
        assert (await running.states(held))[-1] == "applied"


@pytest.mark.parametrize(
    ("change", "site", "why"),
    [
        ({"heat_rate_w": 50_001.0}, known(50_000.0, "rack"), "can take back 50000 W"),
        ({"loop_id": "cellar"}, known(50_000.0, "rack"), "the site has rack"),
        ({}, known(50_000.0, "a", "b"), "loop_id is missing"),
    ],
)
async def test_an_order_beyond_what_the_site_said_is_not_sent(
    tmp_path: Path, change: dict[str, Any], site: SiteView, why: str
) -> None:
    async with line(tmp_path) as running:
        command = made(running, FullDisk(), site)
        request = order(site_id=SITE, **{"heat_rate_w": 9.0} | change)
        with pytest.raises(Refused, match=why):
            await command.set(request, None)  # type: ignore[arg-type]


def made(running: Any, audit: Any, site: SiteView) -> Command:
    board = Board()
    board.post(sites=(site,))
    return Command(
        orders=running.control,
        book=running.book,
        board=board,
        audit=audit,
        clock=running.clock,
        tenants=Tenants(Asked(), None),  # type: ignore[arg-type]  # all is seen without it
    )


DECODERS = (
    wire.ask_from_bytes,
    wire.end_from_bytes,
    wire.list_from_bytes,
    wire.audit_from_bytes,
    wire.set_from_bytes,
    wire.ended_from_bytes,
    wire.listed_from_bytes,
    wire.entries_from_bytes,
)


@pytest.mark.parametrize("decode", DECODERS)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(decode: Any, data: bytes) -> None:
    try:
        decode(data)
    except WireError:
        return
