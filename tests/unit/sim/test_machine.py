"""A server's own counters: energy is conserved, each counter errs by itself, faults by name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heatpool.errors import ConfigError
from heatpool_sim import scenario
from heatpool_sim.devices.machine import Machine, Parts, Roots
from heatpool_sim.devices.nvml import GpuModel
from heatpool_sim.loops import RunningSite
from heatpool_sim.plant import faults
from heatpool_sim.plant import site as plants
from heatpool_sim.plant.fed import Fed, grown, means_w, parts_w
from heatpool_sim.plant.meter import MeterState
from heatpool_sim.plant.server_gauges import true_feed

SPEC = scenario.load("edge").sites[0]
PARTS = Parts(
    cpu_name="Simulated CPU",
    cpu_most_w=350.0,
    gpu=GpuModel(name="Simulated GPU", idle_w=20.0, most_w=400.0),
)


def site() -> RunningSite:
    metered = MeterState(register_wh=1000)
    state = plants.steady(SPEC.plant, at_ns=10**18, meter=SPEC.meter, metered=metered)
    return RunningSite(SPEC.plant, state, errors=SPEC.errors)


def advance(running: RunningSite, seconds: int) -> None:
    for _ in range(20 * seconds):
        running.advance(0.05, boot_ns=0)


@asynccontextmanager
async def machine(running: RunningSite, folder: Path) -> AsyncIterator[tuple[Machine, Roots]]:
    one = Machine(folder, PARTS, seed=SPEC.plant.seed)
    async with one.serve(running) as roots:
        yield one, roots


def energy_j(roots: Roots, zone: str) -> float:
    return int((roots.sys / "class/powercap" / zone / "energy_uj").read_text()) / 1e6


def test_the_parts_of_a_server_add_up_to_what_it_draws() -> None:
    running = site()
    advance(running, 60)
    assert sum(parts_w(true_feed(SPEC.plant, running.state)).values()) == pytest.approx(
        running.state.electric_w, rel=1e-12
    )
    assert sum(running.fed.energy_j.values()) == pytest.approx(running.state.electric_j, rel=1e-9)


def test_a_mean_between_two_looks_gives_the_energy_back() -> None:
    feed = true_feed(SPEC.plant, site().state)
    first = grown(Fed(), feed, dt_s=2.0)
    second = grown(first, feed, dt_s=3.0)
    assert means_w(first, second) == pytest.approx(parts_w(feed))
    assert means_w(second, second) == {}


async def test_counters_follow_the_plant_within_their_own_errors(tmp_path: Path) -> None:
    running = site()
    async with machine(running, tmp_path) as (one, roots):
        advance(running, 30)
        await one.follow()
        true_j = running.fed.energy_j
        for index in range(2):
            told_j = energy_j(roots, f"intel-rapl:{index}")
            assert told_j == pytest.approx(true_j[f"cpu{index}"], rel=0.016)
            assert told_j != pytest.approx(true_j[f"cpu{index}"], rel=1e-6)
        memory_j = 2 * energy_j(roots, "intel-rapl:0:1")
        assert memory_j == pytest.approx(true_j["memory"], rel=0.016)


async def test_a_machine_that_is_served_again_was_rebooted(tmp_path: Path) -> None:
    running, boots = site(), []
    for _ in range(2):
        async with machine(running, tmp_path) as (_, roots):
            boots.append((roots.proc / "sys/kernel/random/boot_id").read_text())
            assert energy_j(roots, "intel-rapl:0") == 0.0
        advance(running, 1)
    assert boots[0] != boots[1]


async def test_a_fault_of_the_machine_lasts_until_it_is_cleared(tmp_path: Path) -> None:
    running = site()
    async with machine(running, tmp_path) as (one, roots):
        running.inject("machine_masked", length_s=1e9)
        await one.follow()
        zone = roots.sys / "class/powercap/intel-rapl:0/energy_uj"
        assert not zone.exists()
        running.clear("machine_masked")
        await one.follow()
        assert zone.exists()


async def test_a_reset_begins_the_counters_anew_once(tmp_path: Path) -> None:
    running = site()
    async with machine(running, tmp_path) as (one, roots):
        advance(running, 10)
        await one.follow()
        running.inject("machine_reset", length_s=0.0)
        await one.follow()
        assert energy_j(roots, "intel-rapl:0") == 0.0
        advance(running, 10)
        await one.follow()
        assert energy_j(roots, "intel-rapl:0") > 500.0


def test_every_fault_has_one_name() -> None:
    sets = (faults.PLANT, faults.SPEECH, faults.REDFISH, faults.IPMI, faults.MQTT,
            frozenset(faults.PULLED), faults.MACHINE, faults.EVENTS)  # fmt: skip
    assert sum(map(len, sets)) == len(faults.ALL)


def test_a_card_too_small_for_its_share_is_a_mistake(tmp_path: Path) -> None:
    text = (Path(scenario.__file__).parent / "fleets/edge.toml").read_text()
    (tmp_path / "f.toml").write_text(text.replace("gpu_most_w = 400", "gpu_most_w = 250"))
    with pytest.raises(ConfigError, match=r"gpu_most_w 250 is below 360"):
        scenario.parse(tmp_path / "f.toml")
