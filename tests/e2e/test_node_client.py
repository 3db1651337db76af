"""Somebody who has only the .proto files: another language, another maker's gRPC."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import Program, aggregator_toml, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PLACE = Path(__file__).resolve().parent.parent / "node"
PROTOS = PLACE.parent.parent / "protos"


@pytest.fixture
def client() -> list[str]:
    """The client's command, or a skip that says what it wants."""
    node = shutil.which("node")
    if node is None or not (PLACE / "node_modules").is_dir():
        pytest.skip("the client is not installed: `make node-client`")
    return [node, str(PLACE / "client.mjs")]


def ran(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


async def test_a_client_in_another_language_sends_heat_and_reads_the_source(
    tmp_path: Path, client: list[str]
) -> None:
    grpc = f"127.0.0.1:{free_port()}"
    settings = aggregator_toml(tmp_path, ["n1"], web=f"127.0.0.1:{free_port()}", grpc=grpc)
    settings = settings.replace("message_period_s = 1", "message_period_s = 60")
    aggregator = Program("heatpool_aggregator", tmp_path, settings, "aggregator")
    try:
        await aggregator.start()
        asked = ["--address", grpc, "--site", "n1", "--source", "district-loop"]
        told = await asyncio.to_thread(ran, [*client, *asked, "--protos", str(PROTOS)])
        assert told.returncode == 0, told.stderr + aggregator.log_tail()
        found: dict[str, Any] = json.loads(told.stdout)
    finally:
        await aggregator.stop()
    assert found["durable"] == {"telemetry": 1, "billing": 1}
    heat = found["source"]["heat"]
    # The last of the six rows, as it was sent.
    assert heat["heat_rate_w"] == pytest.approx(12_050)
    assert heat["hot_c"] == pytest.approx(57.25)
    assert heat["cold_c"] == pytest.approx(47.25)
    assert heat["quality_class"] == "QUALITY_CLASS_B"
    assert found["source"]["members_count"] == 1
