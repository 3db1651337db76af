"""Power of a server as its BMC measures it, by IPMI: DCMI's present watts, and supplies by name.

This machine's own BMC is asked through the kernel, one on the network by `ipmitool`. What bytes and
texts mean is `core.ipmi` and `core.ipmi_sdr`. The BMC's clock and its own means are not used.
"""

import asyncio
import errno
import fcntl
import logging
import os
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone, WireError
from heatpool.process.journal import facts
from heatpool_agent.core import ipmi_sdr
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.ipmi import (
    CAPABILITIES_REQUEST,
    POWER_REQUEST,
    Power,
    Request,
    measures_power,
    power,
    power_in_text,
    present_w,
)
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.ipmi import device as kernel
from heatpool_agent.sensors.ipmi.device import Ioctl
from heatpool_agent.sensors.ipmi.settings import PERIOD_LEAST_S, PERIOD_S, Config, mistakes
from heatpool_agent.sensors.ipmi.tool import IpmiTool
from heatpool_agent.sensors.pace import LOGIN_REST_S, LoginRefused, Pace

__all__ = ["PERIOD_S", "Config", "Ipmi", "open"]

logger = logging.getLogger(__name__)

POWER_CHANNEL = "ipmi/dcmi"
_NS = 1_000_000_000
# Our own limit comes a little before the supervisor's, which knows no reason.
PATIENCE_FRAC = 0.95
# A thread that was woken ends in this time, unless the kernel itself hangs.
_GRACE_S = 0.1
_PRESENT, _UNLOADED, _UNSEEN, _NOTHING = b"device", b"unloaded", b"unseen", b""
# The kernel's own word that it drives a BMC: shown also where a unit or a container hides /dev.
_DRIVEN = "class/ipmi/ipmi0"
# The firmware's table names a BMC (SMBIOS type 38), whether the kernel drives it or not.
_TOLD_BY_FIRMWARE = "firmware/dmi/entries/38-0"

_RIGHT_FIX = (
    'add a udev rule KERNEL=="ipmi*", GROUP="heatpool", MODE="0660"; commands need reading and'
    " writing"
)
_LOAD_FIX = "load the kernel's modules: modprobe -a ipmi_si ipmi_devintf"
_UNSEEN_FIX = (
    "let the service see it: drop-in ipmi.conf of its unit; in a container, pass /dev/ipmi0 in"
)
_SLOW_FIX = "raise timeout_s, or look at the load of the BMC"
_ODD_FIX = "see what `ipmitool dcmi power reading` says by hand"

# Of several sensors one alone tries a login that was refused; shorter than the rest that each of
# them takes, so that the one whose rest ends first may ask.
_REFUSED_NS = round(0.9 * LOGIN_REST_S * _NS)


class _Shared:
    """What all sensors of one BMC share: one question at a time, and one try of a wrong login."""

    def __init__(self) -> None:
        self.users = 0
        self.turn = asyncio.Lock()
        # Words, not the error: its traceback would keep the sensor, and so this, alive for ever.
        self._refusals: dict[tuple[str, ...], tuple[str, str, int]] = {}

    def check(self, login: tuple[str, ...], boot_ns: int) -> None:
        """Raises LoginRefused where the BMC has just said so to another sensor."""
        found = self._refusals.pop(login, None)
        if found is None:
            return
        reason, fix, refused_ns = found
        if boot_ns - refused_ns < _REFUSED_NS:
            self._refusals[login] = found
            raise LoginRefused(reason, fix=fix)

    def refused(self, login: tuple[str, ...], error: LoginRefused, boot_ns: int) -> None:
        """The BMC let nobody in: three of these lock the account at many a BMC."""
        self._refusals[login] = error.reason, error.fix, boot_ns


# By BMC, for as long as a sensor of it is open.
_shared: dict[str, _Shared] = {}


@asynccontextmanager
async def open(config: Config, roots: Roots, clock: Clock) -> AsyncIterator["Ipmi"]:
    """The sensor, not yet connected.

    Raises:
        ConfigError: on entering, with every mistake.
    """
    if found := mistakes(config):
        raise ConfigError(found)
    shared = _shared.setdefault(config.bmc, _Shared())
    shared.users += 1
    sensor = Ipmi(config, roots, clock, shared=shared)
    try:
        yield sensor
    finally:
        await sensor.close()
        shared.users -= 1
        if not shared.users:
            _shared.pop(config.bmc, None)


