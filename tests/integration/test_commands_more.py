"""Sources, init and config as a technician meets them."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import free_port
from integration import bench_site
from integration.bench_site import Site, ran

from heatpool_agent import sensors
from heatpool_agent.commands.sources import NEEDS
from heatpool_agent.config import load
from heatpool_agent.origins import origins

FILE = """
[sampling]
period_s = 2
[[loop]]
id = "rack"
[[sensor]]
id = "cdu"
kind = "modbus"
url = "tcp://127.0.0.1:1502"
map = "generic-cdu"
loop = "rack"
"""


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_sources_in_use_tell_age_class_and_cost(tmp_path: Path) -> None:
    async with bench_site.opened(tmp_path, "rapl", "modbus", "mbus") as site:
        path = await asyncio.to_thread(site.write)
        done = await ran("sources", "--json", "--config", path, folder=tmp_path)
    assert done.document["schema"] == "heatpool.sources/1"
    by_id = {sensor["id"]: sensor for sensor in done.document["sensors"]}
    assert {name: one["quality_class"] for name, one in by_id.items()} == {
        "rapl": "D",
        "modbus": "B",
        "mbus": "B",
    }
    for one in by_id.values():
        assert one["state"] == "up"
        assert 0 <= one["age_s"] < 5
        assert 0 < one["read_s"] < 1
        assert one["readings_count"] > 0


async def test_a_source_that_is_gone_says_what_mends_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    url = f"tcp://127.0.0.1:{free_port()}"
    site.blocks = [{"id": "cdu", "kind": "modbus", "url": url, "map": "generic-cdu"}]
    path = await asyncio.to_thread(site.write)
    done = await ran("sources", "--config", path, folder=tmp_path)
    assert done.code == 0
    assert "cdu     modbus  gone" in done.out
    assert "    fix: check power" in done.out
    # A plain table: the widest line is a kind with what it needs.
    assert max(map(len, done.out.splitlines())) <= 110


async def test_every_kind_is_listed_with_what_it_needs(tmp_path: Path) -> None:
    done = await ran("sources", "--json", folder=tmp_path)
    kinds = {one["kind"]: one for one in done.document["kinds"]}
    assert set(kinds) == {*sensors.OWN, sensors.PLAYED} == set(NEEDS)
    assert kinds["modbus"]["state"] == "not used"
    assert kinds["host"]["state"] == "up"
    assert all(one["needs"] and one["measures"] for one in kinds.values())


async def test_init_writes_settings_that_change_nothing(tmp_path: Path) -> None:
    done = await ran("init", folder=tmp_path)
    path = tmp_path / "agent.toml"
    assert (done.code, done.err) == (0, "")
    assert load(path, {}) == load(None, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["agent.toml"]
    assert path.read_text().count("#") > 30


async def test_init_replaces_a_file_only_if_told_to(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[site]\nid = "mine"\n')
    refused = await ran("init", str(path), folder=tmp_path)
    assert (refused.code, path.read_text()) == (2, '[site]\nid = "mine"\n')
    assert "--force" in refused.err
    assert names(tmp_path) == ["mine.toml"]
    assert (await ran("init", "--force", str(path), folder=tmp_path)).code == 0
    assert load(path, {}) == load(None, {})


async def test_init_into_no_folder_is_a_plain_refusal(tmp_path: Path) -> None:
    done = await ran("init", str(tmp_path / "none" / "a.toml"), folder=tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Settings in two files."""
    file = tmp_path / "agent.toml"
    file.write_text(FILE)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/10-site.toml").write_text('[site]\nid = "s1"\n')
    return file


def test_each_value_names_its_origin(path: Path) -> None:
    environ = {
        "HEATPOOL__SENSOR__CDU__PERIOD_S": "3",
        "HEATPOOL__HTTP__ANNOUNCE": "false",
        "OTHER": "x",
    }
    found = origins(load(path, environ), path, environ)
    assert found["sampling.period_s"] == str(path)
    assert found["site.id"] == str(path.parent / "conf.d/10-site.toml")
    assert found["sensor[0].period_s"] == "HEATPOOL__SENSOR__CDU__PERIOD_S"
    assert found["sensor[0].map"] == str(path)
    assert found["http.announce"] == "HEATPOOL__HTTP__ANNOUNCE"
    assert found["loop[0].id"] == str(path)
    assert {found["loop[0].fluid"], found["spool.max_bytes"], found["actuator"]} == {"default"}


def test_a_later_file_replaces_a_list_with_its_origins(path: Path) -> None:
    later = path.parent / "conf.d/20-loop.toml"
    later.write_text('[[loop]]\nid = "rack"\ncooling = "air"\n')
    path.write_text(FILE.replace('id = "rack"\n', 'id = "rack"\nfluid = "pg25_vol"\n', 1))
    found = origins(load(path, {}), path, {})
    assert found["loop[0].id"] == found["loop[0].cooling"] == str(later)
    assert found["loop[0].fluid"] == "default"


async def test_config_show_prints_values_with_their_origins(path: Path) -> None:
    folder = path.parent
    show = ("config", "show", "--config", str(path))
    done = await ran(*show, folder=folder, HEATPOOL__SITE__ID="s9")
    lines = {line.split(" = ")[0]: line for line in done.out.splitlines()}
    assert lines["site.id"].split() == ["site.id", "=", '"s9"', "#", "HEATPOOL__SITE__ID"]
    assert lines["sampling.period_s"].endswith(f"# {path}")
    assert lines["roots.sys"].endswith("# default")
    told = await ran(*show, "--json", folder=folder)
    assert told.document["schema"] == "heatpool.config/1"
    assert told.document["settings"]["site"]["id"] == "s1"


async def test_config_show_hides_what_should_not_be_there(path: Path) -> None:
    secret = 'password = "wort"\npassword_file = "/etc/x"\nurl = "https://agent:wort@192.0.2.1"\n'
    text = f'[[sensor]]\nid = "bmc"\nkind = "redfish"\n{secret}'
    await asyncio.to_thread(path.write_text, text)
    folder = path.parent
    plain = await ran("config", "show", "--config", str(path), folder=folder)
    as_json = await ran("config", "show", "--json", "--config", str(path), folder=folder)
    assert "wort" not in plain.out + as_json.out
    assert "/etc/x" in plain.out


def _block(schema: dict[str, Any], place: str, kind: str) -> dict[str, Any]:
    choices = schema["properties"][place]["items"]["oneOf"]
    (found,) = [one for one in choices if one["properties"]["kind"] == {"const": kind}]
    return dict(found)


async def test_the_schema_holds_every_drivers_block(tmp_path: Path) -> None:
    schema = (await ran("config", "schema", folder=tmp_path)).document
    for kind in sensors.OWN:
        block = _block(schema, "sensor", kind)
        assert block["additionalProperties"] is False
        assert {"id", "kind"} <= set(block["required"])
    assert {"url", "map"} <= set(_block(schema, "sensor", "modbus")["required"])
    assert _block(schema, "actuator", "dry_run")
    said = json.dumps(schema)
    assert all(f'"#/$defs/{name}"' in said for name in schema["$defs"])
    named = {part.split('"')[0] for part in said.split("#/$defs/")[1:]}
    assert named <= set(schema["$defs"])
