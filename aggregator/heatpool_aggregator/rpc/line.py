"""A stream of bytes on which messages wake no task: each is taken, and each is sent, as it comes.

To wake the coroutine of a stream, with all that it stands on, costs more than to take its message.
So reads and writes of gRPC are run by the futures that they wait for, and the coroutine rests until
there is something out of the ordinary.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio

from heatpool_aggregator.rpc.certificate import Context

TURN_COUNT = 100  # lines that speak before others get their turn: some milliseconds

Step = Coroutine[Any, Any, Any]


class Turns:
    """Lines that have something to say, which is asked for soon, with all that comes until then."""

    def __init__(self) -> None:
        self._due: deque[Line] = deque()

    def take(self, line: "Line") -> None:
        """The line speaks in its turn."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._speak)
        self._due.append(line)

    def _speak(self) -> None:
        for _ in range(min(TURN_COUNT, len(self._due))):
            self._due.popleft().say()
        if self._due:
            asyncio.get_running_loop().call_soon(self._speak)


class Line:
    """One stream; `messages` gives what is to be said now, and is asked after `speak`."""

    __slots__ = (
        "_context",
        "_error",
        "_is_due",
        "_loop",
        "_messages",
        "_reading",
        "_take",
        "_turns",
        "_unsaid",
        "_vars",
        "_waiting",
        "_writing",
    )

    def __init__(self, context: Context, messages: Callable[[], list[bytes]], turns: Turns) -> None:
        self._context, self._messages, self._turns = context, messages, turns
        self._loop = asyncio.get_running_loop()
        self._vars = contextvars.copy_context()
        self._take: Callable[[bytes], bool] = _never
        self._reading: Step | None = None
        self._writing: Step | None = None
        self._unsaid: list[bytes] = []
        self._is_due = False
        self._error: Exception | None = None
        self._waiting: asyncio.Future[bytes | None] | None = None

    async def read_on(self, take: Callable[[bytes], bool]) -> bytes | None:
        """The next message that `take` does not take, which is False; None: no more come.

        Raises:
            Exception: what `take` raised, or the line when something was to be said.
        """
        self._take = take
        if self._error is not None:
            raise self._error
        self._waiting = self._loop.create_future()
        self._read()
        return await self._waiting

    async def say_all(self, is_all_said: Callable[[], bool]) -> None:
        """Waits until all is said; whatever is said to come must end in `speak`."""
        self.speak()
        while self._unsaid or self._writing is not None or self._is_due or not is_all_said():
            if self._error is not None:
                raise self._error
            self._waiting = self._loop.create_future()
            await self._waiting

    def speak(self) -> None:
        """There is something to say, or all is said; once for all that comes until its turn."""
        if not self._is_due:
            self._is_due = True
            if self._writing is None:
                self._turns.take(self)

    def say(self) -> None:
        """Says all that is to be said now."""
        if self._writing is None:
            try:
                self._write()
            except Exception as error:  # one stream's: the turns of all others go on
                self._fail(error)

    def close(self) -> None:
        """Nothing is read or written any more."""
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        self._messages, self._unsaid = list, []
        for step in (reading, writing):
            if step is not None:
                step.close()

    def _read(self) -> None:
        self._reading = self._context.read()
        self._go_on_reading()

    def _go_on_reading(self, _: object = None) -> None:
        if self._reading is None:
            return
        try:
            awaited = self._reading.send(None)
        except StopIteration as read:
            self._reading = None
            self._has_read(read.value)
        except Exception as error:
            self._reading = None
            self._fail(error)
        else:
            awaited.add_done_callback(self._go_on_reading, context=self._vars)

    def _has_read(self, data: Any) -> None:
        if data is grpc.aio.EOF:
            self._wake(None)
            return
        try:
            is_taken = self._take(data)
        except Exception as error:
            self._fail(error)
            return
        if is_taken:
            self._read()
        else:
            self._wake(data)

    def _write(self) -> None:
        if not self._unsaid:
            # Not before: what came while the first of several was written is still to be asked for.
            self._is_due = False
            self._unsaid = self._messages()[::-1]
        if self._unsaid:
            self._writing = self._context.write(self._unsaid.pop())
            self._go_on_writing()
        elif self._reading is None:
            self._wake(None)

    def _go_on_writing(self, _: object = None) -> None:
        if self._writing is None:
            return
        try:
            awaited = self._writing.send(None)
        except StopIteration:
            self._writing = None
            if self._is_due or self._unsaid or self._reading is None:
                self.say()
        except Exception as error:
            self._writing = None
            self._fail(error)
        else:
            awaited.add_done_callback(self._go_on_writing, context=self._vars)

    def _wake(self, data: bytes | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(data)

    def _fail(self, error: Exception) -> None:
        if self._waiting is None or self._waiting.done():
            self._error = error
        else:
            self._waiting.set_exception(error)


def _never(_: bytes) -> bool:
    return False
