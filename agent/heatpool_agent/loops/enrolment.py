"""Knows who this site is: takes up an identity that a person joined with, and renews it in time."""

import asyncio
import logging
import random
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heatpool.errors import HeatpoolError, StoreError, UplinkError
from heatpool.process.journal import facts
from heatpool.units import NS_PER_S
from heatpool_agent.board import Board
from heatpool_agent.config import aggregator_address, is_secure
from heatpool_agent.core.identity_view import IdentityState, IdentityView
from heatpool_agent.core.renewal import due_ns, retry_s
from heatpool_agent.enrol.mark import JOIN_AGAIN, Mark
from heatpool_agent.enrol.mark import mark as mark_of
from heatpool_agent.ports import Clock

if TYPE_CHECKING:
    from heatpool_agent.enrol.files import Enrolled, Papers

logger = logging.getLogger(__name__)

# How soon a running agent sees that somebody joined; four looks at a folder each time.
LOOK_S = 2.0
_REJOIN = "heatpool-agent join again, with a new token from the aggregator"
_CLOCK = "timedatectl says whether the clock is right; if it is: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`site_id` empty: whatever the identity says; `url` empty: where the identity says."""

    state: Path
    site_id: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Where to send; `number` rises with each identity for which it has to be opened anew."""

    url: str
    number: int


class Enrolment:
    """The identity as it is on disk now, looked at again and again."""

    def __init__(
        self,
        settings: Settings,
        board: Board,
        clock: Clock,
        *,
        renew: "Callable[[Enrolled, str], Papers] | None" = None,
    ) -> None:
        self._settings = settings
        self._board = board
        self._clock = clock
        self._renew = renew or _renew
        self._mark: Mark = ()
        self._next_try_ns: int | None = None
        self._error = ""
        self._number = 0
        self._moved = asyncio.Condition()
        self.enrolled: Enrolled | None = None

    async def run(self) -> None:
        """Looks, and renews where it is time, until cancelled."""
        while True:
            await self.look()
            await self._renew_if_due()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Reads the identity if its files changed, and says how it stands."""
        mark = await asyncio.to_thread(mark_of, self._settings.state)
        if mark != self._mark:
            await self._read(mark)
        self._post()

    async def line(self) -> Line:
        """Waits until there is somewhere to send to."""
        async with self._moved:
            while (found := self._line()) is None:
                await self._moved.wait()
        return found

    async def moved(self, line: Line) -> None:
        """Returns once this line is not the right one any more."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._line() != line)

    def _line(self) -> Line | None:
        url = self._settings.url or (f"https://{self.enrolled.place.grpc}" if self.enrolled else "")
        return Line(url, self._number) if url else None

    async def _read(self, mark: Mark) -> None:
        before, self._error = self.enrolled, ""
        try:
            self._mark, self.enrolled = await self._seen(mark)
        except StoreError as error:
            self._mark, self.enrolled, self._error = mark, None, str(error)
            logger.error("identity.unusable", extra=facts(reason=str(error)))
        self._next_try_ns = None
        if self.enrolled == before:
            return
        # Also for a renewed certificate: a line lives no longer than the one it was opened with.
        self._number += 1
        if self.enrolled is not None:
            self._take_up(self.enrolled)
        async with self._moved:
            self._moved.notify_all()

    async def _seen(self, mark: Mark) -> "tuple[Mark, Enrolled | None]":
        if not any(mark):
            return mark, None
        from heatpool_agent.enrol import files  # noqa: PLC0415  # 0.3 MB for those that joined

        state = self._settings.state
        with suppress(StoreError):  # a disk that takes nothing is read all the same
            await asyncio.to_thread(files.mend, state)
        return await asyncio.to_thread(files.seen, state)

    def _take_up(self, enrolled: "Enrolled") -> None:
        if not self._settings.site_id:
            self._board.site_id = enrolled.site_id
        logger.info(
            "identity.taken_up",
            extra=facts(
                site=enrolled.site_id,
                grpc=enrolled.place.grpc,
                fingerprint=enrolled.certificate.fingerprint,
            ),
        )

    async def _renew_if_due(self) -> None:
        enrolled, now_ns = self.enrolled, self._clock.event_ns()
        if enrolled is None or now_ns < self._due_ns(enrolled):
            return
        try:
            papers = await asyncio.to_thread(self._renew, enrolled, self._target(enrolled))
            await self._keep(enrolled, papers)
        except (UplinkError, StoreError) as error:
            self._failed(enrolled, error)
        else:
            logger.info("identity.renewed", extra=facts(site=enrolled.site_id))
            await self.look()

    def _target(self, enrolled: "Enrolled") -> str:
        """Where certificates are had: over TLS alone, and where the site sends, if that is TLS."""
        url = self._settings.url
        told = aggregator_address(url) if is_secure(url) else None
        return told or enrolled.place.grpc

    async def _keep(self, before: "Enrolled", papers: "Papers") -> None:
        from heatpool_agent.enrol import files  # noqa: PLC0415  # it is loaded by now

        # Somebody may have joined again or left meanwhile: theirs is the newer word.
        if await asyncio.to_thread(files.load, self._settings.state) == before:
            await asyncio.to_thread(files.keep, self._settings.state, papers)

    def _due_ns(self, enrolled: "Enrolled") -> int:
        if self._next_try_ns is not None:
            return self._next_try_ns
        # A site's own place in the crowd, the same after each start.
        spread_frac = zlib.crc32(enrolled.site_id.encode()) / 2**32
        return due_ns(
            renew_after_ns=enrolled.place.renew_after_ns,
            end_ns=enrolled.certificate.end_ns,
            spread_frac=spread_frac,
        )

    def _failed(self, enrolled: "Enrolled", error: HeatpoolError) -> None:
        now_ns, end_ns = self._clock.event_ns(), enrolled.certificate.end_ns
        wait_s = retry_s(end_ns=end_ns, now_ns=now_ns, jitter_frac=random.random())
        self._next_try_ns = now_ns + int(wait_s * NS_PER_S)
        self._error = f"not renewed: {error}"
        logger.warning("identity.not_renewed", extra=facts(reason=str(error), again_s=wait_s))
        self._post()

    def _post(self) -> None:
        self._board.identity = view(
            self.enrolled,
            now_ns=self._clock.event_ns(),
            site_id=self._settings.site_id,
            error=self._error,
        )


def _renew(enrolled: "Enrolled", target: str) -> "Papers":
    from heatpool_agent.enrol import keys  # noqa: PLC0415  # for those that joined

    return keys.renew(enrolled, target)


def view(
    enrolled: "Enrolled | None", *, now_ns: int, site_id: str = "", error: str = ""
) -> IdentityView:
    """How an identity stands now, and what mends it."""
    if enrolled is None:
        state = IdentityState.UNUSABLE if error else IdentityState.NONE
        return IdentityView(state=state, detail=error, fix=JOIN_AGAIN if error else "")
    own = enrolled.certificate
    state, detail, fix = IdentityState.VALID, error, ""
    if site_id and site_id != enrolled.place.site_id:
        state = IdentityState.UNUSABLE
        detail = f"it is for site {enrolled.place.site_id}, and site.id says {site_id}"
        fix = "mend site.id, or join as this site: heatpool-agent join --force"
    elif now_ns > own.end_ns:
        state = IdentityState.EXPIRED
        detail = f"the certificate ended{f', and was {error}' if error else ''}"
        fix = _CLOCK + _REJOIN
    elif now_ns < own.start_ns:
        state = IdentityState.EXPIRED
        detail, fix = (
            "the certificate begins later than this machine's clock says",
            _CLOCK + _REJOIN,
        )
    elif error:
        state = IdentityState.UNRENEWED
        fix = "it goes on by itself; if the aggregator refuses this site, " + _REJOIN
    return IdentityView(
        state=state,
        detail=detail,
        fix=fix,
        site_id=enrolled.place.site_id,
        grpc=enrolled.place.grpc,
        fingerprint=own.fingerprint,
        start_ns=own.start_ns,
        end_ns=own.end_ns,
    )
