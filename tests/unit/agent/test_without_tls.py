"""Who may do without OpenSSL, and that it is then really gone and missed by nobody."""

import subprocess
import sys

import pytest

from heatpool_agent.commands.run import is_plain
from heatpool_agent.config import Config

PROGRAM = """
import sys
from heatpool_agent.commands.without_tls import leave_out
leave_out(has_page={page})
{work}
assert not {{"_ssl", "_hashlib"}} & {{name for name, one in sys.modules.items() if one}}
"""
TALK = """
import asyncio
async def talk():
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0)
    reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
asyncio.run(talk())
"""
# Who wants TLS after all hears it at once.
REAL_USE = """
import ssl
try:
    ssl.create_default_context().load_default_certs()
except AttributeError:
    pass
else:
    raise SystemExit(1)
"""


def blocks(*kinds: str) -> tuple[dict[str, str], ...]:
    return tuple({"id": kind, "kind": kind} for kind in kinds)


@pytest.mark.parametrize(
    ("sensors", "actuators"),
    [
        (("rapl", "redfish"), ()),
        (("mqtt",), ()),
        (("replay",), ()),  # it plays a driver of another kind
        (("somebody_elses",), ()),
        (("modbus",), ("somebody_elses",)),
    ],
)
def test_a_device_that_may_speak_tls_keeps_it(
    sensors: tuple[str, ...], actuators: tuple[str, ...]
) -> None:
    assert not is_plain(Config(sensor=blocks(*sensors), actuator=blocks(*actuators)))


@pytest.mark.parametrize(
    ("sensors", "actuators"),
    [
        ((), ()),
        (("rapl", "hwmon", "nvml", "host", "ipmi", "modbus", "mbus"), ("modbus", "dry_run")),
    ],
)
def test_our_own_plain_kinds_do_without_tls(
    sensors: tuple[str, ...], actuators: tuple[str, ...]
) -> None:
    assert is_plain(Config(sensor=blocks(*sensors), actuator=blocks(*actuators)))


@pytest.mark.parametrize(
    ("page", "work"),
    [
        ("True", "import pymodbus.client, heatpool_agent.http, zeroconf.asyncio, grpc.aio"),
        ("False", "import pymodbus.client, serial, grpc.aio, heatpool_agent.app"),
        ("False", "import hashlib; assert hashlib.sha256(b'').hexdigest().startswith('e3b0c442')"),
        ("False", TALK),
        ("False", REAL_USE),
    ],
)
def test_a_process_without_openssl_does_its_work(page: str, work: str) -> None:
    program = PROGRAM.format(page=page, work=work)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_where_openssl_is_loaded_nothing_is_taken_away() -> None:
    program = (
        "import ssl\nfrom heatpool_agent.commands.without_tls import leave_out\n"
        "leave_out(has_page=False)\nimport sys\nassert sys.modules['ssl'] is ssl"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
