"""The two queues of a new site: its history, if any is asked for, and what comes from now on."""

import random
import uuid

from heatpool.sample import SpoolKind
from heatpool_sim.load import course
from heatpool_sim.load.asked import BACKLOG_STEP_S, Asked
from heatpool_sim.load.course import NS, Course, Stretch
from heatpool_sim.load.queue import Queue

REGISTER_ROWS = 60  # of a frame of history


def made(asked: Asked, random_: random.Random, *, own_ns: int) -> tuple[Queue, Queue, int]:
    """Telemetry, billing, and the first live number of telemetry; `own_ns` by the site's clock."""
    telemetry = _telemetry(asked, random_, own_ns)
    billing = _billing(asked, random_, own_ns)
    return telemetry, billing, telemetry.next_seq


def _telemetry(asked: Asked, random_: random.Random, own_ns: int) -> Queue:
    period_ns = int(asked.period_s * NS)
    past = course.backlog(
        own_ns - period_ns,
        length_s=asked.backlog_s,
        n_rows=asked.backlog_rows,
        step_s=BACKLOG_STEP_S,
    )
    live = Stretch(
        first_seq=course.frames_in(past, own_ns - period_ns) + 1,
        # Each begins at its own time, or all would send at once.
        start_ns=own_ns - period_ns + int(random_.random() * period_ns),
        n_rows=asked.rows,
        step_ns=max(1, period_ns // asked.rows),
    )
    return _queue(SpoolKind.TELEMETRY, past, live, asked, _boot_id(random_, own_ns))


def _billing(asked: Asked, random_: random.Random, own_ns: int) -> Queue:
    period_ns = int(asked.register_period_s * NS)
    # One is due at once, the next one at some time within a period.
    first_ns = own_ns - period_ns - int(random_.random() * period_ns)
    past = course.backlog(
        first_ns,
        length_s=asked.backlog_s,
        n_rows=REGISTER_ROWS,
        step_s=asked.register_period_s,
    )
    first_seq = course.frames_in(past, first_ns) + 1
    live = Stretch(first_seq=first_seq, start_ns=first_ns, n_rows=1, step_ns=period_ns)
    return _queue(SpoolKind.BILLING, past, live, asked, _boot_id(random_, own_ns))


def _boot_id(random_: random.Random, own_ns: int) -> str:
    """Of this run alone: another one of the same seed sends other rows under the same numbers."""
    return uuid.UUID(int=random_.getrandbits(128) ^ own_ns).hex


def _queue(
    kind: SpoolKind, past: Stretch | None, live: Stretch, asked: Asked, boot_id: str
) -> Queue:
    return Queue(
        kind,
        boot_id,
        Course(*((live,) if past is None else (past, live))),
        next_seq=live.first_seq,
        frames_most=asked.spool_batches,
    )
