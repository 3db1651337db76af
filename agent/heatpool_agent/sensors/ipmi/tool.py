"""`ipmitool`, forked once per question: over the network, or for a BMC's own list of sensors.

The password stays in its file: a command line is seen by everybody on the machine.
"""

import asyncio
import os
import re
from pathlib import Path

from heatpool.errors import SensorGone
from heatpool_agent.core.ipmi import refusal
from heatpool_agent.sensors.child import Children
from heatpool_agent.sensors.ipmi.settings import Config
from heatpool_agent.sensors.pace import LoginRefused
from heatpool_agent.sensors.password_file import password_of

_MOST_BYTES = 1_000_000
_CODE = re.compile(r"request failed because: .*\(([0-9a-f]{1,2})\)")
# What lanplus says where name, password, privilege or role do not do.
_REFUSED = re.compile(
    r"HMAC is invalid|unauthorized (?:name|role)|invalid role|insufficient privilege"
    r"|Privilege Level to \w+ failed|no response from RAKP 1",
    re.IGNORECASE,
)
_CIPHER = re.compile(r"is not what we requested|no matching cipher suite", re.IGNORECASE)
_ABSENT_FIX = "install it: apt install ipmitool"
_LOGIN_FIX = "check user, password_file and the account's privilege; it is tried again in 15 min"
_AWAY_FIX = "check address and network, and that the BMC allows IPMI over LAN"
_OWN_FIX = "run the same by hand; the kernel needs ipmi_devintf and ipmi_si, and we the device"


class IpmiTool:
    """The command for one BMC."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._children = Children(config.ipmitool)

    async def printed(self, *command: str) -> bytes:
        """What it prints on a question such as `dcmi power reading`; killed when cancelled.

        Raises:
            LoginRefused: not let in.
            SensorBusy: the BMC asks for patience, or the last command hangs in the kernel.
            SensorGone: no ipmitool, no BMC, or nothing of this kind in it.
        """
        self._children.check()
        if self._config.password_file:
            # Without it ipmitool would try an empty password: that counts as a wrong one.
            await asyncio.to_thread(password_of, Path(self._config.password_file))
        try:
            process = await asyncio.create_subprocess_exec(
                self._config.ipmitool,
                *arguments(self._config, command),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                # Numbers and words as we know them, whatever the machine's language.
                env=os.environ | {"LC_ALL": "C"},
            )
        except OSError as error:
            told = error.strerror or error
            raise SensorGone(f"{self._config.ipmitool}: {told}", fix=_ABSENT_FIX) from error
        text, said = await _ended(process, self._children)
        if process.returncode != 0:
            raise self._failure(said, process.returncode)
        return text

    def _failure(self, said: str, code: int | None) -> Exception:
        where = self._config.url or "ipmi"
        if found := _CODE.search(said):
            return refusal(int(found[1], 16))
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else f"ended with {code}"
        if _REFUSED.search(said):
            return LoginRefused(f"{where}: the BMC does not let us in ({last})", fix=_LOGIN_FIX)
        if found := _CIPHER.search(said):
            fix = "set `cipher` to a suite that the BMC has, such as 3"
            return SensorGone(f"{where}: no cipher suite in common", fix=fix)
        return SensorGone(
            f"{where}: ipmitool: {last}", fix=_AWAY_FIX if self._config.url else _OWN_FIX
        )


def arguments(config: Config, question: tuple[str, ...]) -> tuple[str, ...]:
    """Everything of the command line before the question; no secret is in it."""
    if not config.url:
        return ("-I", "open")
    host, port = config.address
    login = ("-U", config.user, "-f", config.password_file, "-L", config.privilege.upper())
    cipher = () if config.cipher is None else ("-C", str(config.cipher))
    # Why a login failed is told to those only who ask; a list of sensors would change its form.
    asks = ("-v",) if question[0] == "dcmi" else ()
    return (*asks, "-I", "lanplus", "-H", host, "-p", str(port), *login, *cipher)


async def _ended(process: asyncio.subprocess.Process, children: Children) -> tuple[bytes, str]:
    try:
        async with asyncio.TaskGroup() as group:
            text = group.create_task(_all(process.stdout), name="ipmitool.stdout")
            said = group.create_task(_all(process.stderr), name="ipmitool.stderr")
        await process.wait()
    finally:
        # A question that nobody waits for any more must not leave its child behind.
        if process.returncode is None:
            await children.end(process)
    return text.result(), said.result().decode("utf-8", "replace")


async def _all(stream: asyncio.StreamReader | None) -> bytes:
    found = bytearray()
    while stream is not None and (part := await stream.read(65_536)):
        # What is too long is cut: it is no answer anyway, and the child must not wait for us.
        found += part[: _MOST_BYTES - len(found)]
    return bytes(found)
