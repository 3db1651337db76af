"""One of our programs as a process of its own: started, watched, started again, stopped."""

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_PAUSE_S = 1.0  # a program that dies at once would else take a processor for itself
_PAUSE_MOST_S = 15.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run and where its files lie."""

    name: str
    module: str
    config: Path
    ready_file: Path
    log_file: Path


class Child:
    """A running program; it dies with us, and is started again when it dies alone."""

    def __init__(self, order: Order) -> None:
        self.name = order.name
        self.restarts_count = 0
        self._order = order
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()  # a start and a stop, one after the other

    @property
    def is_stopping(self) -> bool:
        """Whether the program was asked to stop."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Starts the program unless it was asked to stop; its lines go to its log file."""
        async with self._turn:
            if self.is_stopping:
                return
            await self._spawn()
            if self.is_stopping:  # we were told while the process came to life
                self.ask_to_stop()

    async def watch(self) -> None:
        """Starts the program again whenever it ends unasked; ends once it was stopped."""
        pause_s = _PAUSE_S
        while self._process is not None:
            code = await self._process.wait()
            if self.is_stopping:
                return
            self.restarts_count += 1
            logger.warning("demo.restart", extra=facts(program=self.name, code=code))
            if await self._is_told_within(pause_s):
                return
            pause_s = min(pause_s * 2, _PAUSE_MOST_S)
            await self.start()

    async def ready(self, *, within_s: float) -> dict[str, Any]:
        """What the program says of itself once it is ready.

        Raises:
            HeatpoolError: it ended, or was not ready in time; with the end of its log.
        """
        try:
            async with asyncio.timeout(within_s):
                while (said := await asyncio.to_thread(self.said)) is None:
                    if self._process is None or self._process.returncode is not None:
                        raise HeatpoolError(await self._failure("ended at once"))
                    await asyncio.sleep(_LOOK_S)
                return said
        except TimeoutError:
            text = await self._failure(f"was not ready within {within_s:.0f} s")
            raise HeatpoolError(text) from None

    def said(self) -> dict[str, Any] | None:
        """The ready file; None before there is one."""
        try:
            said = json.loads(self._order.ready_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return said if isinstance(said, dict) else None

    def ask_to_stop(self) -> None:
        """Sends TERM and does not wait."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    async def stop(self, *, within_s: float) -> None:
        """Ends the program: asked, and if it takes longer than this, killed; none starts after."""
        self.ask_to_stop()
        async with self._turn:  # a start that is under way ends first, and asks by itself
            await self._end(within_s=within_s)

    async def _end(self, *, within_s: float) -> None:
        if self._process is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            logger.warning("demo.killed", extra=facts(program=self.name, waited_s=within_s))
            self._process.kill()
            await self._process.wait()

    async def _is_told_within(self, wait_s: float) -> bool:
        """Whether we are asked to stop in this time; returns as soon as we are."""
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _spawn(self) -> None:
        order = self._order
        await asyncio.to_thread(order.ready_file.unlink, missing_ok=True)
        log = await asyncio.to_thread(order.log_file.open, "ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", order.module, "run"),
                *("--config", str(order.config), "--ready-file", str(order.ready_file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the whole group at once; we stop ours one after the other.
                start_new_session=True,
                preexec_fn=partial(_die_with, os.getpid()),
            )
        finally:
            await asyncio.to_thread(log.close)

    async def _failure(self, what: str) -> str:
        log = self._order.log_file
        text = await asyncio.to_thread(log.read_text, encoding="utf-8", errors="replace")
        tail = "\n".join(text.splitlines()[-8:])
        return f"{self.name} {what}; its log {log} ends:\n{tail}"


def _die_with(parent_pid: int) -> None:
    """In the child: TERM when the demo is killed, so that no program is left behind."""
    if _LIBC is None:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ours would swallow it before the program runs
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:  # killed before we could say so
        os.kill(os.getpid(), signal.SIGTERM)