class Ipmi:
    """One BMC."""

    def __init__(
        self,
        config: Config,
        roots: Roots,
        clock: Clock,
        *,
        ioctl: Ioctl = fcntl.ioctl,
        shared: _Shared | None = None,
    ) -> None:
        self._config = config
        self._roots = roots
        self._clock = clock
        self._ioctl = ioctl
        self._tool = IpmiTool(config)
        self._pace = Pace(config.period_s or PERIOD_LEAST_S)
        self._shared = shared or _Shared()
        self._job: asyncio.Future[bytes] | None = None
        self._readings: tuple[Reading, ...] = ()
        self._untold = ""

    async def probe(self) -> Sequence[str]:
        """Channels that the BMC shows now; none where this machine has no BMC.

        Raises as `read` does.
        """
        if self._config.is_by_device and not await self._has_device():
            return ()
        return [reading.channel for reading in await self.read()]

    async def read(self) -> Sequence[Reading]:
        """Power, W, of the server, and of its supplies where they are asked for.

        Raises:
            SensorBusy: the BMC asks for patience.
            SensorGone: no BMC, no right, no answer in time, or it does not measure.
        """
        now_ns = self._clock.boot_ns()
        # A recording has its own pace.
        if not self._roots.tape.is_playing:
            if error := self._pace.rest(now_ns):
                raise error
            if self._readings and not self._pace.is_due(now_ns):
                return self._readings
        try:
            self._readings = await self._pass()
        except SensorBusy as error:
            self._pace.asked_for_patience(error, now_ns)
            raise
        except SensorGone as error:
            self._pace.failed(error, now_ns)
            raise
        took_s = (self._clock.boot_ns() - now_ns) / _NS
        self._pace.passed(begun_ns=now_ns, slowest_s=took_s, interval_s=None)
        return self._readings

    async def close(self) -> None:
        """Nothing stays open between two passes."""

    async def _pass(self) -> tuple[Reading, ...]:
        try:
            async with asyncio.timeout(PATIENCE_FRAC * self._config.timeout_s), self._shared.turn:
                return await self._asked()
        except TimeoutError as error:
            raise SensorGone(
                f"{self._config.where}: no answer in {self._config.timeout_s:g} s", fix=_SLOW_FIX
            ) from error
        except OSError as error:
            raise self._of_device(error) from error
        except WireError as error:
            raise SensorGone(f"{self._config.where}: {error}", fix=_ODD_FIX) from error

    async def _asked(self) -> tuple[Reading, ...]:
        stamp = self._stamp()
        if not self._config.sdr:
            return (self._reading(stamp, await self._power_w()),)
        power_w, untold = await self._power_or_reason()
        text = await self._printed("sdr elist full")
        found = self._listed(stamp, text, has_power=power_w is not None)
        if power_w is not None:
            return (self._reading(stamp, power_w), *found)
        if untold is not None and not found:
            raise untold
        return found

    async def _power_or_reason(self) -> tuple[float | None, SensorGone | None]:
        """DCMI's power, W, or why there is none; the supplies are worth having alone."""
        try:
            power_w = await self._power_w()
        except SensorGone as error:
            if self._untold != error.reason:
                told = facts(sensor=self._config.id, reason=error.reason, fix=error.fix)
                logger.warning("ipmi.no_power", extra=told)
            self._untold = error.reason
            return None, error
        self._untold = ""
        return power_w, None

    async def _power_w(self) -> float:
        if not self._config.is_by_device:
            return present_w(power_in_text(await self._printed("dcmi power reading")))
        return present_w(await self._power_by_device())

    async def _power_by_device(self) -> Power:
        if not await self._has_device():
            raise SensorGone("ipmi: this machine has no /dev/ipmi0 any more", fix=_LOAD_FIX)
        data = await self._commanded("dcmi power reading", POWER_REQUEST)
        try:
            return power(data)
        except SensorGone as refused:
            if await self._claims_power():
                # It says that it can and does not: that is worth another look, not a farewell.
                reason = f"{refused.reason}, though the BMC claims to measure it"
                raise SensorGone(reason, fix=refused.fix) from refused
            raise

    async def _claims_power(self) -> bool:
        try:
            return measures_power(await self._commanded("dcmi capabilities", CAPABILITIES_REQUEST))
        except (SensorError, WireError):
            return False

    async def _printed(self, question: str) -> bytes:
        tape = self._roots.tape
        return await tape.exchange(question, lambda: self._let_in(question))

    async def _let_in(self, question: str) -> bytes:
        login, now_ns = self._config.login, self._clock.boot_ns()
        self._shared.check(login, now_ns)
        try:
            return await self._tool.printed(*question.split())
        except LoginRefused as error:
            self._shared.refused(login, error, now_ns)
            raise

    async def _commanded(self, name: str, request: Request) -> bytes:
        return await self._roots.tape.exchange(name, lambda: self._on_thread(request))

    async def _on_thread(self, request: Request) -> bytes:
        if self._job is not None:
            await asyncio.wait([self._job], timeout=_GRACE_S)
            if not self._job.done():
                raise SensorBusy("ipmi: the kernel still holds the last command", wait_s=5.0)
        path = kernel.device(self._roots.dev)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, "no such device", "ipmi0")
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        job = asyncio.get_running_loop().run_in_executor(
            None,
            lambda: kernel.answer(
                path, request, timeout_s=self._config.timeout_s, wake=wake, ioctl=self._ioctl
            ),
        )
        self._job = job
        job.add_done_callback(lambda done: done.cancelled() or done.exception())
        job.add_done_callback(lambda _: os.close(wake))
        try:
            # Shielded: a cancelled wait must not forget that the thread is still in the kernel.
            return await asyncio.shield(job)
        finally:
            if not job.done():
                os.eventfd_write(wake, 1)

    async def _has_device(self) -> bool:
        """Whether the kernel drives a BMC here; False where the machine has none.

        Raises:
            SensorGone: it has one without a driver or hidden from us, or one was asked for by name.
        """
        tape = self._roots.tape
        seen = await asyncio.to_thread(tape.look, "ipmi device", self._look)
        if seen == _PRESENT:
            return True
        if seen == _UNLOADED:
            reason = "ipmi: the firmware names a BMC, and there is no /dev/ipmi0"
            raise SensorGone(reason, fix=_LOAD_FIX)
        if seen == _UNSEEN:
            reason = "ipmi: the kernel drives a BMC, and its /dev/ipmi0 is hidden from this process"
            raise SensorGone(reason, fix=_UNSEEN_FIX)
        if self._config.via == "device":
            raise SensorGone("ipmi: there is no /dev/ipmi0", fix=_LOAD_FIX)
        return False

    def _look(self) -> bytes:
        if kernel.device(self._roots.dev) is not None:
            return _PRESENT
        if (self._roots.sys / _DRIVEN).exists():
            return _UNSEEN
        return _UNLOADED if (self._roots.sys / _TOLD_BY_FIRMWARE).exists() else _NOTHING

    def _of_device(self, error: OSError) -> SensorGone:
        is_right = error.errno in (errno.EACCES, errno.EPERM)
        told = f"{self._config.where}: /dev/ipmi0: {error.strerror or error}"
        return SensorGone(told, fix=_RIGHT_FIX if is_right else _LOAD_FIX)

    def _listed(self, stamp: Stamp, text: bytes, *, has_power: bool) -> tuple[Reading, ...]:
        found = ipmi_sdr.named(ipmi_sdr.sensors(text), _rules())
        return tuple(
            self._reading(
                stamp, one.power_w, channel=f"ipmi/sdr/{one.key}", node=node, label=one.name
            )
            for one, node in found
            # Twice the same server would be added up.
            if not (has_power and node is Node.CHASSIS)
        )

    def _stamp(self) -> Stamp:
        return Stamp(
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
        )

    def _reading(
        self,
        stamp: Stamp,
        power_w: float,
        *,
        channel: str = POWER_CHANNEL,
        node: Node = Node.CHASSIS,
        label: str = "",
    ) -> Reading:
        # No uncertainty: the BMC tells none, and its step of 1 W is the least of its errors.
        return Reading(
            sensor=stamp.sensor,
            channel=channel,
            quantity="power_w",
            kind=ReadingKind.GAUGE,
            value=power_w,
            event_ns=stamp.event_ns,
            boot_ns=stamp.boot_ns,
            node=node,
            label=label,
            loop=stamp.loop,
        )


@cache
def _rules() -> tuple[ipmi_sdr.Rule, ...]:
    text = files("heatpool_agent").joinpath("data/ipmi_sdr.toml").read_text(encoding="utf-8")
    return ipmi_sdr.rules(tomllib.loads(text)["rule"])
