"""Light agents get certificates as sites do: a key made here, the CA by its hash, a token.

One token of a fleet lets all of them in. What a folder holds is not asked for again; a key is in
it before it is asked about, so that who lost an answer hears it once more.
"""

import asyncio
import hashlib
import logging
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from heatpool.errors import ConfigError, HeatpoolError
from heatpool.process.journal import facts
from heatpool_sim.load.asked import Asked, Newcomers
from heatpool_sim.load.lines import read

logger = logging.getLogger(__name__)

AT_ONCE = 16
ASK_S = 60.0
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_BUSY_S = 5.0
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


async def enrol(asked: Asked) -> int:
    """Sees to a certificate in the folder for every agent; how many had to be asked for.

    Raises:
        HeatpoolError: the aggregator says no, is another one, or is not there.
    """
    newcomers, folder = asked.doors.newcomers, asked.doors.folder
    if newcomers is None or folder is None:
        return 0
    await asyncio.to_thread(folder.mkdir, _FOLDER_MODE, parents=True, exist_ok=True)
    names = [asked.site_id(number) for number in range(asked.agents)]
    missing = await asyncio.to_thread(lambda: [name for name in names if _is_missing(folder, name)])
    if not missing:
        return 0
    joining = _Joining(newcomers, folder, missing)
    await joining.run(asked.progress_s)
    return len(missing)


class _Joining:
    """Some at once until all are in, or one is refused."""

    def __init__(self, newcomers: Newcomers, folder: Path, names: list[str]) -> None:
        self._newcomers, self._folder, self._names = newcomers, folder, names
        self._in_count = 0
        self._refusal: HeatpoolError | None = None
        self._began_s = time.monotonic()

    async def run(self, progress_s: float) -> None:
        """All of them.

        Raises:
            HeatpoolError: one is refused, or nobody answers.
        """
        timeout, url = aiohttp.ClientTimeout(total=ASK_S), self._newcomers.url
        try:
            context = await _trusting(self._newcomers, timeout)
            connector = aiohttp.TCPConnector(ssl=context, limit=AT_ONCE)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                await self._all(session, progress_s)
        except* (aiohttp.ClientError, TimeoutError) as failed:
            raise HeatpoolError(f"{url}: {_first(failed) or 'no answer'}") from None

    async def _all(self, session: aiohttp.ClientSession, progress_s: float) -> None:
        waiting = iter(self._names)
        async with asyncio.TaskGroup() as tasks:
            told = tasks.create_task(self._told(progress_s), name="join-progress")
            async with asyncio.TaskGroup() as workers:
                for number in range(AT_ONCE):
                    workers.create_task(self._some(session, waiting), name=f"join-{number}")
            told.cancel()
        self._tell()
        if self._refusal is not None:
            raise self._refusal

    async def _some(self, session: aiohttp.ClientSession, waiting: Iterator[str]) -> None:
        for name in waiting:
            if self._refusal is not None:
                return
            try:
                await self._one(session, name)
            except HeatpoolError as error:
                # Others hear what they asked for: another token would not let them in again.
                self._refusal = error
                return
            self._in_count += 1

    async def _one(self, session: aiohttp.ClientSession, name: str) -> None:
        key = await asyncio.to_thread(_key, self._folder, name)
        body = {"token": self._newcomers.token, "csr_pem": _request(key), "site_id": name}
        while True:
            async with session.post(
                f"{self._newcomers.url}/v1/join", json=body, allow_redirects=False
            ) as answer:
                found = await _document(answer)
                if answer.status == HTTPStatus.OK:
                    break
                if answer.status not in _BUSY:
                    raise _refused(name, answer.status, found)
                wait_s = float(answer.headers.get("Retry-After") or _BUSY_S)
            await asyncio.sleep(wait_s)
        await asyncio.to_thread(_keep, self._folder, name, key, found)

    async def _told(self, progress_s: float) -> None:
        while True:
            await asyncio.sleep(progress_s)
            self._tell()

    def _tell(self) -> None:
        rate = self._in_count / max(time.monotonic() - self._began_s, 1e-9)
        said = facts(joined=self._in_count, of=len(self._names), joins_per_s=round(rate, 1))
        logger.info("load.joining", extra=said)


async def _trusting(newcomers: Newcomers, timeout: aiohttp.ClientTimeout) -> ssl.SSLContext:
    """Trusts the CA with the hash alone; it may come over a line that trusts nobody."""
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{newcomers.url}/v1/ca", ssl=False, allow_redirects=False) as answer,
    ):
        text = await answer.read()
    try:
        found = {_hash(one): one for one in x509.load_pem_x509_certificates(text)}
    except ValueError:
        found = {}
    if newcomers.ca_hash not in found:
        raise HeatpoolError(
            f"{newcomers.url}: its CA has the hash {', '.join(found) or '(none)'}, --ca-hash says "
            f"{newcomers.ca_hash}: compare with what `heatpool-aggregator token new` prints there"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(
        cadata=found[newcomers.ca_hash].public_bytes(Encoding.PEM).decode()
    )
    return context


def _hash(certificate: x509.Certificate) -> str:
    der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def _is_missing(folder: Path, name: str) -> bool:
    path = folder / f"{name}.pem"
    if not path.exists():
        return True
    try:
        ends = x509.load_pem_x509_certificate(read(path)).not_valid_after_utc
    except ValueError as error:
        raise ConfigError([f"{path}: holds no certificate: remove it"]) from error
    if ends <= datetime.now(UTC):
        raise ConfigError(
            [
                f"{path}: ended at {ends:%Y-%m-%d %H:%M} UTC, and a fleet's token is for new "
                "sites: say another --site-prefix, or join them each by a token of its own"
            ]
        )
    return False


def _key(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """The site's key, or the one that waits for its certificate since an earlier run."""
    path = _asking(folder, name)
    if path.exists():
        with suppress(ValueError):
            key = load_pem_private_key(path.read_bytes(), password=None)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, _pem(key))
    return key


def _keep(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, found: dict[str, Any]) -> None:
    try:
        chain_pem, ca_pem = str(found["chain_pem"]), str(found["ca_pem"])
    except KeyError as error:
        raise HeatpoolError(f"site {name}: the answer has no {error}") from error
    _write(folder / "ca.pem", ca_pem)
    _write(folder / f"{name}.pem", _pem(key) + chain_pem)
    _asking(folder, name).unlink(missing_ok=True)


def _asking(folder: Path, name: str) -> Path:
    return folder / f".{name}.asking"


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _write(path: Path, text: str) -> None:
    """Whole, and for its owner alone; several may write the same file."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "w") as file:
        file.write(text)
    aside.replace(path)


async def _document(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        found = await answer.json(content_type=None)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _refused(name: str, status: int, found: dict[str, Any]) -> HeatpoolError:
    if status == HTTPStatus.ACCEPTED:
        return HeatpoolError(
            f"site {name}: waits for approval: a load needs a token that was made without --approve"
        )
    return HeatpoolError(f"site {name}: {found.get('detail') or f'status {status}'}")


def _first(failed: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
