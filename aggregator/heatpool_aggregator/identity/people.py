"""Keys and certificates of people and machines, made here and carried to them in one file."""

from dataclasses import dataclass, field

from heatpool_aggregator.core.enrolment import Issued
from heatpool_aggregator.identity import authority
from heatpool_aggregator.identity.authority import USER_LIFE, Authority


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """What somebody calls us with: `pem` is key, certificate and CA, for `heatpool --identity`."""

    issued: Issued
    pem: bytes = field(repr=False)


def make(ca: Authority, name: str, *, trust_domain: str, now_ns: int) -> Papers:
    """A new key and a certificate of a year for `person/anna`."""
    key = authority.new_key()
    issued = ca.sign_holder(
        key.public_key(), name, trust_domain=trust_domain, life=USER_LIFE, now_ns=now_ns
    )
    pem = authority.key_pem(key) + issued.chain_pem.encode() + ca.pem.encode()
    return Papers(issued=issued, pem=pem)
