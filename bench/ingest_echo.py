"""Bare servers for bench/ingest.py: they send back what comes, and that is all.

`echo` is grpc.aio as it comes, on the loop of asyncio: it answers each message with its own bytes.
`tuned` is the same on the aggregator's loop, with its settings of gRPC, and its answers are as
short as an Ack: what is above it is the aggregator's own work, and nothing that gRPC spares.
"""

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio

from heatpool_aggregator.rpc.server import OPTIONS
from heatpool_aggregator.rpc.wakeups import EventLoop

ACK_BYTES = 64  # of one spool: its boot id, two numbers, our time


async def _echo(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for data in requests:
        yield data


async def _acked(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for data in requests:
        yield data[:ACK_BYTES]


async def serve(ready: Path, *, is_tuned: bool) -> None:
    """Sends back what comes, until it is killed."""
    options = OPTIONS if is_tuned else (("grpc.so_reuseport", 0),)
    server = grpc.aio.server(options=options)
    handler: Any = grpc.stream_stream_rpc_method_handler(_acked if is_tuned else _echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Stream": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)
    told = json.dumps({"grpc": f"127.0.0.1:{port}"})
    await asyncio.to_thread(ready.write_text, told)
    await server.wait_for_termination()


def start() -> None:
    """The program, as the bench starts it: which server, where to write the address."""
    name, ready = sys.argv[1:]
    is_tuned = name == "tuned"
    with asyncio.Runner(loop_factory=EventLoop if is_tuned else None) as runner:
        runner.run(serve(Path(ready), is_tuned=is_tuned))
