"""Settings that the demo writes: readable by the programs they are for."""

import tomllib
from pathlib import Path

from heatpool_agent import config as agent_config
from heatpool_aggregator import config as aggregator_config
from heatpool_sim import scenario
from heatpool_sim.demo import settings

FLEET = scenario.load("demo")
DEVICES = settings.Devices(cdu_url="tcp://127.0.0.1:1502", meter_url="tcp://127.0.0.1:1503")


def aggregator_settings(tmp_path: Path) -> aggregator_config.Config:
    path = tmp_path / "aggregator.toml"
    text = settings.aggregator(
        FLEET.sites, FLEET.virtual_sources, ports={"http": 1, "grpc": 2}, state_dir=tmp_path
    )
    path.write_text(text, encoding="utf-8")
    return aggregator_config.load(path, {})


def test_the_aggregator_reads_its_settings(tmp_path: Path) -> None:
    config = aggregator_settings(tmp_path)
    assert [len(source.member) for source in config.virtual_source] == [4, 4, 5]
    assert config.virtual_source[-1].member[-1].site_id == settings.MACHINE
    assert (config.settlement.period_s, config.settlement.grace_s) == (10, 6)
    assert [wish.site_id for wish in config.setpoint] == ["s01"]


def test_the_agent_reads_the_settings_of_every_site(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    text = settings.simulated_site(FLEET.sites[0], DEVICES, grpc_port=8443, state_dir=tmp_path)
    path.write_text(text, encoding="utf-8")
    config = agent_config.load(path, {})
    assert config.site.id == "s01"
    assert [block["id"] for block in config.sensor] == ["cdu", "meter"]
    assert config.actuator[0]["armed"] is True


def test_only_the_steered_site_may_be_written_to(tmp_path: Path) -> None:
    texts = [
        settings.simulated_site(site, DEVICES, grpc_port=8443, state_dir=tmp_path)
        for site in FLEET.sites
    ]
    assert ["[[actuator]]" in text for text in texts] == [True] + [False] * 11


def test_this_machine_names_no_sensor(tmp_path: Path) -> None:
    tree = tomllib.loads(settings.machine(grpc_port=8443, state_dir=tmp_path))
    assert tree["site"]["id"] == settings.MACHINE
    assert "sensor" not in tree


def test_a_document_reads_back_as_its_tree() -> None:
    tree = {
        "name": 'a "b" \\ c',
        "on": True,
        "table": {"x": 1.5, "list": [1, 2], "nested": {"y": "z"}},
        "row": [{"id": "a", "member": [{"site_id": "s"}]}, {"id": "b"}],
    }
    assert tomllib.loads(settings.document(tree)) == tree
