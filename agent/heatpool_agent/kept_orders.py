"""What outlives the agent of its orders, as files of the state folder; blocking.

The highest number that each loop has seen, so that nothing recorded can be played back; and the
local operator's override, which a command, the page or a person may write.
"""

import threading
from pathlib import Path

import msgspec

from heatpool.errors import StoreError
from heatpool_agent import whole_file
from heatpool_agent.core.override import OverrideAsk

OVERRIDE_NAME = "override.json"
_BYTES_LIMIT = 10_000
_NS_LIMIT = 2**63


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    setpoint_seq: int


class _Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    asked_ns: int
    until_ns: int
    reason: str


class SeenOrders:
    """The highest order number of one loop."""

    def __init__(self, folder: Path, loop_id: str) -> None:
        self._path = folder / f"last_order.{loop_id}.json"
        self._kept_seq = 0
        self._lock = threading.Lock()

    def read(self) -> int:
        """The number; 0 where none was ever kept.

        Raises:
            StoreError: it is there and cannot be read: an old order might pass for a new one.
        """
        try:
            return msgspec.json.decode(_content(self._path), type=_Seen).setpoint_seq
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise _unusable(self._path, error) from error

    def keep(self, setpoint_seq: int) -> None:
        """Returns when the number is on disk; at once where an earlier call has brought it there.

        Raises:
            StoreError: it is not.
        """
        # Two calls at once, as a slow disk makes them, must not leave the lower number behind.
        with self._lock:
            if setpoint_seq > self._kept_seq:
                _write(self._path, msgspec.json.encode(_Seen(setpoint_seq=setpoint_seq)))
                self._kept_seq = setpoint_seq


class OverrideFile:
    """The override that is asked for now."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / OVERRIDE_NAME

    def read(self) -> OverrideAsk | None:
        """What is asked; None: nothing is.

        Raises:
            StoreError: something is, and it cannot be read.
        """
        try:
            found = msgspec.json.decode(_content(self.path), type=_Override)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise _unusable(self.path, error) from error
        if not 0 <= found.asked_ns <= found.until_ns < _NS_LIMIT:
            raise _unusable(self.path, ValueError("its times are no times, or out of order"))
        return OverrideAsk(
            asked_ns=found.asked_ns, until_ns=found.until_ns, reason=found.reason[:_BYTES_LIMIT]
        )

    def write(self, ask: OverrideAsk) -> None:
        """Asks; an older one goes.

        Raises:
            StoreError: it cannot be kept, so it is not asked.
        """
        kept = _Override(asked_ns=ask.asked_ns, until_ns=ask.until_ns, reason=ask.reason)
        _write(self.path, msgspec.json.encode(kept))

    def remove(self) -> bool:
        """Takes it back; False: there was none.

        Raises:
            StoreError: it is still there.
        """
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable(self.path, error) from error
        return True


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BYTES_LIMIT)


def _write(path: Path, content: bytes) -> None:
    try:
        whole_file.put(path, content)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> StoreError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StoreError(f"{path}: {reason}; look at the disk, and at the folder's owner")
