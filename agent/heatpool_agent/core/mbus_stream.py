"""A file of M-Bus bytes, text or binary, as the frames in it and what lies between them.

Source: EN 13757-2 (frames).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from heatpool.errors import WireError
from heatpool_agent.core.mbus_frames import LONG_START, SHORT_START, STOP, split_frame

# Bytes that no text holds; every frame but the lone E5 ends with one of them.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_COMMENT = re.compile(rb"#[^\n\r]*")
_NOT_HEX = re.compile(rb"[^0-9A-Fa-f\s]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STARTS = re.compile(rb"[\x10\x68]")
_SHOWN_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some bytes of a stream at `offset`: a whole frame, or `refusal` says why they are none."""

    offset: int
    data: bytes
    refusal: WireError | None = None


def bytes_of(content: bytes) -> bytes:
    """The bytes of a file: as they are, or what its hex text spells; `#` begins a comment.

    Raises: WireError for text that is not hex, `offset` counting the bytes spelt before.
    """
    text = content.removeprefix(_BYTE_ORDER_MARK)
    if _BINARY.search(text):
        return content
    # Comments become blanks, so that a place in what is left is a place in the file.
    code = _COMMENT.sub(lambda found: b" " * len(found[0]), text)
    if not code.isascii():
        return content
    digits = b"".join(code.split())
    if (wrong := _NOT_HEX.search(code)) is not None:
        before = b"".join(code[: wrong.start()].split())
        line = code.count(b"\n", 0, wrong.start()) + 1
        shown = wrong[0].decode("ascii")
        raise WireError(f"line {line}: {shown!r} is no hex digit", offset=len(before) // 2)
    if len(digits) % 2:
        raise WireError(f"{len(digits)} hex digits make no whole bytes", offset=len(digits) // 2)
    return bytes.fromhex(digits.decode("ascii"))


def pieces(data: bytes) -> Iterator[Piece]:
    """All of `data` in order, as frames and as what is none; a broken frame ends no stream."""
    at = 0
    while at < len(data):
        piece = _piece(data, at)
        yield piece
        at += len(piece.data)


def _piece(data: bytes, at: int) -> Piece:
    rest = data[at : at + _longest(data, at)]
    try:
        frame, _ = split_frame(rest)
    except WireError as refusal:
        return _broken(data, at, refusal)
    if frame is None:
        reason = f"frame is cut short after {len(rest)} bytes"
        return _broken(data, at, WireError(reason, offset=len(rest)))
    return Piece(offset=at, data=frame)


def _longest(data: bytes, at: int) -> int:
    """Bytes to look at for the frame that starts here; slices of a long stream cost their size."""
    return data[at + 1] + 6 if at + 1 < len(data) else 2


def _broken(data: bytes, at: int, refusal: WireError) -> Piece:
    """What cannot be read: a frame with a wrong checksum whole, else up to the next frame."""
    end = _framed_end(data, at) or _next_frame(data, at + 1)
    offset = at + (refusal.offset or 0)
    if end < len(data) and end <= offset:
        offset, reason = end, f"frame is cut short after {end - at} bytes: another begins there"
    elif data[at] in (SHORT_START, LONG_START):
        reason = refusal.reason
    else:
        shown = data[at : min(end, at + _SHOWN_BYTES)].hex(" ").upper()
        more = " ..." if end - at > _SHOWN_BYTES else ""
        reason = f"{end - at} bytes that start no M-Bus frame: {shown}{more}"
    return Piece(offset=at, data=data[at:end], refusal=WireError(reason, offset=offset))


def _next_frame(data: bytes, start: int) -> int:
    """Where the next frame begins; within rubbish an E5 is rubbish too."""
    for found in _STARTS.finditer(data, start):
        at = found.start()
        if data[at] == LONG_START and _framed_end(data, at):
            return at
        if data[at] == SHORT_START and _is_sound(data[at : at + 5]):
            return at
    return len(data)


def _framed_end(data: bytes, at: int) -> int:
    """Where the frame ends whose start and stop bytes stand in their places; 0 if it has none."""
    head = data[at : at + 4]
    if head[:1] == bytes((SHORT_START,)):
        end = at + 5
    elif len(head) == 4 and head[0] == head[3] == LONG_START and head[1] == head[2] >= 3:
        end = at + head[1] + 6
    else:
        return 0
    return end if data[end - 1 : end] == bytes((STOP,)) else 0


def _is_sound(frame: bytes) -> bool:
    try:
        return split_frame(frame)[0] is not None
    except WireError:
        return False
