"""The end of the daemon's threads: a call that hangs in the kernel must not keep the process."""

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

from heatpool.process.journal import facts

logger = logging.getLogger(__name__)

NAME = "agent-work"
# A stop may take ten seconds in all, and the last exchange with the aggregator half of that.
JOIN_S = 3.0
_OURS = "heatpool_agent."


def workers() -> ThreadPoolExecutor:
    """Threads for the event loop's blocking work, as asyncio makes them, with our name."""
    return ThreadPoolExecutor(thread_name_prefix=NAME)


def leave_if_hung(threads: ThreadPoolExecutor) -> None:
    """Ends the threads; where one still hangs after `JOIN_S`, the process, with exit code 0.

    To be called when everything is released: no `finally` and no exit handler runs any more.
    Python itself would wait for such a thread until somebody kills it.
    """
    threads.shutdown(wait=False, cancel_futures=True)
    hung = _still_alive([one for one in threading.enumerate() if one.name.startswith(NAME)])
    if not hung:
        return
    logger.warning(
        "agent.thread_hangs", extra=facts(count=len(hung), at=", ".join(map(_place, hung)))
    )
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _still_alive(threads: Sequence[threading.Thread]) -> list[threading.Thread]:
    until_s = time.monotonic() + JOIN_S
    for one in threads:
        one.join(max(0.0, until_s - time.monotonic()))
    return [one for one in threads if one.is_alive()]


def _place(thread: threading.Thread) -> str:
    """Where in our code a thread stands, and who called it: a file that all use says little."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    found: dict[str, None] = {}
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(_OURS):
            found[f"{name.removeprefix(_OURS)}.{frame.f_code.co_name}"] = None
        frame = frame.f_back
    return " < ".join(list(found)[:4]) or thread.name
