"""Any directory of caught Redfish pages is served: tree form, flat form, broken files."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from integration.redfish_bmc import ROOT, Client, bmc

from heatpool.errors import ConfigError
from heatpool_sim.devices import redfish_folder
from heatpool_sim.devices.redfish_tree import links, normal

BROKEN = b'{"@odata.id": "/redfish/v1/Chassis/1", "Power": '
DEEP = b'{"Members": ' + b"[" * 400 + b"]" * 400 + b"}"
CAPTURES = (
    "dmtf",
    "dmtf/public-rackmount1",
    "dmtf_publications",
    "dmtf_publications/DSP2046-examples",
    "dmtf_publications/public-cooling-unit",
    "hpe_cray_ex235a_liquidcooled",
    "hpe_cray_ex235a_liquidcooled/Chassis",
    "lambda_gb300",
    "lambda_gb300/gb300_happypath",
    "lambda_gb300/powershelf_delta",
    "ocp_cdu_examples",
    "ocp_cdu_examples/redfish",
    "ocp_cdu_profile",
    "telegraf_dell_hp",
    "telegraf_dell_hp/dell",
    "telegraf_dell_hp/hp",
    ".",
)


def laid(top: Path, files: Mapping[str, Any]) -> Path:
    """A directory with these files; what is no bytes is written as JSON."""
    for name, content in files.items():
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return top


def root(*names: str) -> dict[str, Any]:
    """A service root that names these."""
    named = {name: {"@odata.id": f"{ROOT}/{name}"} for name in names}
    return {"@odata.id": f"{ROOT}/", "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", **named}


@pytest.mark.parametrize("lead", ["", "redfish/v1/", "v1/", "deep/redfish/v1/"])
async def test_the_tree_form_is_served_with_or_without_its_lead(tmp_path: Path, lead: str) -> None:
    laid(
        tmp_path,
        {
            f"{lead}index.json": root("Chassis"),
            f"{lead}Chassis/index.json": {"Members": []},
            f"{lead}$metadata/index.xml": b"<Edmx/>",
            f"{lead}odata/index.json": {"value": []},
            f"{lead}Registries/Base.json": {"Messages": {}},
        },
    )
    async with bmc(redfish_folder.read(tmp_path)) as client:
        assert (await client.get(f"{ROOT}/Chassis")).tree == {"Members": []}
        metadata = await client.get(f"{ROOT}/$metadata")
        assert (await client.get(f"{ROOT}/odata")).tree == {"value": []}
        assert (await client.get(f"{ROOT}/Registries/Base.json")).tree == {"Messages": {}}
    assert (metadata.body, metadata.headers["Content-Type"]) == (b"<Edmx/>", "application/xml")


def test_a_lead_may_stand_above_the_directory(tmp_path: Path) -> None:
    laid(tmp_path, {"redfish/v1/Chassis/1/index.json": {"Name": "x"}})
    tree = redfish_folder.read(tmp_path / "redfish" / "v1" / "Chassis")
    assert tree.get(f"{ROOT}/Chassis/1") == {"Name": "x"}


def test_a_part_of_a_tree_finds_its_place_by_one_page_that_tells_it(tmp_path: Path) -> None:
    files = {"1/index.json": {"@odata.id": f"{ROOT}/Chassis/1"}, "1/Power/index.json": {"Id": "P"}}
    tree = redfish_folder.read(laid(tmp_path, files))
    assert tree.get(f"{ROOT}/Chassis/1/Power") == {"Id": "P"}


@pytest.mark.parametrize(
    ("name", "content", "path"),
    [
        ("any.json", {"@odata.id": f"{ROOT}/Chassis/1/"}, f"{ROOT}/Chassis/1"),
        ("power.json", {"Id": "Power"}, f"{ROOT}/power"),
        ("sub/power.json", {"Id": "Power"}, f"{ROOT}/sub/power"),
        ("redfish_v1_Chassis_1.json", {"Id": "1"}, f"{ROOT}/Chassis/1"),
        ("part.json", {"@odata.id": f"{ROOT}/Chassis/1#/Fans/0"}, f"{ROOT}/part"),
        ("old.json", {"@odata.id": "/rest/v1/Chassis"}, f"{ROOT}/old"),
        ("number.json", {"@odata.id": 3}, f"{ROOT}/number"),
    ],
)
def test_a_flat_file_is_found_by_its_own_word_or_its_name(
    tmp_path: Path, name: str, content: dict[str, Any], path: str
) -> None:
    assert redfish_folder.read(laid(tmp_path, {name: content})).get(path) == content


def test_of_two_files_for_one_path_the_first_wins_with_a_warning(tmp_path: Path) -> None:
    claim = {"@odata.id": f"{ROOT}/Systems"}
    tree = redfish_folder.read(laid(tmp_path, {"b.json": claim, "a.json": {**claim, "Id": "a"}}))
    assert tree.get(f"{ROOT}/Systems") == {**claim, "Id": "a"}
    assert len(tree.oddities) == 1 and "b.json" in tree.oddities[0]


def test_a_folder_wins_over_a_page_that_says_it_is_elsewhere(tmp_path: Path) -> None:
    wrong = {"@odata.id": f"{ROOT}/Systems/B", "Id": "B"}
    files = {"index.json": root("Systems"), "Systems/A/index.json": wrong}
    tree = redfish_folder.read(laid(tmp_path, files))
    assert tree.get(f"{ROOT}/Systems/A") == tree.get(f"{ROOT}/Systems/B") == wrong
    assert any("Systems/B" in oddity for oddity in tree.oddities)


@pytest.mark.parametrize(
    "body", [BROKEN, b"", b"[1]", b"\xff\xfe\x00", b"[" * 100_000, b"null", DEEP]
)
async def test_a_broken_file_is_served_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    files = {"index.json": root("Chassis"), "Chassis/index.json": body}
    tree = redfish_folder.read(laid(tmp_path, files))
    async with bmc(tree) as client:
        answer = await client.get(f"{ROOT}/Chassis", headers={"Accept": "application/json"})
        assert (await client.get(f"{ROOT}/$metadata")).status == 200
    assert (answer.status, answer.body) == (200, body)
    assert any("Chassis/index.json" in oddity for oddity in tree.oddities)


async def test_a_file_keeps_its_bytes(tmp_path: Path) -> None:
    body = b'{"@odata.id":"/redfish/v1/Chassis",   "W": 1.50, "W": 2e0}\n'
    async with bmc(redfish_folder.read(laid(tmp_path, {"a.json": body}))) as client:
        assert (await client.get(f"{ROOT}/Chassis")).body == body


async def test_caught_sessions_stand_beside_the_open_ones(tmp_path: Path) -> None:
    sessions = "SessionService/Sessions"
    caught = [{"@odata.id": f"{ROOT}/{sessions}/1234"}]
    files = {"index.json": root(), f"{sessions}/index.json": {"Members": caught, "Id": "caught"}}
    async with bmc(redfish_folder.read(laid(tmp_path, files))) as client:
        await client.log_in()
        answer = await client.get(f"{ROOT}/{sessions}")
    assert answer.members == [f"{ROOT}/{sessions}/1234", f"{ROOT}/{sessions}/1"]
    assert (answer.tree["Id"], answer.tree["Members@odata.count"]) == ("caught", 2)


async def test_a_capture_without_a_root_gets_one_that_leads_to_it(tmp_path: Path) -> None:
    path = f"{ROOT}/ThermalEquipment/CDUs/7/Pumps/1"
    async with bmc(
        redfish_folder.read(laid(tmp_path, {"pump.json": {"@odata.id": path}}))
    ) as bench:
        cdus = await bench.get(f"{ROOT}/ThermalEquipment/CDUs")
        found = await crawled(bench)
    assert cdus.tree["@odata.type"] == "#CoolingUnitCollection.CoolingUnitCollection"
    assert cdus.members == [f"{ROOT}/ThermalEquipment/CDUs/7"]
    assert path in found


async def test_what_lies_beside_the_pages_is_not_served(tmp_path: Path) -> None:
    files = {"a.json": {}, "headers.json": {}, "explorer_config.json": {}, "README.md": b"x"}
    tree = redfish_folder.read(laid(tmp_path, files))
    assert tree.pages.keys() == {f"{ROOT}/a"}


def test_a_capture_does_not_change(tmp_path: Path) -> None:
    assert redfish_folder.read(laid(tmp_path, {"a.json": {}})).patch(f"{ROOT}/a", {"x": 1}) is None


@pytest.mark.parametrize("name", ["empty", "absent", "file"])
def test_a_place_without_pages_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=name):
        redfish_folder.read(tmp_path / name)


async def crawled(client: Client) -> dict[str, bytes]:
    """Every page that links lead to from the root, by path; each must answer or be absent."""
    found: dict[str, bytes] = {}
    ahead, seen = [ROOT], {ROOT}
    while ahead:
        path = ahead.pop()
        answer = await client.get(path)
        assert answer.status in (200, 404), path
        if answer.status == 200:
            found[path] = answer.body
            named = {link.split("#")[0] for link in links(answer.tree)}
            new = {normal(path) for path in named if path.startswith("/redfish")} - seen
            seen |= new
            ahead += sorted(new)
    return found


@pytest.mark.realdata
@pytest.mark.parametrize("name", CAPTURES)
async def test_every_page_of_a_real_capture_comes_with_its_bytes(realdata: Path, name: str) -> None:
    top = realdata / "02_redfish" / name
    tree = redfish_folder.read(top)
    files = {held.read_bytes() for held in top.rglob("*") if held.is_file()}
    async with bmc(tree) as client:
        for path, page in tree.pages.items():
            answer = await client.get(path)
            assert answer.status == 200, path
            assert answer.body == page.body or path.endswith("/Sessions"), path
    assert {page.body for page in tree.pages.values()} <= files


@pytest.mark.realdata
@pytest.mark.parametrize("name", CAPTURES)
async def test_links_from_the_root_lead_to_all_that_is_named(realdata: Path, name: str) -> None:
    tree = redfish_folder.read(realdata / "02_redfish" / name)
    async with bmc(tree) as client:
        found = await crawled(client)
    left = tree.pages.keys() - found.keys()
    named = {
        normal(match.decode())
        for path in found
        for match in re.findall(rb'"@odata.id"\s*:\s*"([^"#]+)"', found[path])
    }
    # What is left over, no page that was reached speaks of: the capture itself has orphans.
    assert left & named == set()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "orphans"),
    [
        ("dmtf/public-rackmount1", 4),
        ("dmtf_publications/public-cooling-unit", 7),
        ("hpe_cray_ex235a_liquidcooled", 0),
        ("lambda_gb300/powershelf_delta", 0),
        ("ocp_cdu_examples", 0),
        ("telegraf_dell_hp/dell", 0),
        ("telegraf_dell_hp/hp", 0),
    ],
)
async def test_nearly_all_of_a_real_capture_is_reached(
    realdata: Path, name: str, orphans: int
) -> None:
    tree = redfish_folder.read(realdata / "02_redfish" / name)
    async with bmc(tree) as client:
        found = await crawled(client)
    read_otherwise = {f"{ROOT}/odata", f"{ROOT}/$metadata"}
    assert len(tree.resources.keys() - found.keys() - read_otherwise) == orphans


@contextmanager
def program(*words: str) -> Iterator[subprocess.Popen[str]]:
    """`heatpool-sim redfish` with these words, ended by TERM."""
    with subprocess.Popen(
        [sys.executable, "-m", "heatpool_sim", "redfish", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=90)


def test_the_command_serves_and_says_where(tmp_path: Path) -> None:
    laid(tmp_path, {"index.json": root("Chassis"), "Chassis/index.json": BROKEN})
    with program(str(tmp_path), "--json") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        with urlopen(f"{told['url']}Chassis", timeout=60) as answer:
            assert answer.read() == BROKEN
    assert process.returncode == 0
    assert {name: told[name] for name in ("resources", "made_up", "oddities")} == {
        "resources": 2,
        "made_up": 0,
        "oddities": 1,
    }


def ended(*words: str) -> tuple[int, list[str]]:
    """Exit code and last words of a command that does not start to serve."""
    done = subprocess.run(
        [sys.executable, "-m", "heatpool_sim", "redfish", *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


def test_the_command_refuses_a_directory_without_pages(tmp_path: Path) -> None:
    code, lines = ended(str(tmp_path))
    assert code == 2
    assert "holds no JSON file" in lines[-1]


def test_the_command_tells_a_taken_port_in_one_line(tmp_path: Path) -> None:
    laid(tmp_path, {"index.json": root()})
    with program(str(tmp_path), "--json") as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["url"].split(":")[2].split("/")[0]
        code, lines = ended(str(tmp_path), "--port", port)
    assert code == 1
    assert lines[-1] == (
        f"heatpool-sim: port {port} on 127.0.0.1: Address already in use; free it or give 0"
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--user", "x"), "--password-file go together"),
        (("--user", "x", "--password-file", "absent"), "cannot be read"),
        (("--tls", "absent", "absent"), "does not serve as a certificate"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(
    tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    laid(tmp_path, {"index.json": root()})
    code, lines = ended(str(tmp_path), *words)
    assert code == 2
    assert reason in lines[-1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("odd", ["pipe", "device", "link"])
def test_nothing_but_files_of_the_directory_is_served(tmp_path: Path, odd: str) -> None:
    top = laid(tmp_path / "capture", {"index.json": root("Chassis")})
    laid(tmp_path, {"secret.json": {"@odata.id": f"{ROOT}/secret"}})
    if odd == "pipe":
        os.mkfifo(top / "odd.json")
    else:
        target = "/dev/null" if odd == "device" else "../secret.json"
        (top / "odd.json").symlink_to(target)
    folder = redfish_folder.read(top)
    assert list(folder.pages) == [ROOT]
    assert [line for line in folder.oddities if "odd.json: no file of this directory" in line]
