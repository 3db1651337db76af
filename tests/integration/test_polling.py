"""How gRPC is told to wait for its streams."""

import os
import subprocess
import sys

from heatpool_aggregator.rpc import GRPC_POLLING

SERVES = """
import asyncio
import grpc.aio

async def main():
    server = grpc.aio.server()
    assert server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(0)

asyncio.run(main())
"""


def said(polling: str) -> str:
    environ = os.environ | {"GRPC_EXPERIMENTS": polling, "GRPC_VERBOSITY": "ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", SERVES],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


def test_this_grpc_knows_how_it_is_told_to_wait() -> None:
    assert said(GRPC_POLLING) == ""
    assert "Unknown" in said("-waiting_as_nobody_ever_did")
