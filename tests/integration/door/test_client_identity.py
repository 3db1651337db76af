"""The operator's command over TLS, as its own process: it gets in, or says why in one line."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from integration.door import pki

CLIENT = (sys.executable, "-W", "error", "-m", "heatpool_aggregator.client")
HOUR = timedelta(hours=1)


async def heatpool(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *CLIENT,
        *arguments,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(40):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def file_of(rig: Any, who: pki.Identity, ca_pem: bytes | None = None) -> str:
    path: Path = rig.folder / "who.pem"
    path.write_bytes(who.key + who.chain + (ca_pem or rig.ca.pem))
    return str(path)


@pytest.mark.parametrize("scheme", ["", "https://"])
async def test_an_identity_opens_the_door(rig: Any, scheme: str) -> None:
    identity = file_of(rig, rig.caller("person/ada"))
    address = f"{scheme}{rig.address}"
    rc, out, err = await heatpool("sources", "--address", address, "--identity", identity)
    assert (rc, "both" in out, err) == (0, True, "")
    rc, out, err = await heatpool("--identity", identity, "--address", address, "sources")
    assert (rc, "both" in out, err) == (0, True, "")
    rc, out, _ = await heatpool("sources", HEATPOOL_ADDRESS=address, HEATPOOL_IDENTITY=identity)
    assert (rc, "both" in out) == (0, True)


async def test_what_is_said_behind_the_command_counts_more(rig: Any) -> None:
    identity = file_of(rig, rig.caller("person/ada"))
    before = ("--address", "127.0.0.1:1", "--identity", identity)
    rc, out, err = await heatpool(*before, "sources", "--address", rig.address)
    assert (rc, "both" in out, err) == (0, True, "")
    rc, out, err = await heatpool(*before, "sources", HEATPOOL_ADDRESS=rig.address)
    assert (rc, "127.0.0.1:1" in err) == (69, True)


@pytest.mark.parametrize(
    ("make", "ca", "told"),
    [
        (lambda rig: rig.caller("person/ada", lives=(-2 * HOUR, -HOUR)), None, "expired at 20"),
        (lambda rig: pki.Ca().caller("spiffe://heatpool/person/ada"), None, "of another CA"),
        (lambda rig: rig.caller("person/ada"), pki.Ca("x"), "is not of the CA in"),
        (lambda rig: rig.caller("person/nobody"), None, "revoked: person/nobody"),
        (lambda rig: rig.caller("site/e1"), None, "that takes the role admin or operator or "),
    ],
    ids=["expired", "foreign", "foreign server", "unknown", "role"],
)
async def test_who_does_not_get_in_reads_why_in_one_line(
    rig: Any, make: Any, ca: pki.Ca | None, told: str
) -> None:
    identity = file_of(rig, make(rig), ca.pem if ca else None)
    rc, out, err = await heatpool("sites", "--address", rig.address, "--identity", identity)
    assert (rc, out, err.count("\n"), told in err) == (1, "", 1, True), err


async def test_a_server_of_another_name_is_told_from_one_of_another_ca(rig: Any) -> None:
    pki.write(rig.folder, rig.ca, rig.ca.server("elsewhere.example"))
    identity = file_of(rig, rig.caller("person/ada"))
    rc, _, err = await heatpool("sites", "--address", rig.address, "--identity", identity)
    assert (rc, "certificate is for other names" in err) == (1, True), err


async def test_without_an_identity_the_door_says_what_it_wants(rig: Any) -> None:
    rc, _, err = await heatpool("sites", "--address", rig.address)
    assert (rc, err.count("\n"), "--identity" in err) == (1, 1, True), err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--address", "10.1.2.3:8443"), "wants a certificate"),
        (("--address", "https://127.0.0.1:8443"), "wants a certificate"),
        (("--address", "heat.example:8443"), "wants a certificate"),
        (("--address", "ftp://heat.example:8443"), "is no HOST:PORT"),
        (("--identity", "no-such-file.pem"), "cannot be read"),
        (("--identity", "pki.py"), "holds 0 keys and 0 certificates"),
    ],
)
async def test_wrong_usage_is_status_2(arguments: tuple[str, ...], told: str) -> None:
    here = Path(__file__).parent
    found = [str(here / "pki.py") if one == "pki.py" else one for one in arguments]
    rc, _, err = await heatpool("sites", *found)
    assert (rc, told in err) == (2, True), err
