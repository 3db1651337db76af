"""The load generator behind TLS: each agent speaks by its own certificate, and by no other's."""

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
from integration.door import pki
from integration.door.conftest import Rig, settings

from heatpool.sample import SiteId
from heatpool_aggregator import app
from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.config import Tenant
from heatpool_aggregator.stores.identities import open_identities
from heatpool_sim.load.asked import Asked, Doors, Faults
from heatpool_sim.load.fleet import Fleet


def asked(rig: Rig, folder: Path) -> Asked:
    return Asked(
        agents=5,
        rows=4,
        period_s=0.25,
        register_period_s=0.5,
        seconds=1.0,
        ramp_s=0.1,
        is_verified=True,
        doors=Doors(grpc=rig.address, folder=folder, operator=folder / "rob.pem"),
    )


async def certificates(rig: Rig, folder: Path) -> Asked:
    """Agents 0 to 3 have their own; agent 4 came by that of agent 0."""
    wish = asked(rig, folder)
    whose = {"rob": rig.caller("person/rob")}
    for number in range(wish.agents):
        site_id = wish.site_id(number)
        await rig.identities.add_site(SiteId(site_id), "north")
        whose[site_id] = rig.caller(f"site/{wish.site_id(number % 4)}")
    (folder / "ca.pem").write_bytes(rig.ca.pem)
    for name, who in whose.items():
        (folder / f"{name}.pem").write_bytes(who.key + who.chain)
    return wish


async def test_certificates_decide_who_may_speak(rig: Rig, tmp_path: Path) -> None:
    found = await Fleet(await certificates(rig, tmp_path)).run(asyncio.Event())
    assert found["agents"]["refused_for_good"] == {"PERMISSION_DENIED": 1}
    assert (found["agents"]["connected_most"], found["lost"], found["left"]) == (4, 0, 0)
    assert found["durable"]["rows"] == found["sent"]["rows"] > 0
    assert (found["witness"]["is_right"], found["witness"]["sites_compared"]) == (True, 4)


async def test_a_tenant_over_its_quota_waits_alone(tmp_path: Path) -> None:
    ca, wish = pki.Ca(), Asked(agents=5, rows=4, period_s=0.25, seconds=1.0, ramp_s=0.1)
    wish = replace(wish, faults=Faults(noisy_factor=120.0))
    loud = wish.agents // 2
    tls = pki.write(tmp_path, ca, ca.server("127.0.0.1"))
    # Ten seconds of a quota come at once: 400 of the 480 messages, and the others in their time.
    config = msgspec.structs.replace(settings(tls), tenant=(Tenant(id="loud", batches_s=40.0),))
    async with (
        open_identities(tmp_path, trust_domain="heatpool", clock=SystemClock()) as identities,
        app.serving(config, tmp_path) as addresses,
    ):
        for number in range(wish.agents):
            site_id = wish.site_id(number)
            await identities.add_site(SiteId(site_id), "loud" if number == loud else "calm")
            who = ca.caller(f"spiffe://heatpool/site/{site_id}")
            (tmp_path / f"{site_id}.pem").write_bytes(who.key + who.chain)
        doors = Doors(grpc=addresses["grpc"], folder=tmp_path)
        fleet = Fleet(replace(wish, doors=doors))
        found = await fleet.run(asyncio.Event())
    assert (found["lost"], found["left"], found["agents"]["connected_most"]) == (0, 0, 5)
    assert found["told"]["slows"] > 0
    assert found["durable"]["rows"] == found["sent"]["rows"]
    assert fleet.agents[loud].site.telemetry.next_seq > 400
