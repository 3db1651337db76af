"""Files of the state folder that hold what was learnt of hosts and loops.

Two of them, so that each has one writer and needs no lock: `calibration.json` is a person's, made
by `heatpool-agent calibrate`; `learned.json` is the daemon's own. What cannot be read is set aside.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Any

import msgspec

from heatpool.errors import ConfigError, StoreError
from heatpool.process.journal import facts
from heatpool_agent import whole_file
from heatpool_agent.core.calibrate import Calibration, Learner
from heatpool_agent.core.coefficients import INPUTS, MOST, NAMES, Coefficients, mistakes
from heatpool_agent.core.least_squares import Prior, Sums

logger = logging.getLogger(__name__)

SCHEMA = "heatpool.calibration/1"
CALIBRATION = "calibration.json"
LEARNED = "learned.json"
# A hundred hosts have some hundred kB.
MOST_BYTES = 8_000_000
# A million lessons of a gigawatt beside a meter that shows a tenth of a watt.
MOST_SUM = 1e30


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One such file, as it lies on disk and as `calibrate show --json` prints it in part."""

    schema: str
    saved_ns: int
    coefficients: tuple[Coefficients, ...] = ()
    learners: tuple[Learner, ...] = ()


class Shelf:
    """Both files of one state folder; its methods block, and are called off the event loop.

    A guest (`is_guest`) leaves a damaged file where it is.
    """

    def __init__(self, folder: Path, *, is_guest: bool = False) -> None:
        self._folder = folder
        self._read = _read_as_guest if is_guest else read
        self._seen: tuple[int, int] | None = None
        self._is_kept = False

    def calibration(self) -> Calibration:
        """What a person has had learnt; nothing where there is no such file, or a damaged one."""
        path = self._folder / CALIBRATION
        self._seen = _mark(path)
        return self._read(path)

    def learned(self) -> Calibration:
        """What the daemon has learnt; the same."""
        path = self._folder / LEARNED
        found = self._read(path)
        self._is_kept = os.path.lexists(path)
        return found

    def is_changed(self) -> bool:
        """Whether `calibration.json` is another file than when it was last read."""
        return _mark(self._folder / CALIBRATION) != self._seen

    def is_forgotten(self) -> bool:
        """Whether `learned.json` was there, and a person has taken it away; told once."""
        try:
            (self._folder / LEARNED).lstat()
        except FileNotFoundError:
            was_kept, self._is_kept = self._is_kept, False
            return was_kept
        except OSError:
            # A folder that cannot be looked into says nothing.
            return False
        return False

    def keep_calibration(self, told: Calibration, *, saved_ns: int) -> None:
        """Replaces what a person has had learnt.

        Raises:
            StoreError: the disk refused.
        """
        write(self._folder / CALIBRATION, told, saved_ns=saved_ns)

    def keep_learned(self, told: Calibration, *, saved_ns: int) -> None:
        """Replaces what the daemon has learnt.

        Raises:
            StoreError: the disk refused.
        """
        write(self._folder / LEARNED, told, saved_ns=saved_ns)
        self._is_kept = True

    def forget(self) -> list[Path]:
        """Removes both files; the ones that were there.

        Raises:
            StoreError: the disk refused.
        """
        found = [self._folder / name for name in (CALIBRATION, LEARNED)]
        gone = [path for path in found if path.exists()]
        try:
            for path in gone:
                path.unlink()
        except OSError as error:
            raise _refused(error.filename, error) from error
        return gone


def read(path: Path) -> Calibration:
    """What the file holds; one that is damaged is set aside and told in the log."""
    try:
        return parsed(_content(path))
    except FileNotFoundError:
        return Calibration()
    except OSError as error:
        logger.warning("calibration.unread", extra=facts(file=str(path), reason=error.strerror))
    except ValueError as error:
        aside = path.with_suffix(".damaged")
        logger.warning(
            "calibration.damaged",
            extra=facts(file=str(path), reason=str(error), kept_as=str(aside)),
        )
        _set_aside(path, aside)
    return Calibration()


