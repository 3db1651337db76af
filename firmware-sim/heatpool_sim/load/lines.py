"""Connections to the aggregator: one an agent as in the field, or shared to save memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

import grpc
import grpc.aio

from heatpool.errors import ConfigError
from heatpool_sim.load.asked import Asked
from heatpool_sim.wire.up import METHOD

Call = grpc.aio.StreamStreamCall  # of bytes both ways

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process share a connection
    ("grpc.enable_retries", 0),  # what is lost is ours to see
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 4 << 20),
    # Garbage is larger than what the aggregator takes.
    ("grpc.max_send_message_length", -1),
)


class Lines:
    """Opens streams; `streams_per_connection` agents share a channel."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self._doors = asked, asked.doors
        self._shared: dict[int, grpc.aio.Channel] = {}

    @asynccontextmanager
    async def call(self, number: int) -> AsyncIterator["Call[bytes, bytes]"]:
        """A stream of one agent; leaving ends it.

        Raises:
            ConfigError: the agent's certificate cannot be read.
        """
        each = self._doors.streams_per_connection
        if each > 1:
            channel = self._shared.get(number // each)
            if channel is None:
                channel = self._shared[number // each] = self._channel(number)
            call = _stream(channel)
            try:
                yield call
            finally:
                call.cancel()
            return
        channel = self._channel(number)
        try:
            yield _stream(channel)
        finally:
            await channel.close()

    async def close(self) -> None:
        """Ends shared connections."""
        for channel in self._shared.values():
            await channel.close()

    def _channel(self, number: int) -> grpc.aio.Channel:
        address = self._doors.grpc
        if self._doors.ca is None and self._doors.folder is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        credentials = self._credentials(number)
        return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)

    def _credentials(self, number: int) -> grpc.ChannelCredentials:
        doors = self._doors
        if doors.folder is not None:
            root = read(doors.ca or doors.folder / "ca.pem")
            both = read(doors.folder / f"{self._asked.site_id(number)}.pem")
            return grpc.ssl_channel_credentials(root, both, both)
        assert doors.ca is not None
        chain = read(doors.cert) if doors.cert else None
        key = read(doors.key or doors.cert) if doors.key or doors.cert else None
        return grpc.ssl_channel_credentials(read(doors.ca), key, chain)


def _stream(channel: grpc.aio.Channel) -> "Call[bytes, bytes]":
    # Not typed as one of bytes upstream: without serializers it is.
    return channel.stream_stream(METHOD)()


@lru_cache(maxsize=20_000)
def read(path: Path) -> bytes:
    """A file of PEM.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"], file=str(path)) from error
