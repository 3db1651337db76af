"""NVIDIA's own command, for hosts without the library: one fork a pass, or a file that it wrote.

Imported by `nvml` where this way is taken. The command attaches every card, sleeping ones too:
when it may run at all is decided there.
"""

import asyncio
from pathlib import Path

from heatpool.errors import SensorGone, WireError
from heatpool_agent.core.gpu_card import Card
from heatpool_agent.core.smi_xml import cards, without_identity
from heatpool_agent.ports import Tape
from heatpool_agent.sensors.child import Children

_ARGUMENTS = ("-q", "-x")
_MOST_BYTES = 8_000_000
_FIX = "run `nvidia-smi -q -x` by hand and see what it says"


class NvidiaSmi:
    """The command, or a file in its place."""

    def __init__(self, command: str, file: str, tape: Tape) -> None:
        self._command = command
        self._children = Children(command)
        self._file = Path(file) if file else None
        self._tape = tape

    async def cards(self) -> dict[str, Card]:
        """Every card by its PCI address.

        Raises:
            SensorBusy: the last command hangs in the kernel.
            SensorGone: the command fails, or prints something else.
        """
        try:
            text = await self._tape.exchange("nvidia-smi -q -x", self._ask, hide=without_identity)
            # 50 KB a card: long enough to hold up the event loop.
            return await asyncio.to_thread(cards, text)
        except OSError as error:
            told = error.strerror or error
            raise SensorGone(f"{self._file or self._command}: {told}", fix=_FIX) from error
        except WireError as error:
            raise SensorGone(str(error), fix=_FIX) from error

    async def _ask(self) -> bytes:
        if self._file is not None:
            return await asyncio.to_thread(self._file.read_bytes)
        return await self._run()

    async def _run(self) -> bytes:
        self._children.check()
        process = await asyncio.create_subprocess_exec(
            self._command,
            *_ARGUMENTS,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            text = await _text(process)
            code = await process.wait()
        finally:
            # A pass that nobody waits for any more must not leave its child behind.
            if process.returncode is None:
                await self._children.end(process)
        if code != 0:
            raise SensorGone(f"{self._command} ended with {code}", fix=_FIX)
        return text


async def _text(process: asyncio.subprocess.Process) -> bytes:
    if process.stdout is None:
        raise SensorGone("nvidia-smi: no output to read", fix=_FIX)
    found = bytearray()
    while part := await process.stdout.read(65_536):
        found += part
        if len(found) > _MOST_BYTES:
            raise SensorGone("nvidia-smi: prints without end", fix=_FIX)
    return bytes(found)
