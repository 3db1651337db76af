"""A BMC that several sensors may name: one login, one question in flight, known answers kept."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone, WireError
from heatpool_agent.ports import Clock, Roots, Tape
from heatpool_agent.sensors.pace import LOGIN_REST_S, LoginRefused
from heatpool_agent.sensors.redfish.answer import Answer, hidden, unpacked
from heatpool_agent.sensors.redfish.http import Line, Reply, retry_after_s
from heatpool_agent.sensors.redfish.login import SERVICE_ROOT, Login, SessionFile
from heatpool_agent.sensors.redfish.settings import Config

# A stop of the agent may take 10 s in all; a slot that is not freed in this time is freed later.
LEAVE_S = 4.0
# Of several sensors one alone tries a login that was refused; shorter than the rest that each of
# them takes, so that the one whose rest ends first may ask.
REFUSED_NS = round(0.9 * LOGIN_REST_S * 1e9)
# An ETag that stands still while the figures move is found out after so many of its words.
TRUST_COUNT = 9
# Kept answers of all resources together; the largest service known to us has 1 MB.
MAX_KEPT_BYTES = 8 << 20


@dataclass(slots=True, kw_only=True)
class _Kept:
    """An answer with the ETag it came with, and how often that was said to hold."""

    etag: str
    body: bytes
    told: int = 0


class Bmc:
    """One service; every question waits for the one before it, whoever asks."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self.config = config
        self.users = 0
        self._lock = asyncio.Lock()
        self._clock = clock
        self._refusal: tuple[LoginRefused, int] | None = None
        self._line = Line(config, clock)
        self._login = Login(config, SessionFile(roots.state, config.base))
        self._kept: dict[str, _Kept] = {}
        self._kept_bytes = 0
        self._liars: set[str] = set()

    async def get(self, path: str) -> tuple[Answer, float]:
        """The answer to one question and how long it took, s; after one new login if need be.

        Raises:
            SensorGone: not reachable, we are not let in, or its last sensor has left.
            SensorBusy: the service asks for patience.
            WireError: an answer that is none.
        """
        async with self._lock:
            if not self.users:
                # A pass that outlives its sensor: another login would be nobody's to end.
                raise SensorGone(f"{self.config.base}: left already", fix="open the sensor anew")
            reply = await self._asked(path)
            if reply.status == 401 and self.config.has_login:
                self._login.lose()
                reply = await self._asked(path)
        if reply.status == 401:
            raise self._refused(path)
        if reply.status in (429, 503):
            wait_s = retry_after_s(reply)
            raise SensorBusy(f"{self.config.base}{path}: status {reply.status}", wait_s=wait_s)
        return Answer(status=reply.status, body=reply.body), reply.took_s

    async def leave(self) -> None:
        """One sensor less; the last one logs out and hangs up."""
        self.users -= 1
        if self.users > 0:
            return
        try:
            # What fails here is caught up with by the session file.
            with suppress(TimeoutError, SensorError, WireError, OSError):
                async with asyncio.timeout(LEAVE_S), self._lock:
                    await self._login.end(self._line)
        finally:
            await self._line.close()

    async def _asked(self, path: str) -> Reply:
        if not self._login.is_in:
            await self._enter()
        kept = self._kept.get(path)
        is_asking_anew = kept is None or kept.told >= TRUST_COUNT
        condition = {} if kept is None or is_asking_anew else {"If-None-Match": kept.etag}
        reply = await self._line.send("GET", path, headers={**self._login.headers, **condition})
        if reply.status == 304 and kept is not None:
            kept.told += 1
            return Reply(status=200, headers={}, body=kept.body, took_s=reply.took_s)
        if reply.status == 200:
            self._keep(path, reply, kept)
        return reply

    async def _enter(self) -> None:
        """Logs in; three refusals lock the account at many a BMC, so they are counted for all."""
        now_ns = self._clock.boot_ns()
        if self._refusal is not None and now_ns - self._refusal[1] < REFUSED_NS:
            told = self._refusal[0]
            raise LoginRefused(told.reason, fix=told.fix)
        self._refusal = None
        try:
            await self._login.begin(self._line)
        except LoginRefused as error:
            self._refusal = error, now_ns
            raise

    def _keep(self, path: str, reply: Reply, before: _Kept | None) -> None:
        if before is not None:
            self._kept_bytes -= len(self._kept.pop(path).body)
        etag = reply.headers.get("ETag", "")
        if before is not None and before.etag == etag and before.body != reply.body:
            self._liars.add(path)
        is_room = self._kept_bytes + len(reply.body) <= MAX_KEPT_BYTES
        if etag and path not in self._liars and is_room:
            self._kept[path] = _Kept(etag=etag, body=reply.body)
            self._kept_bytes += len(reply.body)

    def _refused(self, path: str) -> LoginRefused:
        where = f"{self.config.base}{path}: status 401"
        if not self.config.has_login:
            return LoginRefused(f"{where}, a login is needed", fix="set user and password_file")
        return LoginRefused(
            f"{where} right after a login",
            fix=f"give {self.config.user!r} the right to read, or check password_file",
        )


class BmcTree:
    """What one sensor sees of a BMC, through its tape."""

    def __init__(self, bmc: Bmc, tape: Tape) -> None:
        self.slowest_s = 0.0
        self._bmc = bmc
        self._tape = tape
        self._is_closed = False

    async def starts(self) -> tuple[str, ...]:
        """The service root, from which all else is linked."""
        return (SERVICE_ROOT,)

    async def get(self, path: str) -> Answer:
        """The answer to one question."""

        async def ask() -> bytes:
            answer, took_s = await self._bmc.get(path)
            self.slowest_s = max(self.slowest_s, took_s)
            return answer.packed()

        return unpacked(await self._tape.exchange(f"GET {path}", ask, hide=hidden))

    async def close(self) -> None:
        """Leaves the BMC; the last sensor logs out."""
        if not self._is_closed:
            self._is_closed = True
            await self._bmc.leave()


# BMCs in use by url; one goes when its last sensor does.
_BMCS: WeakValueDictionary[str, Bmc] = WeakValueDictionary()


def bmc_tree(config: Config, roots: Roots, clock: Clock) -> BmcTree:
    """A view of the BMC that the settings name, shared with other sensors of the same url.

    Raises:
        ConfigError: another sensor asks the same BMC as somebody else.
    """
    bmc = _BMCS.get(config.base) if not roots.tape.is_playing else None
    if bmc is not None and bmc.users and _access(bmc.config) != _access(config):
        raise ConfigError([f"url: {config.base} is asked by {bmc.config.id!r} with another login"])
    if bmc is None or not bmc.users:
        bmc = Bmc(config, roots, clock)
    if not roots.tape.is_playing:
        _BMCS[config.base] = bmc
    bmc.users += 1
    return BmcTree(bmc, roots.tape)


def _access(config: Config) -> tuple[object, ...]:
    return (config.user, config.password_file, config.auth, config.pin, config.ca_file)
