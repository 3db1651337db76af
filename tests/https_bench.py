"""The web port with TLS over a filled board, with a CA, people and a tenant: for several suites."""

import asyncio
import importlib.util
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from heatpool.sample import SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Agreement as Terms
from heatpool_aggregator.config import Member, TlsFiles, VirtualSource
from heatpool_aggregator.core.enrolment import ApiToken, JoinToken, UserRecord
from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.exports import prometheus
from heatpool_aggregator.identity import authority, places, server
from heatpool_aggregator.identity.authority import Authority
from heatpool_aggregator.identity.joining import Joining
from heatpool_aggregator.identity.tokens import Secret, new_api_token, new_join_token
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.stores.audit import SqliteAudit, open_audit
from heatpool_aggregator.stores.identities import SqliteIdentities, open_identities
from heatpool_aggregator.web.app import serve
from heatpool_aggregator.web.secured import Secured

DAY_NS = 86_400 * 10**9
FIRST_S = 60.0
DOMAIN = "heatpool"
GRPC = "0.0.0.0:8443"
# The whole of one virtual source and one site of another belong to this tenant.
TENANT = "north"
OWN_SOURCE = "lido-hall"
OWN_SITES = (*(f"lido-hall-{number}" for number in range(1, 5)), "altstadt-loop-1")
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _filled() -> Any:
    path = Path(__file__).parent / "data" / "filled_board.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filled = _filled()


@dataclass(frozen=True, slots=True)
class Bench:
    """A running server with what stands behind it."""

    address: str
    session: aiohttp.ClientSession
    context: ssl.SSLContext
    board: Board
    identities: SqliteIdentities
    audit: SqliteAudit
    clock: Any
    ca: Authority
    files: places.Places

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    async def join_token(self, site_id: str = "e1", **change: Any) -> Secret:
        """A fresh token for a site."""
        secret, now_ns = new_join_token(), self.clock.now_ns()
        uses_count = change.pop("uses_count", 1)
        token = JoinToken(
            token_id=secret.token_id,
            site_id=SiteId(site_id),
            owner=TENANT,
            uses_count=uses_count,
            uses_left=uses_count,
            created_ns=now_ns,
            expires_ns=change.pop("expires_ns", now_ns + DAY_NS),
            is_approval_needed=change.pop("is_approval_needed", False),
        )
        await self.identities.add_join_token(token, secret.sha256)
        return secret

    async def api_token(self, name: str, role: Role, tenant: str = "") -> str:
        """Somebody's API token, for a day."""
        now_ns = self.clock.now_ns()
        user = UserRecord(
            name=name, role=role, tenant=tenant, added_ns=now_ns, revoked_ns=None, expires_ns=None
        )
        await self.identities.add_user(user, None)
        secret = new_api_token()
        token = ApiToken(
            token_id=secret.token_id,
            name=name,
            role=role,
            created_ns=now_ns,
            expires_ns=now_ns + DAY_NS,
        )
        await self.identities.add_api_token(token, secret.sha256)
        return secret.text

    async def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """Status and JSON."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self.session.get(path, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def raw(self, data: bytes, *, wait_s: float = 5.0) -> bytes:
        """What comes back for these bytes over TLS, until the server hangs up or is silent again.

        Its first word is waited for as long as a busy machine may take, its next one `wait_s`.
        """
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=self.context, server_hostname="localhost"
        )
        answer = b""
        try:
            writer.write(data)
            while True:
                async with asyncio.timeout(wait_s if answer else FIRST_S):
                    part = await reader.read(65536)
                if not part:
                    break
                answer += part
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()
        return answer


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Bench]:
    """The server on a free port of loopback, its state in `folder`."""
    clock = filled.StoppedClock()
    clock.at_ns = filled.WallClock().now_ns()  # certificates are checked by the machine's clock
    board = Board()
    filled.fill(board, clock.now_ns())
    files = places.places(folder)
    await _make_like_the_first(folder, clock)
    ca = await asyncio.to_thread(authority.load, files)
    own = TlsFiles(cert=files.server, key=files.server_key, ca=files.ca, trust_domain=DOMAIN)
    async with (
        open_store("sqlite:", folder) as store,
        open_identities(folder, trust_domain=DOMAIN, clock=clock) as identities,
        open_audit(folder) as audit,
    ):
        joining = Joining(
            authority=ca, identities=identities, audit=audit, clock=clock, trust_domain=DOMAIN
        )
        secured = Secured(
            files=own, identities=identities, audit=audit, joining=joining, grpc_address=GRPC
        )
        context = ssl.create_default_context(cadata=ca.pem)
        async with (
            serve(
                _settings(),
                board,
                store,
                clock,
                render_metrics=prometheus.render,
                secured=secured,
            ) as address,
            aiohttp.ClientSession(
                f"https://localhost:{address.rpartition(':')[2]}",
                connector=aiohttp.TCPConnector(ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
        ):
            yield Bench(address, session, context, board, identities, audit, clock, ca, files)


_FIRST: dict[str, bytes] = {}  # files of a fresh state folder, by their names in it


async def _make_like_the_first(folder: Path, clock: Any) -> None:
    """CA, server certificate and empty files of stores; making them anew costs 50 disk syncs."""
    if not _FIRST:
        await asyncio.to_thread(_certificates, places.places(folder), clock.now_ns())
        async with (
            open_store("sqlite:", folder),
            open_identities(folder, trust_domain=DOMAIN, clock=clock),
            open_audit(folder),
        ):
            pass
        _FIRST.update(await asyncio.to_thread(_files, folder))
    else:
        await asyncio.to_thread(_copy, folder)


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _copy(folder: Path) -> None:
    places.make_folder(places.places(folder).folder)
    for name, data in _FIRST.items():
        (folder / name).write_bytes(data)


def _certificates(files: places.Places, now_ns: int) -> None:
    places.make_folder(files.folder)
    ca = authority.make(files, now_ns=now_ns)
    server.make(ca, files, ["localhost", "127.0.0.1"], now_ns=now_ns)


def _settings() -> Any:
    from msgspec.structs import replace  # noqa: PLC0415

    sources = tuple(
        VirtualSource(
            id=name,
            kind=kind,
            agreement=Terms(id=f"hpa-{name}-2025", price_eur_mwh=price),
            member=tuple(Member(site_id=f"{name}-{number}") for number in range(1, 5)),
        )
        for name, kind, *_, price in filled.SOURCES
    )
    return replace(filled.settings(), virtual_source=sources)


def csr(
    key: Key | None = None,
    *,
    extensions: Sequence[x509.ExtensionType] = (),
    subject_name: str = "whatever",
) -> bytes:
    """A signing request in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    made = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(Encoding.PEM)
