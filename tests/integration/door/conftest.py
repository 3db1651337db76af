"""The whole aggregator on loopback sockets, behind TLS with certificates of the test's own CA."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from integration.door import pki

from heatpool.process.settings import convert
from heatpool.sample import SiteId
from heatpool_aggregator import app
from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.enrolment import ApiToken, UserRecord
from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.identity.tokens import new_api_token
from heatpool_aggregator.ports import Audit, Identities
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities

# gRPC joins its poller thread when its last object goes, wherever that happens: keep it up instead.
grpc.aio.init_grpc_aio()

USERS = (
    ("person/ada", Role.ADMIN, ""),
    ("machine/scada", Role.OPERATOR, ""),
    ("person/cleo", Role.SETTLEMENT, ""),
    ("person/rob", Role.READ_ONLY, ""),
    ("person/nora", Role.SITE_OWNER, "north"),
    ("person/sam", Role.SITE_OWNER, "south"),
)
SITES = (("e1", "north"), ("e2", "south"), ("e3", "south"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A running aggregator, its CA, and its identities as another process sees them."""

    address: str
    http: str
    ca: pki.Ca
    folder: Path
    identities: Identities
    audit: Audit
    token: str

    def caller(self, name: str, **change: Any) -> pki.Identity:
        """The certificate of `site/e1`, `person/ada`, ..."""
        return self.ca.caller(f"spiffe://heatpool/{name}", **change)

    @asynccontextmanager
    async def channel(
        self, who: pki.Identity | None, *, ca_pem: bytes | None = None
    ) -> AsyncIterator[grpc.aio.Channel]:
        """A connection of its own."""
        credentials = grpc.ssl_channel_credentials(
            ca_pem or self.ca.pem, who.key if who else None, who.chain if who else None
        )
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(self.address, credentials, options) as channel:
            yield channel

    @asynccontextmanager
    async def as_(self, name: str) -> AsyncIterator[grpc.aio.Channel]:
        """A connection with this one's good certificate."""
        async with self.channel(self.caller(name)) as channel:
            yield channel


def settings(tls: dict[str, str]) -> Config:
    """Two virtual sources; e3 belongs to none."""
    terms = {"id": "HPA-1", "price_eur_mwh": "30"}
    source = {"kind": "greenhouse", "agreement": terms}
    tree: dict[str, Any] = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "tls": tls,
        "virtual_source": [
            {"id": "both", "member": [{"site_id": "e1"}, {"site_id": "e2"}], **source},
            {"id": "other", "member": [{"site_id": "e4"}], **source},
        ],
    }
    return convert(tree, Config)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """The aggregator, with sites and users from elsewhere taken in."""
    ca, clock = pki.Ca(), SystemClock()
    tls = pki.write(tmp_path, ca, ca.server("127.0.0.1", "localhost"))
    async with (
        open_identities(tmp_path, trust_domain="heatpool", clock=clock) as identities,
        open_audit(tmp_path) as audit,
        app.serving(settings(tls), tmp_path) as addresses,
    ):
        for site_id, owner in SITES:
            await identities.add_site(SiteId(site_id), owner)
        for name, role, tenant in USERS:
            record = UserRecord(
                name=name,
                role=role,
                tenant=tenant,
                added_ns=clock.now_ns(),
                revoked_ns=None,
                expires_ns=None,
            )
            await identities.add_user(record, None)
        yield Rig(
            address=addresses["grpc"],
            http=addresses["http"],
            ca=ca,
            folder=tmp_path,
            identities=identities,
            audit=audit,
            token=await _token(identities, clock.now_ns()),
        )


async def _token(identities: Identities, now_ns: int) -> str:
    """Ada's, for HTTPS."""
    secret = new_api_token()
    token = ApiToken(
        token_id=secret.token_id,
        name="person/ada",
        role=Role.ADMIN,
        created_ns=now_ns,
        expires_ns=now_ns + 3600 * 10**9,
    )
    await identities.add_api_token(token, secret.sha256)
    return secret.text
