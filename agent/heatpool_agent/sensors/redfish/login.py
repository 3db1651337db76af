"""One login per BMC: slots are few, so a session is ended on leaving, or in the next life."""

import asyncio
import base64
import json
import logging
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heatpool.errors import SensorBusy, SensorGone, WireError
from heatpool.process.journal import facts
from heatpool_agent.core.redfish import parse
from heatpool_agent.sensors.pace import LoginRefused
from heatpool_agent.sensors.password_file import password_of
from heatpool_agent.sensors.redfish.answer import own_path
from heatpool_agent.sensors.redfish.http import Line, Reply, retry_after_s
from heatpool_agent.sensors.redfish.settings import Config

logger = logging.getLogger(__name__)

SERVICE_ROOT = "/redfish/v1/"
# Slots come free when people log out or sessions time out, which takes half an hour by default.
NO_SLOT_WAIT_S = 600.0
NO_SESSIONS = (404, 405, 501)
# Crashes in a row leave one session each; older ones have timed out by then.
MAX_OLD = 4
# How services say that no slot is free where the status alone does not (DSP0266 names 503).
_FULL = (b"SessionLimitExceeded", b"ResourceExhaust", b"CreateLimitReached", b"RAC0218")


class SessionFile:
    """URIs of our sessions at one service, never a token; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, url: str) -> None:
        name = f"redfish-{sha256(url.encode()).hexdigest()[:16]}.json"
        self._path = folder / name if folder is not None else None
        self._url = url

    def read(self) -> tuple[str, ...]:
        """What an earlier life left open; nothing where the file is missing or broken."""
        if self._path is None:
            return ()
        try:
            uris = json.loads(self._path.read_bytes())["sessions"]
            return tuple(uri for uri in uris if own_path(uri) == uri)[:MAX_OLD]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return ()

    def write(self, uris: Sequence[str]) -> None:
        """Keeps these, newest first, readable by us alone; none at all takes the file away."""
        if self._path is None:
            return
        aside = self._path.with_suffix(".new")
        try:
            if not uris:
                self._path.unlink(missing_ok=True)
                return
            text = json.dumps({"url": self._url, "sessions": list(uris)[:MAX_OLD]})
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
            aside.rename(self._path)
        except OSError as error:
            logger.warning(
                "redfish.session_not_kept",
                extra=facts(path=self._path, reason=error.strerror, fix="check the folder's mode"),
            )


class Login:
    """As whom the service is asked; `headers` say it with each question."""

    def __init__(self, config: Config, file: SessionFile) -> None:
        self.headers: Mapping[str, str] = {}
        self.is_in = not config.has_login
        self._config = config
        self._file = file
        self._uri = ""

    async def begin(self, line: Line) -> None:
        """Logs in, and ends what earlier lives left open.

        Raises:
            LoginRefused: name or password are wrong.
            SensorBusy: no slot is free.
        """
        password = await asyncio.to_thread(self._password)
        basic = _basic(self._config.user, password)
        if self._config.auth == "session" and (link := await _sessions_link(line)):
            body = {"UserName": self._config.user, "Password": password}
            await self._begin_session(line, link, body=body, basic=basic)
        else:
            self.headers = basic
        self.is_in = True

    def lose(self) -> None:
        """The service no longer knows our session."""
        self.headers, self.is_in = {}, False

    async def end(self, line: Line) -> None:
        """Frees our slot."""
        if uri := self._uri:
            headers, self._uri = self.headers, ""
            self.lose()
            reply = await line.send("DELETE", uri, headers=headers)
            if _is_over(reply):
                await asyncio.to_thread(self._file.write, ())

    async def _begin_session(
        self, line: Line, link: str, *, body: Mapping[str, str], basic: Mapping[str, str]
    ) -> None:
        old = await asyncio.to_thread(self._file.read)
        reply = await line.send("POST", link, body=body)
        if _is_full(reply) and old:
            # The slots may be held by our own crashed lives.
            await self._end_old(line, old, basic)
            reply = await line.send("POST", link, body=body)
        if reply.status in NO_SESSIONS:
            logger.warning(
                "redfish.basic", extra=facts(url=self._config.base, reason="no sessions there")
            )
            self.headers = basic
            return
        self._take(reply)
        own = (self._uri,) if self._uri else ()
        await asyncio.to_thread(self._file.write, (*own, *old))
        await self._end_old(line, [uri for uri in old if uri not in own], self.headers)
        await asyncio.to_thread(self._file.write, own)

    def _take(self, reply: Reply) -> None:
        where = self._config.base
        if _is_full(reply):
            raise SensorBusy(f"{where}: no free session", wait_s=NO_SLOT_WAIT_S)
        if reply.status in (400, 401, 403):
            raise LoginRefused(
                f"{where}: login of {self._config.user!r} refused with status {reply.status}",
                fix="check user and password_file; the account needs the right to log in",
            )
        token = reply.headers.get("X-Auth-Token", "")
        if reply.status not in (200, 201) or not token:
            raise SensorGone(
                f"{where}: login answered with status {reply.status} and no token",
                fix='check the firmware of the BMC, or set auth = "basic"',
            )
        self.headers, self._uri = {"X-Auth-Token": token}, _session_uri(reply)

    async def _end_old(self, line: Line, old: Sequence[str], headers: Mapping[str, str]) -> None:
        for uri in old:
            seen = await line.send("GET", uri, headers=headers)
            # Numbers are given again after a restart of the BMC: end no session of other people.
            if seen.status == 200 and _text(seen, "UserName") == self._config.user:
                await line.send("DELETE", uri, headers=headers)
                logger.info("redfish.old_session_ended", extra=facts(url=self._config.base))

    def _password(self) -> str:
        return password_of(Path(self._config.password_file))


async def _sessions_link(line: Line) -> str:
    """Where the service root says that sessions are made; empty where it has none."""
    reply = await line.send("GET", SERVICE_ROOT)
    if reply.status in (429, 503):
        raise SensorBusy("the service is not ready", wait_s=retry_after_s(reply))
    try:
        root: Any = parse(reply.body, SERVICE_ROOT)
        link = root["Links"]["Sessions"]["@odata.id"]
    except (KeyError, TypeError, WireError) as error:
        if isinstance(error, WireError) or reply.status != 200:
            raise SensorGone(
                f"no Redfish service root: status {reply.status}",
                fix="check that url names the BMC's Redfish service",
            ) from error
        return ""
    return own_path(str(link)) or ""


def _session_uri(reply: Reply) -> str:
    """The new session's place; services give it with or without their own host in front."""
    try:
        told = urlsplit(reply.headers.get("Location", "")).path
    except ValueError:
        told = ""
    return own_path(told or _text(reply, "@odata.id")) or ""


def _text(reply: Reply, name: str) -> str:
    """One property of the resource in a reply; empty where it has none."""
    try:
        return str(parse(reply.body, "session")[name])
    except (KeyError, WireError):
        return ""


def _is_full(reply: Reply) -> bool:
    is_error = reply.status >= 400
    return reply.status in (429, 503, 507) or (is_error and any(w in reply.body for w in _FULL))


def _is_over(reply: Reply) -> bool:
    return reply.status in (200, 202, 204, 401, 404)


def _basic(user: str, password: str) -> Mapping[str, str]:
    coded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {coded}"}
