"""Nobody gets in at the gRPC port but with a certificate of ours, and each as what it is."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from integration import site_client as site
from integration.door import calls, pki
from integration.door.calls import QUERY, REGISTRY, ask, hello_of, report_of, say, status, stream
from integration.door.conftest import settings

from heatpool.errors import ConfigError
from heatpool.sample import SiteId
from heatpool.v1 import query_pb2
from heatpool_aggregator import app
from heatpool_aggregator.config import Listen, Tls

HOUR = timedelta(hours=1)
HTTP = "127.0.0.1:0"
PAST = {"lives": (-2 * HOUR, -HOUR)}


async def test_an_enrolled_site_is_heard_though_no_virtual_source_has_it(rig: Any) -> None:
    async with rig.as_("site/e3") as channel, stream(channel) as line:
        await line.send(site.hello("e3"))
        assert (await line.next()).HasField("hello_reply")
        await line.send(site.batch(1, time.time_ns()))
        await line.acked("e3-t", 1)


@pytest.mark.parametrize(
    ("make", "ca_is_known"),
    [
        (lambda rig: None, True),
        (lambda rig: pki.Ca().caller("spiffe://heatpool/site/e1"), True),
        (lambda rig: pki.Ca("test CA").caller("spiffe://heatpool/person/ada"), True),
        (lambda rig: rig.caller("site/e1", **PAST), True),
        (lambda rig: rig.caller("site/e1"), False),
    ],
    ids=["none", "foreign CA", "CA of the same name", "expired", "foreign server"],
)
async def test_no_handshake_without_a_certificate_of_this_ca_that_holds_now(
    rig: Any, make: Any, ca_is_known: Any
) -> None:
    ca_pem = rig.ca.pem if ca_is_known else pki.Ca().pem
    async with rig.channel(make(rig), ca_pem=ca_pem) as channel:
        code, _ = await status(ask(channel, f"{QUERY}/ListSiteStatus"))
        assert code == "UNAVAILABLE"


async def test_a_line_without_tls_is_hung_up_on(rig: Any) -> None:
    async with grpc.aio.insecure_channel(rig.address) as channel:
        assert (await status(ask(channel, f"{QUERY}/ListSiteStatus")))[0] == "UNAVAILABLE"


@pytest.mark.parametrize(
    "uris",
    [
        ("spiffe://elsewhere/site/e1",),
        ("spiffe://heatpool/site/e1", "spiffe://heatpool/person/ada"),
        (),
        ("https://heatpool/site/e1",),
        ("spiffe://heatpool/site/../person/ada",),
        ("spiffe://heatpool/site/e1/",),
        ("spiffe://heatpool//person/ada",),
        ("spiffe://heatpool/site/nobody",),
        ("spiffe://heatpool/person/nobody",),
        ("spiffe://heatpool/local",),
    ],
)
async def test_a_name_that_is_not_ours_is_nobody(rig: Any, uris: tuple[str, ...]) -> None:
    who = rig.ca.caller(*uris)
    async with rig.channel(who) as channel:
        for path in (f"{QUERY}/ListSiteStatus", f"{REGISTRY}/RenewCertificate"):
            assert (await status(ask(channel, path)))[0] == "UNAUTHENTICATED"
        async with stream(channel) as line:
            await say(line, site.hello("e1"))
            assert (await status(line.next()))[0] == "UNAUTHENTICATED"


async def test_a_revoked_site_is_cut_off_in_mid_stream_and_stays_out(rig: Any) -> None:
    async with rig.as_("site/e1") as channel, rig.as_("site/e2") as other:
        async with stream(channel) as line, stream(channel, "Control") as control:
            async with stream(other) as bystander:
                for one, name in ((line, "e1"), (bystander, "e2")):
                    await one.send(site.hello(name))
                    await one.next()
                await control.send(hello_of("e1"))
                await rig.identities.revoke_site(SiteId("e1"), "stolen")
                began_s = time.monotonic()
                code, detail = await status(line.next())
                took_s = time.monotonic() - began_s
                assert (code, detail.split(":")[0]) == ("UNAUTHENTICATED", "revoked")
                assert took_s < 60, "the bound that the design gives"
                assert (await status(control.next()))[0] == "UNAUTHENTICATED"
                await bystander.send(site.batch(1, time.time_ns()))
                await bystander.acked("e2-t", 1)
        async with stream(channel) as again:
            await say(again, site.hello("e1"))
            assert (await status(again.next()))[0] == "UNAUTHENTICATED"


async def test_a_certificate_that_runs_out_ends_its_stream(rig: Any) -> None:
    who = rig.caller("site/e1", lives=(-HOUR, timedelta(seconds=3)))
    async with rig.channel(who) as channel, stream(channel) as line:
        await say(line, site.hello("e1"))
        await line.next()
        code, detail = await status(line.next())
        assert (code, detail.split(":")[0]) == ("UNAUTHENTICATED", "expired")
        assert (await status(ask(channel, f"{REGISTRY}/RenewCertificate")))[0] == "UNAUTHENTICATED"


async def test_a_site_speaks_for_itself_alone(rig: Any) -> None:
    async with rig.as_("site/e1") as channel:
        for named in (["e2"], ["e1", "e2"], ["e4"], ["../e2"], ["E1"]):
            async with stream(channel) as line:
                sites = [site.hello(name).hello.sites[0] for name in named]
                await say(line, site.hello("e1", sites=sites))
                code, detail = await status(line.next())
                assert (code, "site/e1" in detail) == ("PERMISSION_DENIED", True)
        async with stream(channel, "Control") as control:
            await say(control, hello_of("e1", "e2"))
            assert (await status(control.next()))[0] == "PERMISSION_DENIED"
        async with stream(channel, "Control") as control:
            await say(control, hello_of("e1"), report_of("e2"))
            assert (await status(control.next()))[0] == "PERMISSION_DENIED"
    assert (await calls.refused(rig))["other_site"] == 7
    (entry,) = [e for e in await rig.audit.read(100) if e.action == "refused.other_site"]
    assert (entry.who, "'e2'" in entry.reason) == ("site/e1", True)


async def test_a_batch_cannot_name_a_site_that_hello_did_not(rig: Any) -> None:
    async with rig.as_("site/e1") as channel, stream(channel) as line:
        await line.send(site.hello("e1"))
        await line.next()
        await say(line, site.batch(1, time.time_ns(), site_index=1))
        assert (await status(line.next()))[0] == "INVALID_ARGUMENT"


async def test_the_newest_stream_of_a_site_stays(rig: Any) -> None:
    async with rig.as_("site/e1") as one, rig.as_("site/e1") as two:
        async with stream(one) as older, stream(two) as newer:
            for line in (older, newer):
                await say(line, site.hello("e1"))
                await line.next()
            code, detail = await status(older.next())
            assert (code, "another stream" in detail) == ("ABORTED", True)
            await newer.send(site.batch(1, time.time_ns()))
            await newer.acked("e1-t", 1)


@pytest.mark.parametrize(
    ("name", "path", "code"),
    [
        ("site/e1", f"{QUERY}/ListSiteStatus", "PERMISSION_DENIED"),
        ("site/e1", f"{QUERY}/WatchSourceStatus", "PERMISSION_DENIED"),
        ("site/e1", f"{REGISTRY}/ListSites", "PERMISSION_DENIED"),
        ("site/e1", "grpc.health.v1.Health/Check", ""),
        ("person/nora", "grpc.health.v1.Health/Check", ""),
        ("person/nora", "heatpool.v1.TelemetryService/Stream", "PERMISSION_DENIED"),
        ("person/ada", "heatpool.v1.TelemetryService/Stream", "PERMISSION_DENIED"),
        ("machine/scada", "heatpool.v1.ControlService/Stream", "PERMISSION_DENIED"),
        ("person/rob", f"{QUERY}/GetStatement", "PERMISSION_DENIED"),
        ("person/rob", f"{QUERY}/ListSiteStatus", ""),
        ("person/cleo", f"{QUERY}/GetStatement", ""),
        ("site/e1", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "PERM"),
        ("person/ada", "heatpool.v1.QueryService/Nothing", "UNIMPLEMENTED"),
        ("person/ada", "grpc.channelz.v1.Channelz/GetServers", "UNIMPLEMENTED"),
        ("person/ada", "heatpool.v1.QueryService", "UNIMPLEMENTED"),
        ("person/ada", "/heatpool.v1.QueryService/ListSiteStatus", "UNIMPLEMENTED"),
        ("person/ada", "x/../heatpool.v1.QueryService/ListSiteStatus", "UNIMPLEMENTED"),
        ("person/ada", "heatpool.v1.QueryService/ListSiteStatus?a=b", "UNIMPLEMENTED"),
        ("person/ada", "heatpool.v1.QueryService/listSiteStatus", "UNIMPLEMENTED"),
        ("person/ada", "heatpool.v1.QueryService/%4cistSiteStatus", "UNIMPLEMENTED"),
        ("site/e1", "", "UNIMPLEMENTED"),
    ],
)
async def test_each_role_may_what_the_table_says(rig: Any, name: str, path: str, code: str) -> None:
    async with rig.as_(name) as channel:
        if code:
            assert (await status(ask(channel, path)))[0].startswith(code)
        else:
            await ask(channel, path)


async def test_a_site_owner_sees_its_own_sites_and_no_sum_with_others(rig: Any) -> None:
    for name in ("e1", "e2", "e3"):
        async with rig.as_(f"site/{name}") as channel, stream(channel) as line:
            await line.send(site.hello(name), site.batch(1, time.time_ns()))
            await line.acked(f"{name}-t", 1)
    async with rig.as_("person/ada") as channel:

        async def both_are_seen() -> bool:
            return await fresh_of(channel) >= {"e1", "e2"}

        await calls.eventually(both_are_seen)
    for person, seen, sources in (
        ("person/rob", {"e1", "e2"}, ["both", "other"]),
        ("person/nora", {"e1"}, []),
        ("person/sam", {"e2"}, []),
    ):
        async with rig.as_(person) as channel:
            assert await fresh_of(channel) - {"e3"} == seen
            answer = await ask(channel, f"{QUERY}/ListSourceStatus")
            assert ids(query_pb2.ListSourceStatusResponse.FromString(answer)) == sources
            watch: Any = channel.unary_stream(f"/{QUERY}/WatchSourceStatus")(b"")
            first = query_pb2.ListSourceStatusResponse.FromString(await watch.read())
            assert ids(first) == sources
            watch.cancel()
    async with rig.as_("person/nora") as channel:
        asked = query_pb2.ListGapsRequest(site_id="e2").SerializeToString()
        code, detail = await status(ask(channel, f"{QUERY}/ListGaps", asked))
        unknown = query_pb2.ListGapsRequest(site_id="e9").SerializeToString()
        other_code, other_detail = await status(ask(channel, f"{QUERY}/ListGaps", unknown))
        # Nobody can find out which sites others have.
        assert (code, detail) == (other_code, other_detail.replace("e9", "e2"))


async def test_a_call_that_is_still_open_ends_when_rights_change(rig: Any) -> None:
    async with rig.as_("person/nora") as channel:
        watch: Any = channel.unary_stream(f"/{QUERY}/WatchSourceStatus")(b"")
        await watch.read()
        await rig.identities.revoke_user("person/nora", "left")
        code, detail = await status(watch.read())
        assert (code, detail.split(":")[0]) == ("UNAUTHENTICATED", "revoked")


async def test_the_server_takes_a_new_certificate_without_a_restart(rig: Any) -> None:
    ca = pki.Ca("the next CA")
    pki.write(rig.folder, ca, ca.server("127.0.0.1"))
    async with rig.channel(ca.caller("spiffe://heatpool/person/ada"), ca_pem=ca.pem) as channel:
        await ask(channel, f"{QUERY}/ListSiteStatus")
    async with rig.as_("person/ada") as channel:
        assert (await status(ask(channel, f"{QUERY}/ListSiteStatus")))[0] == "UNAVAILABLE"


async def test_with_certificates_any_address_may_be_served_and_without_only_this_machine(
    tmp_path: Path,
) -> None:
    config = msgspec.structs.replace(settings({}), listen=Listen(grpc="0.0.0.0:0", http=HTTP))
    with pytest.raises(ConfigError, match="without certificates anybody could speak"):
        async with app.serving(config, tmp_path):
            pass
    ca = pki.Ca()
    tls = pki.write(tmp_path, ca, ca.server("127.0.0.1"))
    config = msgspec.structs.replace(config, tls=msgspec.convert(tls, Tls))
    async with app.serving(config, tmp_path) as addresses:
        host, _, port = addresses["grpc"].rpartition(":")
        assert host == "0.0.0.0"
        _, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.close()


async def test_half_written_certificates_change_nothing(rig: Any) -> None:
    (rig.folder / "cert.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    async with rig.as_("person/ada") as channel:
        await ask(channel, f"{QUERY}/ListSiteStatus")


def ids(answer: Any) -> list[str]:
    return [source.virtual_source_id for source in answer.virtual_sources]


async def fresh_of(channel: Any) -> set[str]:
    answer = query_pb2.ListSiteStatusResponse.FromString(
        await ask(channel, f"{QUERY}/ListSiteStatus")
    )
    return {one.site_id for one in answer.sites if not one.is_stale}
