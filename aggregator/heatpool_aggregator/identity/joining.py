"""Who joins gets a certificate, who has one a new one; each is in the audit log beforehand."""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta

from heatpool_aggregator.core.enrolment import Issued, JoinAsk, Waiting
from heatpool_aggregator.core.principal import SITE, Principal, uri_of
from heatpool_aggregator.identity import certificates, requests
from heatpool_aggregator.identity.authority import SITE_LIFE, USER_LIFE, Authority
from heatpool_aggregator.ports import Audit, Clock, Identities


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewedCertificate:
    """A certificate and what goes with it; `renew_after_ns` by our clock."""

    chain_pem: str
    ca_pem: str
    renew_after_ns: int


class Joining:
    """Signs for those whom `identities` knows or lets in."""

    def __init__(
        self,
        *,
        authority: Authority,
        identities: Identities,
        audit: Audit,
        clock: Clock,
        trust_domain: str,
        site_life: timedelta = SITE_LIFE,
    ) -> None:
        self.authority = authority
        self._identities = identities
        self._audit = audit
        self._clock = clock
        self._trust_domain = trust_domain
        self._site_life = site_life

    async def ca_pem(self) -> str:
        """The CAs that newcomers are to trust."""
        return (await asyncio.to_thread(self.authority.current)).pem

    async def join(self, ask: JoinAsk, csr_pem: bytes) -> RenewedCertificate | Waiting:
        """The certificate of a site that has a token for itself, or that it has to wait.

        `ask.key_sha256` is set here. The same key with the same token hears the same answer.

        Raises:
            JoinRefused: neither.
            StoreError: neither, and nothing is spent unless it can be had by asking again.
        """
        name = f"{SITE}/{ask.site_id}"
        # RSA takes its time; and so does signing, where thousands join at once.
        key = await asyncio.to_thread(
            requests.read_pem, csr_pem, uri=uri_of(self._trust_domain, name)
        )
        ask = JoinAsk(
            token=ask.token,
            site_id=ask.site_id,
            key_sha256=requests.key_sha256(key),
            peer=ask.peer,
        )
        found = await self._identities.admit(ask)
        if isinstance(found, Waiting):
            if found.is_new:
                await self._tell("site.wait", ask)
            return found
        action = "site.enrol_again"
        if not isinstance(found, Issued):
            signed = await asyncio.to_thread(self._sign, key, name)
            found = await self._identities.enrol(ask, signed)
            action = "site.enrol"
        # Told before it is handed out: nobody has a certificate that the log knows nothing of.
        await self._tell(action, ask, serial=found.serial)
        return self._handed_out(found)

    async def sign_renewal(self, principal: Principal, csr_der: bytes) -> RenewedCertificate:
        """Another certificate for somebody who proved who it is, on the key in the request.

        Raises:
            JoinRefused: the request cannot be signed, or there were too many.
            NotThere: the caller is unknown or revoked by now.
            StoreError: it was not recorded, so it is not handed out.
        """
        key = await asyncio.to_thread(
            requests.read_der, csr_der, uri=uri_of(self._trust_domain, principal.name)
        )
        signed = await asyncio.to_thread(self._sign, key, principal.name)
        await self._identities.renewed(signed)
        await self._audit.append(
            who=principal.name,
            action="certificate.renew",
            subject=principal.name,
            detail=json.dumps({"serial": signed.serial}),
            at_ns=self._clock.now_ns(),
        )
        return self._handed_out(signed)

    def _sign(self, key: requests.PublicKey, name: str) -> Issued:
        self.authority = self.authority.current()
        return self.authority.sign_holder(
            key,
            name,
            trust_domain=self._trust_domain,
            life=self._site_life if name.startswith(f"{SITE}/") else USER_LIFE,
            now_ns=self._clock.now_ns(),
        )

    def _handed_out(self, issued: Issued) -> RenewedCertificate:
        return RenewedCertificate(
            chain_pem=issued.chain_pem,
            ca_pem=self.authority.pem,
            renew_after_ns=certificates.renew_after_ns(issued.issued_ns, issued.expires_ns),
        )

    async def _tell(self, action: str, ask: JoinAsk, **more: str) -> None:
        name = f"{SITE}/{ask.site_id}"
        detail = {
            "token_id": ask.token.partition(".")[0],
            "key_sha256": ask.key_sha256.hex(),
            "peer": ask.peer,
            **more,
        }
        await self._audit.append(
            who=name,
            action=action,
            subject=name,
            detail=json.dumps(detail),
            at_ns=self._clock.now_ns(),
        )
