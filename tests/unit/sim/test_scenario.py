"""Fleet files: what is read, and that every mistake is named."""

from pathlib import Path

import pytest

from heatpool.errors import ConfigError
from heatpool_sim import scenario
from heatpool_sim.plant.control import Mode

SOURCE = """
name = "t"
seed = 1
[[virtual_source]]
id = "gh"
kind = "greenhouse"
hot_c = 45
cold_c = 35
price_eur_mwh = "30"
"""
SITE = """
[[site]]
id = "a"
virtual_source = "gh"
it_w = 20000
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_demo_fleet_is_twelve_sites_in_three_virtual_sources() -> None:
    fleet = scenario.load("demo")
    kinds = [source.kind for source in fleet.virtual_sources]
    assert kinds == ["greenhouse", "swimming_pool", "district_loop"]
    assert [site.site_id for site in fleet.sites] == [f"s{n:02d}" for n in range(1, 13)]
    assert [site.mode for site in fleet.sites] == [Mode.LOCAL] + [Mode.NETWORK] * 11


def test_every_demo_site_is_drawn_off_its_nameplate() -> None:
    captures = {site.plant.server.capture_frac for site in scenario.load("demo").sites}
    assert len(captures) == 12


def test_one_demo_meter_is_close_to_its_roll_over() -> None:
    left_wh = min(10**8 - site.register_wh for site in scenario.load("demo").sites)
    assert left_wh < 1000


def test_the_seed_draws_the_same_site_again(tmp_path: Path) -> None:
    path = written(tmp_path, SOURCE + SITE)
    assert scenario.load(path).sites == scenario.load(path).sites


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        (SOURCE + SITE.replace('"gh"', '"pond"'), ["'pond' is not in this file"]),
        (SOURCE + SITE + SITE, ["site: 'a' is there twice"]),
        (SOURCE.replace("cold_c = 35", "cold_c = 44") + SITE, ["less than 4 K apart"]),
        (
            SOURCE + SITE + '[[fault]]\nid = "gremlin"\nsite = "b"\nat_s = 1\n',
            ["'gremlin' is unknown", "site 'b' is not in this file"],
        ),
        (
            SOURCE + SITE + '[[fault]]\nid = "offline"\nsite = "a"\nat_s = 1\n',
            ["length_s is missing"],
        ),
        (
            SOURCE.replace('kind = "greenhouse"', 'kind = "igloo"')
            + SITE.replace("it_w = 20000", 'it_w = "lots"\ncooler = 1'),
            ["virtual_source[0].kind", "site[0].it_w", "site[0].cooler: is unknown"],
        ),
        (
            SOURCE + SITE + 'load = { kind = "trace", file = "no.csv", time = "t", watts = "w" }',
            ["load.file 'no.csv'"],
        ),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, text: str, mistakes: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        scenario.load(written(tmp_path, text))
    found = "\n".join(caught.value.mistakes)
    assert [mistake for mistake in mistakes if mistake not in found] == []


def test_a_recorded_trace_drives_a_site(tmp_path: Path) -> None:
    (tmp_path / "rack.csv").write_text("t,w\n0,1000\n60,3000\n120,2000\n", encoding="utf-8")
    line = 'load = { kind = "trace", file = "rack.csv", time = "t", watts = "w", scale = 2.0 }\n'
    site = scenario.load(written(tmp_path, SOURCE + SITE + line)).sites[0]
    assert site.plant.load.it_w(61 * 10**9) == 6000.0


def test_an_unknown_fleet_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="demo"):
        scenario.load("atlantis")


def test_a_folder_here_hides_no_fleet_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(scenario.load("demo").sites) == 12
