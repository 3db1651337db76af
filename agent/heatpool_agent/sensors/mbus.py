"""Heat meters on M-Bus, behind a TCP gateway or at a serial port, by primary or secondary address.

What the bytes mean is `core.mbus`; what they mean to us `core.decode`. Meters that share a bus
share its line (`mbus_line`), and a bus carries one talk at a time.
"""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated

import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorGone, WireError
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.decode import Stamp, heat_readings
from heatpool_agent.core.mbus import (
    HeatView,
    Telegram,
    decode,
    heat_view,
    request_frame,
    reset_frame,
)
from heatpool_agent.core.mbus_frames import ACK, SELECTED, select_frame
from heatpool_agent.core.mbus_hide import hidden
from heatpool_agent.core.mbus_link import Secondary, secondary_of
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Clock, Roots, Sensor, Tape
from heatpool_agent.sensors.mbus_line import Line, leave, line_to

# A meter on a battery lives for years if it is asked rarely; billing has its own pace.
PERIOD_S = 900.0
# Meters with load profiles send a few; one that never stops would hold the bus for good.
MAX_TELEGRAMS = 16
# Not every meter says that it was let go.
GOODBYE_S = 0.5
# Our own limit comes a little before the supervisor's, which knows no reason.
_OWN_SHARE_FRAC = 0.95
NS_PER_S = 1_000_000_000
# Numbers of meters become others in a recording, the same for one meter while this program runs.
_HIDING_KEY = os.urandom(16)

