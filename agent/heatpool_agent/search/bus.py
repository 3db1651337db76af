"""An M-Bus gateway: the one meter behind it, by addresses that every meter answers to."""

import asyncio
from contextlib import suppress

from heatpool.errors import WireError
from heatpool_agent.core.mbus import Telegram, decode, heat_view
from heatpool_agent.core.mbus_frames import (
    ACK,
    SELECTED,
    request_frame,
    reset_frame,
    select_frame,
    split_frame,
)
from heatpool_agent.search.found import Found, name_of

# Every meter fits this secondary address and answers to this primary one (EN 13757-2 and -3), so
# both work where there is one meter alone; old meters know but one of the two.
_ANY_METER = select_frame(b"\xff" * 8)
_EVERYBODY = 254
_CONNECT_S, _ANSWER_S = 1.5, 2.0
_PRIMARY = range(1, 251)


async def mbus(host: str, port: int, *, is_usual_port: bool) -> Found | None:
    """The meter behind a gateway; a silent gateway is told only at its usual port."""
    async with asyncio.timeout(_CONNECT_S):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        has_acknowledged, frame = await _only_meter(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    telegram = _telegram(frame)
    if telegram is None and not has_acknowledged and not is_usual_port:
        return None
    return _found(host, port, telegram, has_acknowledged=has_acknowledged)


async def _only_meter(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[bool, bytes]:
    """Whether some meter acknowledged, and the telegram of the only one; empty if it failed."""
    has_acknowledged = False
    for call, address in ((_ANY_METER, SELECTED), (reset_frame(_EVERYBODY), _EVERYBODY)):
        writer.write(call)
        if await _frame(reader) != ACK:
            continue
        has_acknowledged = True
        writer.write(request_frame(address, fcb=True))
        frame = await _frame(reader)
        writer.write(reset_frame(address))
        await _frame(reader)
        if frame:
            return True, frame
    return has_acknowledged, b""


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame; empty if none comes in time."""
    data = b""
    with suppress(TimeoutError, WireError, OSError):
        async with asyncio.timeout(_ANSWER_S):
            while more := await reader.read(512):
                data += more
                frame, _ = split_frame(data)
                if frame is not None:
                    return frame
    return b""


def _telegram(frame: bytes) -> Telegram | None:
    with suppress(WireError):
        return decode(frame) if frame else None
    return None


def _found(host: str, port: int, telegram: Telegram | None, *, has_acknowledged: bool) -> Found:
    place = f"{host}:{port}"
    url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    block: dict[str, object] = {"id": name_of("mbus", host, port), "kind": "mbus", "url": url}
    if telegram is None or telegram.header is None:
        seen = "several meters seem to answer at once" if has_acknowledged else "no meter answered"
        return Found(
            place=place,
            kind="mbus",
            seen=(f"something listens as an M-Bus gateway does; {seen}",),
            block={**block, "address": 1},
            missing="set the meter's primary address (its menu or its plate)",
        )
    view, header = heat_view(telegram), telegram.header
    what = f"meter {header.id}, {header.medium_name}, primary address {telegram.address}"
    if "not_heat" in view.flags:
        return Found(place=place, kind="mbus", seen=(f"{what}; it measures no heat",))
    is_numbered = telegram.address in _PRIMARY
    block |= {"address": telegram.address} if is_numbered else {"secondary": header.id}
    block |= {"meter_id": view.meter_id or header.id, "period_s": 900}
    return Found(
        place=place,
        kind="mbus",
        seen=(what, "if it is the one to bill by, give it a loop and the role"),
        block=block,
        options=('loop = "rack"', 'role = "billing"'),
    )
