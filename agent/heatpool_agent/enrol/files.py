"""The identity of a site on disk: there as a whole, or not at all, and for its owner alone.

Key and chain, the CA and the place go together. What replaces them is first written as one file,
whose name is the promise; only then the three are, so that no kill leaves a mixture of two sites.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from heatpool.errors import StoreError, WireError
from heatpool.sample import SiteId
from heatpool_agent.core import certificate
from heatpool_agent.core.certificate import Certificate
from heatpool_agent.enrol.mark import CA, NAMES, PLACE, SITE, WHOLE, Mark
from heatpool_agent.enrol.mark import JOIN_AGAIN as JOIN_AGAIN
from heatpool_agent.enrol.mark import folder_of as folder_of
from heatpool_agent.enrol.mark import mark as mark
from heatpool_agent.ports import Identity

# A key that waits for its certificate, such as one in the queue of approvals.
ASKING = "asking.pem"
_LOCK = "lock"
SCHEMA = "heatpool.place/1"
FOLDER_MODE, FILE_MODE = 0o700, 0o600
_TRIES = 5
_AS_OWNER = "run this as the user who runs the agent, or as root"
_BEGIN_CERTIFICATE = "-----BEGIN CERTIFICATE-----"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a site was enrolled: as whom, where to send, and when to renew."""

    site_id: str
    grpc: str  # host:port
    renew_after_ns: int
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A site's identity as it was read from disk."""

    place: Place
    identity: Identity
    certificate: Certificate

    @property
    def site_id(self) -> SiteId:
        """Who this site is."""
        return SiteId(self.place.site_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """What makes up an identity, as text."""

    key_pem: str = field(repr=False)
    chain_pem: str
    ca_pem: str
    place: Place


def load(state: Path) -> Enrolled | None:
    """The identity of a site; None: it has not joined.

    Raises:
        StoreError: there is one that cannot be used, with what mends it.
    """
    return seen(state)[1]


def seen(state: Path) -> tuple[Mark, Enrolled | None]:
    """The same, with the mark that it had when it was read.

    Raises:
        StoreError: as `load`.
    """
    for _ in range(_TRIES):
        before = mark(state)
        texts = _texts(folder_of(state))
        if mark(state) == before:
            break
    return before, None if texts is None else _enrolled(folder_of(state), texts)


def keep(state: Path, papers: Papers) -> None:
    """Replaces the identity, and lets go of the key that waited.

    Raises:
        StoreError: it cannot be written; the old one is as it was.
    """
    place = msgspec.json.encode(papers.place).decode()
    texts = {SITE: papers.key_pem + papers.chain_pem, CA: papers.ca_pem, PLACE: place}
    folder = make_folder(state)
    with _refusals(folder), _locked(folder):
        write(folder / WHOLE, json.dumps(texts))
        _finish(folder)
        (folder / ASKING).unlink(missing_ok=True)


def mend(state: Path) -> None:
    """Ends what a kill interrupted; to be called by whoever owns the files.

    Raises:
        StoreError: it cannot be written.
    """
    folder = folder_of(state)
    if (folder / WHOLE).exists():
        with _refusals(folder), _locked(folder):
            _finish(folder)


def forget(state: Path) -> bool:
    """Takes the identity away, and nothing else; whether there was one.

    Raises:
        StoreError: it cannot be removed.
    """
    folder = folder_of(state)
    if not folder.exists():
        return False
    with _refusals(folder), _locked(folder):
        with suppress(StoreError):  # a promise that nobody can read is none
            _finish(folder)
        was_there = any((folder / name).exists() for name in (PLACE, WHOLE))
        # The place before the rest, which is no identity without it.
        for name in (WHOLE, PLACE, SITE, CA, ASKING):
            (folder / name).unlink(missing_ok=True)
        _sync(folder)
    return was_there


def become_owner(state: Path) -> None:
    """Lets root go on as whom the state folder belongs to, for good.

    The agent could not read what root writes; and root must not write where somebody else may
    have laid a link.
    """
    if os.geteuid() == 0 and state.exists() and (owner := state.stat()).st_uid:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def make_folder(state: Path) -> Path:
    """The folder of the identity, made where it is not there, closed to others.

    Raises:
        StoreError: it cannot be.
    """
    folder = folder_of(state)
    with _refusals(folder):
        # The state folder, too: the mode of mkdir is not for the parents that it makes.
        state.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        folder.chmod(FOLDER_MODE)
    return folder


def write(path: Path, text: str) -> None:
    """Replaces one file, on the disk when this returns; OSError where it cannot be."""
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(aside, flags, FILE_MODE), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _finish(folder: Path) -> None:
    """Gives the three files what was promised; a second time changes nothing."""
    promised = _promised(folder)
    if promised is None:
        return
    for name in NAMES:
        write(folder / name, promised[name])
    (folder / WHOLE).unlink(missing_ok=True)
    _sync(folder)


def _promised(folder: Path) -> Mapping[str, str] | None:
    try:
        found = msgspec.json.decode((folder / WHOLE).read_bytes(), type=dict[str, str])
        return {name: found[name] for name in NAMES}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.DecodeError, KeyError) as error:
        raise _unusable(folder / WHOLE, error) from error


def _texts(folder: Path) -> Mapping[str, str] | None:
    try:
        if not folder.is_dir() or not any((folder / name).exists() for name in (WHOLE, PLACE)):
            return None
    except OSError as error:
        raise _unusable(folder, error) from error
    promised = _promised(folder)
    if promised is not None:
        return promised
    found = {}
    for name in NAMES:
        try:
            found[name] = (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(folder / name, error) from error
    return found


def _enrolled(folder: Path, texts: Mapping[str, str]) -> Enrolled:
    try:
        place = msgspec.json.decode(texts[PLACE], type=Place)
        key_pem, begin, rest = texts[SITE].partition(_BEGIN_CERTIFICATE)
        chain_pem = begin + rest
        own = certificate.first(chain_pem)
        identity = Identity(
            root_pem=texts[CA].encode(),
            key_pem=key_pem.encode(),
            chain_pem=chain_pem.encode(),
        )
    except (KeyError, msgspec.DecodeError, WireError) as error:
        raise _unusable(folder, error) from error
    if place.schema != SCHEMA:
        raise _unusable(folder / PLACE, ValueError(f"its schema is {place.schema!r}"))
    return Enrolled(place=place, identity=identity, certificate=own)


def _unusable(path: Path, error: Exception) -> StoreError:
    why = error.strerror if isinstance(error, OSError) else error
    if isinstance(error, PermissionError):
        return StoreError(f"{path}: {why}; {_AS_OWNER}")
    return StoreError(f"{path}: {why}; {JOIN_AGAIN}")


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreError(f"{error.filename or folder}: {error.strerror}; {_AS_OWNER}") from error
    except OSError as error:
        where = error.filename or folder
        raise StoreError(f"{where}: {error.strerror}; look at the disk and the owner") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time: the daemon renews while a person may join again."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / _LOCK, flags, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
