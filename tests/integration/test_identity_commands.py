"""The commands on identity as real processes, beside a running service and without one."""

import asyncio
import contextlib
import io
import json
import os
import re
import sqlite3
import ssl
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import aiohttp
import pytest
from cryptography import x509
from https_bench import csr

from heatpool_aggregator.__main__ import main
from heatpool_aggregator.identity.certificates import ca_hash, hosts_of, named


class Ended(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")


def ran(state: Path, *words: str, code: int = 0) -> Ended:
    """A command on this state folder, in this process, which ends with this exit code."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["heatpool-aggregator", *words, "--dir", str(state)]),
        mock.patch.dict(os.environ, {"HOME": str(state.parent)}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert (ended.value.code or 0) == code, err.getvalue()
    return Ended(out.getvalue(), err.getvalue())


def process(state: Path, *words: str) -> Any:
    """What a command says as JSON, as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "heatpool_aggregator", *words, "--dir", str(state), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        env={"PATH": "/usr/bin:/bin", "HOME": str(state.parent)},
    )
    return json.loads(done.stdout)


def said(state: Path, *words: str) -> Any:
    """What a command says as JSON."""
    return json.loads(ran(state, *words, "--json").stdout)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A state folder after `init`, and what it said."""
    state = tmp_path_factory.mktemp("aggregator") / "state"
    return state, said(state, "init", "--host", "agg.example", "--host", "192.0.2.7")


def test_init_makes_a_ca_a_server_and_an_admin_that_belong_together(
    made: tuple[Path, Any],
) -> None:
    state, told = made
    folder = state / "identity"
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    server = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    admin = x509.load_pem_x509_certificates((folder / "admin.pem").read_bytes())
    assert told["ca_hash"] == ca_hash(ca)
    server.verify_directly_issued_by(ca)
    admin[0].verify_directly_issued_by(ca)
    assert admin[1] == ca and b"PRIVATE KEY" in (folder / "admin.pem").read_bytes()
    assert hosts_of(server)[:2] == ["agg.example", "localhost"]
    assert set(hosts_of(server)) == {"agg.example", "192.0.2.7", "localhost", "127.0.0.1", "::1"}
    assert named((folder / "admin.pem").read_bytes()).uri == "spiffe://heatpool/person/admin"
    assert mode(folder) == 0o700
    for name in ("ca.key", "server.key", "admin.pem"):
        assert mode(folder / name) == 0o600, name
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["ca.key", "ca.pem", "server.key", "server.pem", "admin.pem"]
    )


def test_a_second_init_leaves_all_as_it_is_unless_forced(made: tuple[Path, Any]) -> None:
    state, _ = made
    before = (state / "identity" / "ca.key").read_bytes()
    refused = ran(state, "init", code=2)
    assert "--force" in refused.stderr and str(state / "identity") in refused.stderr
    assert (state / "identity" / "ca.key").read_bytes() == before
    other = state.parent / "forced"
    first = said(other, "init")
    second = said(other, "init", "--force")
    assert first["ca_hash"] != second["ca_hash"]
    assert (Path(second["replaced"]) / "ca.key").is_file()


def test_a_host_that_no_certificate_can_carry_stops_init_before_it_begins(
    tmp_path: Path,
) -> None:
    refused = ran(tmp_path / "s", "init", "--host", "https://agg.example:8080", code=1)
    assert "agg.example" in refused.stderr and not (tmp_path / "s").exists()


def test_a_site_is_sent_to_an_address_that_it_can_reach(tmp_path: Path) -> None:
    said(tmp_path / "s", "init", "--host", "192.0.2.7")
    for site_id, words in (("e1", "--site-id e1"), ("e-*", "")):
        new = said(tmp_path / "s", "token", "new", "--site-id", site_id)
        assert "join https://192.0.2.7:8080 " in new["join"]
        assert new["join"].rpartition(" --ca-hash ")[2].partition(" ")[2] == words


@pytest.mark.parametrize(
    "words",
    [
        ("site", "list"),
        ("site", "revoke", "e1", "--reason", "r"),
        ("token", "list"),
        ("user", "list"),
        ("audit",),
        ("site", "add", "e1"),
    ],
)
def test_a_slip_in_the_folder_s_name_begins_no_other_aggregator(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    refused = ran(tmp_path / "slip", *words, code=1)
    assert "no aggregator keeps its state here" in refused.stderr
    assert not (tmp_path / "slip").exists()


def test_a_token_is_shown_once_and_kept_nowhere(made: tuple[Path, Any]) -> None:
    state, told = made
    new = said(state, "token", "new", "--site-id", "e7", "--owner", "north", "--expires", "2h")
    secret = new["token"].partition(".")[2]
    assert TOKEN.fullmatch(new["token"]) and new["ca_hash"] == told["ca_hash"]
    assert new["join"] == (
        f"heatpool-agent join https://agg.example:8080 --token {new['token']} "
        f"--ca-hash {told['ca_hash']} --site-id e7"
    )
    (listed,) = [row for row in said(state, "token", "list") if row["token_id"] == new["token_id"]]
    assert (listed["site_id"], listed["owner"], listed["state"]) == ("e7", "north", "open")
    revoked = ran(state, "token", "revoke", new["token_id"], "--reason", "typed wrong")
    assert "is revoked" in revoked.stdout
    everything = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert secret.encode() not in everything
    audit = said(state, "audit", "--limit", "2")
    assert [row["action"] for row in audit] == ["token.revoke", "token.new"]
    assert audit[0]["reason"] == "typed wrong" and secret not in json.dumps(audit)


def test_a_person_gets_papers_and_a_token_and_loses_both(made: tuple[Path, Any]) -> None:
    state, _ = made
    file = state.parent / "anna.pem"
    words = ("--role", "operator", "--tenant", "north", "--cert", str(file), "--api-token")
    told = said(state, "user", "add", "anna", *words)
    assert re.fullmatch(r"heatpool-[a-z0-9]{6}-[0-9a-f]{64}", told["api_token"])
    assert mode(file) == 0o600
    assert named(file.read_bytes()).uri == "spiffe://heatpool/person/anna"
    assert told["api_token"].encode() not in (state / "identity.db").read_bytes()
    ran(state, "user", "revoke", "anna", "--reason", "left")
    (row,) = [row for row in said(state, "user", "list") if row["name"] == "person/anna"]
    assert row["state"] == "revoked" and row["api_tokens_count"] == 0


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("token", "new", "--site-id", "../e1"), 2, "'../e1' cannot be a name"),
        (("token", "new", "--site-id", "e1", "--expires", "soon"), 2, "'soon' is no span"),
        (("token", "revoke", "nobody"), 1, "token list"),
        (("site", "revoke", "e9", "--reason", "x"), 1, "site 'e9' is not enrolled"),
        (("site", "approve", "e9"), 1, "nobody waits"),
        (("user", "add", "olaf", "--role", "site_owner"), 2, "--tenant"),
        (("user", "add", "olaf", "--role", "god"), 2, "operator"),
        (("user", "revoke", "nobody", "--reason", "x"), 1, "user list"),
        (("certificate", "deny", "xyz", "--reason", "x"), 2, "hexadecimal"),
    ],
)
def test_a_mistake_is_told_with_its_value_and_what_mends_it(
    made: tuple[Path, Any], words: tuple[str, ...], code: int, what: str
) -> None:
    assert what in ran(made[0], *words, code=code).stderr


def test_without_a_ca_a_token_says_what_to_do(tmp_path: Path) -> None:
    refused = ran(tmp_path / "s", "token", "new", "--site-id", "e1", code=1)
    assert "heatpool-aggregator init" in refused.stderr and "--dir" in refused.stderr


def test_a_changed_audit_log_is_found(tmp_path: Path) -> None:
    state = tmp_path / "s"
    ran(state, "init")
    ran(state, "site", "add", "e1")
    assert said(state, "audit", "--verify")["entries_count"] == 2
    with closing(sqlite3.connect(state / "audit.db")) as file, file:
        file.execute("DROP TRIGGER entries_stay")
        file.execute("UPDATE entries SET subject = 'site/e2' WHERE number = 2")
    assert "changed at entry 2" in ran(state, "audit", "--verify", code=1).stderr


async def test_a_site_joins_beside_the_commands_and_is_cut_off(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await asyncio.to_thread(process, state, "init", "--host", "localhost")
    config = tmp_path / "a.toml"
    config.write_text(
        f'[state]\ndir = "{state}"\n[listen]\ngrpc = "127.0.0.1:0"\nhttp = "127.0.0.1:0"\n'
    )
    ready = tmp_path / "ready.json"
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "heatpool_aggregator", "run", "--config", str(config), "--ready-file", str(ready)),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(40):
            while not ready.exists():  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.05)
        await _join_and_revoke(state, json.loads(ready.read_text()))
    finally:
        service.terminate()
        _, log = await service.communicate()
    assert service.returncode == 0
    assert not TOKEN.search(log.decode()), "a token is in the log"


async def _join_and_revoke(state: Path, addresses: dict[str, str]) -> None:
    url = f"https://localhost:{addresses['http'].rpartition(':')[2]}"
    pem = (state / "identity" / "ca.pem").read_text()
    context = ssl.create_default_context(cadata=pem)
    new = await asyncio.to_thread(process, state, "token", "new", "--site-id", "e1", "--approve")
    body = {"token": new["token"], "csr_pem": csr().decode(), "site_id": "e1"}
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        async with session.post("/v1/join", json=body) as response:
            assert response.status == 202
            key = (await response.json())["key_sha256"]
        (waiting,) = await asyncio.to_thread(process, state, "site", "waiting")
        assert waiting["key"] == key
        await asyncio.to_thread(process, state, "site", "approve", "e1", "--key", key[:12])
        async with session.post("/v1/join", json=body) as response:
            assert response.status == 200
            answer = await response.json()
    assert answer["grpc"] == addresses["grpc"]
    serial = named(answer["chain_pem"].encode()).serial
    site = await asyncio.to_thread(process, state, "site", "revoke", "e1", "--reason", "sold")
    assert (site["state"], site["reason"], site["serial"]) == ("revoked", "sold", serial)