Url = Annotated[
    str,
    msgspec.Meta(
        pattern=(
            r"^(tcp://(\[[0-9A-Fa-f:.]+\]|[^/:\[\]@ ]+):[0-9]{1,5}|serial:/[^? ]+(\?baud=[0-9]+)?)$"
        ),
        description="tcp://HOST:PORT or serial:/DEVICE, such as tcp://10.0.0.5:10001 or "
        "serial:/dev/ttyUSB0?baud=2400",
    ),
]


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the bus is, and which of its meters: by `address` or by `secondary`.

    `meter_id`, where given, is the meter that is expected: readings of another are marked.
    """

    url: Url
    address: Annotated[int, msgspec.Meta(ge=0, le=250)] | None = None
    secondary: str = ""
    meter_id: str = ""


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Sensor]:
    """The sensor, not yet connected.

    Raises:
        ConfigError: on entering, if the meter is not named as it must be.
    """
    return _opened(config, roots.tape, clock)


@asynccontextmanager
async def _opened(config: Config, tape: Tape, clock: Clock) -> AsyncIterator[Sensor]:
    target = _target(config)
    sensor = MbusSensor(config, target, await line_to(config.url), tape=tape, clock=clock)
    try:
        yield sensor
    finally:
        await sensor.close()


def _target(config: Config) -> int | Secondary:
    if (config.address is None) == (not config.secondary):
        raise ConfigError(["address, secondary: exactly one of the two must name the meter"])
    if config.address is not None:
        return config.address
    try:
        return secondary_of(config.secondary)
    except ValueError as error:
        raise ConfigError([str(error)]) from error


class MbusSensor:
    """One meter on a bus."""

    def __init__(
        self, config: Config, target: int | Secondary, line: Line, *, tape: Tape, clock: Clock
    ) -> None:
        self._config = config
        self._secondary = None if isinstance(target, int) else target
        # Where its requests go: a selected meter answers at an address of its own.
        self._address = target if isinstance(target, int) else SELECTED
        self._line = line
        self._tape = tape
        self._clock = clock
        self._session = -1
        self._fcb = True
        self._is_closed = False
        self._rests_until_ns = 0
        self._deadline_s = 0.0
        self._name = (
            f"address {self._address}"
            if self._secondary is None
            else f"secondary address {config.secondary}"
        )
        self._where = f"{config.url} {self._name}"

    async def probe(self) -> Sequence[str]:
        """Channels that the meter shows now."""
        return [reading.channel for reading in await self.read()]

    async def read(self) -> Sequence[Reading]:
        """The meter's present figures.

        Raises:
            SensorBusy: the meter asks for patience.
            SensorGone: no line, no answer in time, a broken one, or no heat meter.
        """
        self._check_rest()
        now_s = asyncio.get_running_loop().time()
        self._deadline_s = now_s + _OWN_SHARE_FRAC * self._config.timeout_s
        async with self._bus():
            telegram = await self._exchange()
        stamp = Stamp(
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
        )
        return heat_readings(self._heat_view(telegram), stamp)

    async def close(self) -> None:
        """Leaves the line; the last meter on it hangs up."""
        if not self._is_closed:
            self._is_closed = True
            leave(self._line)

    @asynccontextmanager
    async def _bus(self) -> AsyncIterator[None]:
        """The bus for this meter alone; who waits for others too long comes again later."""
        most_s = self._config.timeout_s / 2
        try:
            async with asyncio.timeout(most_s):
                await self._line.lock.acquire()
        except TimeoutError as error:
            raise SensorBusy(
                f"{self._where}: other meters kept the bus for {most_s:g} s; "
                "read them less often, or raise timeout_s"
            ) from error
        try:
            yield
        finally:
            self._line.lock.release()

    def _check_rest(self) -> None:
        """A meter that counts its readouts is not asked again before its time, whoever wants to."""
        left_ns = self._rests_until_ns - self._clock.boot_ns()
        if left_ns > 0:
            raise SensorBusy(
                f"{self._where}: the meter gives no more readouts for now",
                wait_s=left_ns / NS_PER_S,
            )

    async def _exchange(self) -> Telegram:
        # After any failure: what still comes must not meet the next request.
        is_clean = False
        try:
            telegram = await self._telegram()
            is_clean = True
        except SensorBusy as busy:
            # The line is well, but where in its telegrams the meter stands is not known.
            is_clean, self._session = True, -1
            if busy.wait_s:
                self._rests_until_ns = self._clock.boot_ns() + round(busy.wait_s * NS_PER_S)
            raise
        except TimeoutError as error:
            silence = self._line.silence or f"no whole answer in {self._config.timeout_s:g} s"
            raise SensorGone(f"{self._where}: {silence}", fix=self._line.silent_fix) from error
        except OSError as error:
            raise SensorGone(
                f"{self._where}: {error.strerror or error}", fix=self._line.lost_fix
            ) from error
        except WireError as error:
            raise SensorGone(f"{self._where}: {error}", fix=self._broken_fix()) from error
        finally:
            if not is_clean:
                self._line.break_off()
        return telegram

    def _broken_fix(self) -> str:
        if self._secondary is None:
            return f"check the wiring, and that only one meter has {self._name}"
        return (
            f"check the wiring, and that only one meter fits {self._name}: "
            "fewer F, or manufacturer, version and medium too"
        )

    async def _telegram(self) -> Telegram:
        """All telegrams of one readout as one."""
        await self._begin()
        first = telegram = await self._next_telegram(1)
        records = list(first.records)
        for number in range(2, MAX_TELEGRAMS + 1):
            if not telegram.more_follows:
                break
            telegram = await self._next_telegram(number)
            records += telegram.records
        if telegram.more_follows:
            raise WireError(f"more than {MAX_TELEGRAMS} telegrams in one readout")
        if self._secondary is not None:
            await self._let_go()
        return replace(first, records=tuple(records), more_follows=False)

    async def _begin(self) -> None:
        """Selects the meter for this readout, or resets its link once per opened line."""
        if self._secondary is not None:
            frame = select_frame(self._secondary.to_bytes())
            await self._acknowledged("select", frame)
        elif not self._is_linked():
            await self._acknowledged(f"reset {self._name}", reset_frame(self._address))
        else:
            return
        self._session, self._fcb = self._line.session, True

    def _is_linked(self) -> bool:
        is_open = self._tape.is_playing or self._line.is_open
        return is_open and self._session == self._line.session

    async def _acknowledged(self, request: str, frame: bytes) -> None:
        answer = await self._ask(request, frame)
        if answer != ACK:
            shown = answer[:8].hex(" ").upper()
            raise WireError(f"{shown} came where E5 should acknowledge")

    async def _let_go(self) -> None:
        """Deselects the meter, so that it stays out of the next talk."""
        frame = reset_frame(SELECTED)
        try:
            await self._ask("deselect", frame, most_s=GOODBYE_S)
        except (TimeoutError, WireError):
            # It answered already; a late E5 must not meet the next request, though.
            self._line.break_off()

    async def _next_telegram(self, number: int) -> Telegram:
        request = f"telegram {number} of {self._name}"
        if self._secondary is not None:
            request = f"telegram {number} of the selected meter"
        answer = await self._ask(request, request_frame(self._address, fcb=self._fcb))
        # Only what arrived whole is ticked off; else the meter would skip a telegram.
        self._fcb = not self._fcb
        telegram = decode(answer)
        self._check_sender(telegram)
        return telegram

    def _check_sender(self, telegram: Telegram) -> None:
        if self._secondary is None:
            if telegram.address != self._address:
                raise WireError(f"address {telegram.address} answered", offset=5)
        elif telegram.header is not None and not self._tape.is_playing:
            # A recording holds other numbers than the meter's own.
            if not self._secondary.fits(telegram.header):
                raise WireError(f"meter {telegram.header.id} answered", offset=7)

    async def _ask(self, request: str, frame: bytes, *, most_s: float = math.inf) -> bytes:
        """One exchange, by tape or line; `request` names no number of the meter."""

        async def ask() -> bytes:
            limit_s = asyncio.get_running_loop().time() + most_s
            async with asyncio.timeout_at(min(self._deadline_s, limit_s)):
                return await self._line.ask(frame)

        return await self._tape.exchange(request, ask, hide=partial(hidden, key=_HIDING_KEY))

    def _heat_view(self, telegram: Telegram) -> HeatView:
        view = heat_view(telegram)
        header = telegram.header
        if "not_heat" in view.flags and header is not None:
            raise SensorGone(
                f"{self._where}: is a meter of {header.medium_name}, not of heat",
                fix="name the address of the heat meter",
            )
        expected = self._config.meter_id
        names = (view.meter_id, header.id if header is not None else None)
        if expected and expected not in names and not self._tape.is_playing:
            return replace(view, flags=(*view.flags, "other_meter"))
        return view
