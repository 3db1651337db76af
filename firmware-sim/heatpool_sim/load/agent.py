"""The life of one light agent: connect, say hello, send what is due, hear, go, come back."""

import asyncio
import random
import time
from contextlib import suppress

import grpc
import grpc.aio

from heatpool.errors import WireError
from heatpool_sim.load.asked import Asked
from heatpool_sim.load.lines import Call, Lines
from heatpool_sim.load.site import Site
from heatpool_sim.load.tally import Tally, Times

HELLO_S = 60.0
WAIT_FIRST_S, WAIT_MOST_S = 1.0, 60.0
ACCEPT_S = 0.0013  # of the aggregator's processor for one connection with TLS
# A person has to act; coming again does not help.
FOR_GOOD = ("PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION", "UNIMPLEMENTED")
_FROM_CORE = "Internal error from Core"
_CUT, _WAIT, _SILENT = "cut_by_us", "told_to_wait", "no_reply"


class Agent:
    """One agent; `code` is why it was refused for good."""

    def __init__(
        self, number: int, asked: Asked, tally: Tally, lines: Lines, *, start_ns: int
    ) -> None:
        self.number, self._asked, self._tally, self._lines = number, asked, tally, lines
        self._random = random.Random(f"{asked.seed}/{number}")
        self.site = Site(number, asked, tally, self._random, start_ns=start_ns)
        self.code: str | None = None
        self.is_in = self.was_in = False
        self._wake = asyncio.Event()
        self._is_ended = self._is_cut = self._is_over = False
        self._storm: tuple[Times, float] | None = None

    async def live(self, *, after_s: float) -> None:
        """Connects after this time, and again and again until it is over."""
        await self._rest(after_s)
        tries = 0
        while not self._is_over and self.code is None:
            was_in, code = await self._stream()
            if self._is_over:
                return
            self._tally.ended(code)
            if code in FOR_GOOD and not self.site.is_liar:
                self.code = code
                self._tally.refused_for_good[code] += 1
                return
            tries = 0 if was_in else tries + 1
            await self._rest(self._wait_s(tries))

    def _wait_s(self, tries: int) -> float:
        """Full jitter: any time up to a bound that doubles, and that a storm of all fits into."""
        if self._storm is not None:
            return 0.0
        if told_s := self.site.wait_s:
            return told_s
        fleet_s = self._asked.agents * ACCEPT_S
        bound_s = min(WAIT_MOST_S, max(fleet_s, WAIT_FIRST_S * 2.0**tries))
        return self._random.uniform(0.0, bound_s)

    async def _rest(self, wait_s: float) -> None:
        ends_s = time.monotonic() + wait_s
        while not self._is_over and self._storm is None and (left_s := _until(ends_s)) > 0:
            await self._woken(left_s)

    async def _woken(self, within_s: float) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._wake.wait()

    async def _stream(self) -> tuple[bool, str]:
        """One stream from its start to its end: whether it got in, and how it ended."""
        self._is_ended = self._is_cut = False
        was_in = False
        async with self._lines.call(self.number) as call:
            try:
                was_in = await self._greeted(call)
                if was_in:
                    await self._talk(call)
            except TimeoutError:
                return was_in, _SILENT
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # its status is looked at below
            finally:
                self._leave()
            if self._is_cut or not call.done():
                return was_in, _CUT if was_in else _WAIT
            return was_in, await _ending(call)

    async def _greeted(self, call: "Call[bytes, bytes]") -> bool:
        async with asyncio.timeout(HELLO_S):
            await call.write(self.site.hello())
            data = await call.read()
        if not isinstance(data, bytes):
            return False
        self.site.take(data)
        if self.site.is_told_to_wait:
            return False
        self._enter()
        return True

    def _enter(self) -> None:
        self.is_in = self.was_in = True
        self._tally.greet()
        if self._storm is not None:
            times, since_s = self._storm
            times.add(time.monotonic() - since_s)
            self._storm = None

    def _leave(self) -> None:
        if self.is_in:
            self.is_in = False
            self._tally.connected -= 1

    async def _talk(self, call: "Call[bytes, bytes]") -> None:
        kill = self._killed_later()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(call), name=f"hear-{self.number}")
            try:
                await self._speak(call)
            finally:
                if kill is not None:
                    kill.cancel()
                call.cancel()  # or the other task would listen on

    def _killed_later(self) -> asyncio.TimerHandle | None:
        every_s = self._asked.faults.kill_every_s
        if every_s is None:
            return None
        after_s = self._random.uniform(0.0, 2 * every_s)
        return asyncio.get_running_loop().call_later(after_s, self.cut)

    async def _speak(self, call: "Call[bytes, bytes]") -> None:
        while not (self._is_ended or self._is_cut or self._is_over):
            message = self.site.message()
            if message is None:
                await self._woken(self.site.idle_s())
                continue
            try:
                await call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the end of the stream; its status is looked at there

    async def _hear(self, call: "Call[bytes, bytes]") -> None:
        try:
            while isinstance(data := await call.read(), bytes):
                self.site.take(data)
                self._wake.set()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the end of the stream; its status is looked at there
        except WireError:
            self._tally.counts["not_understood"] += 1
        finally:
            self._is_ended = True
            self._wake.set()

    def wake(self) -> None:
        """Something has changed from outside."""
        self._wake.set()

    def cut(self) -> None:
        """The stream is lost, as a line that was pulled."""
        self._is_cut = True
        self._wake.set()

    def storm(self, times: Times) -> None:
        """The stream is lost, and the next one comes at once; `times` hears how soon."""
        self._storm = (times, time.monotonic())
        self.cut()

    def finish(self) -> None:
        """It is over: the stream ends, and no other comes."""
        self._is_over = True
        self._wake.set()


async def _ending(call: "Call[bytes, bytes]") -> str:
    code: grpc.StatusCode = await call.code()
    # Where a write fails, gRPC makes up a status of its own.
    if code is grpc.StatusCode.INTERNAL and await call.details() == _FROM_CORE:
        return "write_failed"
    return code.name


def _until(ends_s: float) -> float:
    return ends_s - time.monotonic()
