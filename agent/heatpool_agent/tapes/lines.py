"""The form of a recording: one JSON object a line, and a manifest beside them.

A pass is one probe or one read of one sensor: its `begin`, the exchanges in the order of their
answers, its `end` with what became of it. Nothing between two passes is kept.
"""

import builtins
from typing import Any, Literal

import msgspec

from heatpool.errors import SensorBusy, SensorGone, WireError

MANIFEST = "manifest.json"
Do = Literal["probe", "read"]
Error = OSError | SensorBusy | SensorGone | WireError

# What JSON can show as text without escapes; all else is told in hexadecimal.
_SHOWN_CONTROLS = frozenset("\n\r\t")


class KeptError(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An error as it came; `late` is an exchange or a pass that its caller stopped waiting for."""

    kind: Literal["os", "timeout", "busy", "gone", "wire", "late"]
    text: str = ""
    fix: str = ""
    name: str = ""
    errno: int | None = None
    offset: int | None = None
    wait_s: float = 0.0


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="begin"):
    """A pass begins."""

    do: Do
    event_ns: int
    boot_ns: int


class Exchange(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="line",
    tag="exchange",
):
    """One question and its answer, as text or in hexadecimal, or the error in its place."""

    event_ns: int
    boot_ns: int
    request: str
    answer: str | None = None
    answer_hex: str | None = None
    error: KeptError | None = None

    def data(self) -> bytes:
        """The answer.

        Raises:
            ValueError: it is no hexadecimal text.
        """
        if self.answer_hex is not None:
            return bytes.fromhex(self.answer_hex)
        return (self.answer or "").encode()


class End(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="line",
    tag="end",
):
    """A pass ended: how many channels or readings it gave, or its error."""

    event_ns: int
    boot_ns: int
    count: int = 0
    error: KeptError | None = None


Line = Begin | Exchange | End


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one sensor's file holds, and how many passes found no room in it."""

    passes: int
    exchanges: int
    errors: int
    bytes: int
    dropped_passes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was recorded, when and with which settings; without `ended_ns` it was cut off."""

    schema: Literal["heatpool.recording/1"] = "heatpool.recording/1"
    heatpool: str
    begun_ns: int
    ended_ns: int | None = None
    sampling: dict[str, Any]
    roots: dict[str, Any]
    loop: list[dict[str, Any]]
    sensor: list[dict[str, Any]]
    counts: dict[str, Counts] = {}


def answered(request: str, data: bytes, *, event_ns: int, boot_ns: int) -> Exchange:
    """An exchange with its answer in the form that reads best."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    is_text = all(letter.isprintable() or letter in _SHOWN_CONTROLS for letter in text)
    return Exchange(
        event_ns=event_ns,
        boot_ns=boot_ns,
        request=request,
        answer=text if is_text else None,
        answer_hex=None if is_text else data.hex(),
    )


def kept_error(error: Error) -> KeptError:
    """The error as it is kept."""
    if isinstance(error, SensorBusy):
        return KeptError(kind="busy", text=str(error), wait_s=error.wait_s)
    if isinstance(error, SensorGone):
        return KeptError(kind="gone", text=error.reason, fix=error.fix)
    if isinstance(error, WireError):
        return KeptError(kind="wire", text=error.reason, offset=error.offset)
    text = error.strerror or str(error)
    if isinstance(error, TimeoutError) and error.errno is None:
        return KeptError(kind="timeout", text=text)
    return KeptError(kind="os", text=text, errno=error.errno, name=type(error).__name__)


def error_of(kept: KeptError) -> Error:
    """The error as it came."""
    if kept.kind == "busy":
        return SensorBusy(kept.text, wait_s=kept.wait_s)
    if kept.kind == "gone":
        return SensorGone(kept.text, fix=kept.fix)
    if kept.kind == "wire":
        return WireError(kept.text, offset=kept.offset)
    if kept.kind == "os":
        return _os_error(kept)
    return TimeoutError(kept.text) if kept.text else TimeoutError()


def _os_error(kept: KeptError) -> OSError:
    if kept.errno is not None:
        # Python makes the right kind of it, such as PermissionError.
        return OSError(kept.errno, kept.text)
    kind = getattr(builtins, kept.name, None)
    if isinstance(kind, type) and issubclass(kind, OSError):
        return kind(kept.text)
    return OSError(kept.text)