def _content(path: Path) -> bytes:
    """What a file of the state folder holds, no more than a byte beyond `MOST_BYTES`.

    A pipe or a device under its name would hold the start for ever: it counts as damage.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("is no file")
        return file.read(MOST_BYTES + 1)


def _read_as_guest(path: Path) -> Calibration:
    try:
        return parsed(_content(path))
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError) as error:
        logger.warning("calibration.unread", extra=facts(file=str(path), reason=str(error)))
    return Calibration()


def told(path: Path) -> Calibration:
    """What a file that a person names holds.

    Raises:
        ConfigError: it cannot be read, or is none of ours: with every mistake.
    """
    try:
        with path.open("rb") as file:
            return parsed(file.read(MOST_BYTES + 1))
    except OSError as error:
        why = f"cannot be read: {error.strerror}; look as the agent's user"
        raise ConfigError([why], file=str(path)) from error
    except ValueError as error:
        fix = "expected is what `heatpool-agent calibrate show --json` prints"
        raise ConfigError([*str(error).split("\n"), fix], file=str(path)) from error


def parsed(data: bytes) -> Calibration:
    """The document as records.

    Raises:
        ValueError: it is not ours, with every mistake on its own line.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES} bytes")
    # A ValidationError and a DecodeError are ValueErrors.
    try:
        document = msgspec.json.decode(data, type=Document)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if document.schema != SCHEMA:
        raise ValueError(f"schema: is {document.schema!r}, must be {SCHEMA!r}")
    found = [
        f"coefficients[{at}].{mistake}"
        for at, one in enumerate(document.coefficients)
        for mistake in mistakes(one)
    ]
    found += [
        f"learners[{at}]: {why}" for at, one in enumerate(document.learners) for why in _odd(one)
    ]
    if found:
        raise ValueError("\n".join(found))
    return Calibration(coefficients=document.coefficients, learners=document.learners)


def write(path: Path, content: Calibration, *, saved_ns: int) -> None:
    """Puts the file there for its owner alone, whole or not at all.

    Raises:
        StoreError: the disk refused.
    """
    document = Document(
        schema=SCHEMA,
        saved_ns=saved_ns,
        coefficients=content.coefficients,
        learners=content.learners,
    )
    try:
        whole_file.put(path, msgspec.json.encode(document))
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: object, error: OSError) -> StoreError:
    return StoreError(f"{path}: {error.strerror}; look at the disk, and at the folder's owner")


def _set_aside(path: Path, aside: Path) -> None:
    try:
        os.replace(path, aside)
    except OSError as error:
        logger.warning("calibration.stays", extra=facts(file=str(path), reason=error.strerror))


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells one file from the next of the same name."""
    try:
        told: Any = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_ino


def _odd(learner: Learner) -> list[str]:
    """Why a learner cannot go on; empty: it can."""
    if learner.kind not in NAMES:
        return [f"kind: is {learner.kind!r}"]
    size, inputs = len(NAMES[learner.kind]), len(INPUTS[learner.kind])
    sums = (*learner.slow, *learner.fast)
    sizes = {len(one.row) for one in sums} | {len(one.products) for one in sums}
    sizes |= {len(line) for one in sums for line in one.products}
    sizes |= {len(learner.prior.means), len(learner.prior.means_u)}
    is_paired = len(learner.slow) == len(learner.fast) == len(learner.exponents) > 0
    ranges = {len(learner.lows), len(learner.highs)} | (
        {len(learner.still.inputs)} if learner.still is not None else set()
    )
    is_ranged = ranges <= {inputs} or (not learner.count and ranges <= {0, inputs})
    if sizes != {size} or not is_paired or not is_ranged or min(learner.prior.means_u) <= 0:
        return ["its sums do not fit together"]
    is_counted = learner.count >= 0 and learner.still_count >= 0 and learner.judged.count >= 0
    is_placed = abs(learner.centre) <= MOST and 0 <= learner.scatter_square <= MOST * MOST
    is_told = is_counted and is_placed and all(_is_possible(one) for one in sums)
    if not is_told or not _is_prior(learner.prior):
        return ["holds figures that no lesson leaves"]
    if not all(0 < one <= 4 for one in learner.exponents):
        return ["exponents: must be above 0 and at most 4"]
    return []


def _is_possible(sums: Sums) -> bool:
    products = (one for line in sums.products for one in line)
    told = (*sums.row, *products, sums.pairs, sums.last)
    is_small = all(abs(one) <= MOST_SUM for one in told)
    is_counted = 0 <= sums.count <= MOST and 0 <= sums.squares <= MOST_SUM
    return is_small and is_counted and (sums.count > 0 or sums.squares == 0)


def _is_prior(prior: Prior) -> bool:
    is_known = all(1 / MOST <= one <= MOST for one in prior.means_u)
    return is_known and all(abs(one) <= MOST for one in (*prior.means, prior.low))
