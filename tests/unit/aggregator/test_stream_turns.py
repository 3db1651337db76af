"""Streams that speak in turns: what breaks one of them holds up no other."""

import asyncio
from typing import Any

import pytest

from heatpool_aggregator.rpc.line import Line, Turns


class Wire:
    """The context of a stream whose other end says nothing and hears everything."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def read(self) -> Any:
        await asyncio.get_running_loop().create_future()

    async def write(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        loop.call_soon(written.set_result, None)
        await written
        self.heard.append(message)


def broken() -> list[bytes]:
    raise ValueError("no message of ours")


async def test_a_stream_whose_words_cannot_be_made_ends_alone() -> None:
    turns, words = Turns(), [b"ack"]

    def once() -> list[bytes]:
        said, words[:] = list(words), []
        return said

    bad, good = Wire(), Wire()
    lines = [Line(bad, broken, turns), Line(good, once, turns)]  # type: ignore[arg-type]  # enough of a context
    for line in lines:
        line.speak()
    with pytest.raises(ValueError, match="no message"):
        await lines[0].read_on(lambda _: True)
    async with asyncio.timeout(5):
        await lines[1].say_all(lambda: True)
        words.append(b"later")
        await lines[1].say_all(lambda: not words)
    assert good.heard == [b"ack", b"later"]
    for line in lines:
        line.close()


async def test_what_comes_while_the_first_of_two_is_written_is_said_too() -> None:
    """An Ack that came behind a Slow and an Ack would else wait for whatever is said next."""
    wire, words = Wire(), [b"slow", b"ack"]

    def words_once() -> list[bytes]:
        said, words[:] = list(words), []
        return said

    line = Line(wire, words_once, Turns())  # type: ignore[arg-type]  # enough of a context
    reading = asyncio.create_task(line.read_on(lambda _: True), name="reading")
    line.speak()
    await asyncio.sleep(0)
    assert (words, wire.heard) == ([], []), "the first one is under way"
    words.append(b"later")
    line.speak()
    for _ in range(20):
        await asyncio.sleep(0)
    assert wire.heard == [b"slow", b"ack", b"later"]
    reading.cancel()
    await asyncio.wait([reading])
    line.close()
