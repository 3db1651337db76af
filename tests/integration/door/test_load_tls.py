"""The load generator behind TLS: each agent speaks by its own certificate, and by no other's."""

import asyncio
from pathlib import Path

from integration.door.conftest import Rig

from heatpool.sample import SiteId
from heatpool_sim.load.asked import Asked, Doors
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
