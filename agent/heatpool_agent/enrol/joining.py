"""How a newcomer gets its first certificate: the CA by its hash, the token to that CA alone."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from heatpool.errors import HeatpoolError, WireError
from heatpool_agent.core import certificate
from heatpool_agent.enrol import https
from heatpool_agent.enrol.files import Papers, Place
from heatpool_agent.enrol.https import Answer, Door, Unreachable
from heatpool_agent.enrol.keys import Request

HASH_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
TOKEN_PATTERN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
_CA_PATH, _JOIN_PATH = "/v1/ca", "/v1/join"
_OK, _ACCEPTED, _MISSING, _BUSY = 200, 202, 404, (429, 503)
_WAIT_S = 5.0
_WAIT_MOST_S = 60.0
FOR_APPROVAL = "waits for approval"
_EVERYWHERE = ("", "0.0.0.0", "::", "*")


class JoinRefused(HeatpoolError):
    """The aggregator said no; its own words say why and what mends it."""


class HashMismatch(HeatpoolError):
    """Another CA than the one whose hash we were given: the token stays here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A newcomer's wish."""

    door: Door
    token: str = field(repr=False)
    ca_hash: str
    site_id: str
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Somebody has to approve; or the aggregator is busy. Ask again after so long."""

    wait_s: float
    told: str


def trusted(at: Door, ca_hash: str) -> ssl.SSLContext:
    """A context that trusts the CA with this hash; blocking.

    Raises:
        Unreachable: nobody answers.
        HashMismatch: another CA does.
        HeatpoolError: what answers is no aggregator with certificates.
    """
    answer = https.ask(at, "GET", _CA_PATH, context=https.blind())
    if answer.status != _OK:
        raise HeatpoolError(
            f"{at}{_CA_PATH}: status {answer.status}; give the web port of an aggregator with "
            "certificates, in this version or a later one"
        )
    try:
        ders = certificate.blocks(_ca_pem(answer))
        found = {f"sha256:{certificate.read(der).key_sha256}": der for der in ders}
    except WireError as error:
        raise HeatpoolError(f"{at}{_CA_PATH}: answers with no CA certificate: {error}") from error
    if ca_hash in found:
        return https.trusting(found[ca_hash])
    raise HashMismatch(
        f"{at}: its CA has the hash {', '.join(found)}, and --ca-hash says {ca_hash}: somebody "
        "answers in its place, or the hash is another aggregator's; the token was not sent. "
        "Compare with what `heatpool-aggregator token new` prints there"
    )


def join(ask: Ask, context: ssl.SSLContext) -> Papers | Wait:
    """The identity of this site, or that it has to wait; blocking.

    Raises:
        JoinRefused: the token, the site id or the key is not taken.
        Unreachable: nobody answers any more.
        HeatpoolError: the answer cannot be used.
    """
    body = {"token": ask.token, "csr_pem": ask.request.csr_pem, "site_id": ask.site_id}
    answer = https.ask(ask.door, "POST", _JOIN_PATH, context=context, body=body)
    is_accepted = answer.status == _ACCEPTED
    if is_accepted or answer.status in _BUSY:
        wait_s = min(_WAIT_MOST_S, answer.wait_s or _WAIT_S)
        return Wait(wait_s=wait_s, told=FOR_APPROVAL if is_accepted else _reason(answer))
    if answer.status != _OK:
        raise JoinRefused(f"{ask.door}: {_reason(answer)}")
    return _papers(ask, answer)


def waited(
    ask: Ask,
    context: ssl.SSLContext,
    *,
    told: Callable[[str], None],
    sleep: Callable[[float], None],
) -> Papers:
    """The identity, however long it takes until somebody approves; raises as `join`.

    An aggregator that goes away meanwhile is waited for, too.
    """
    while True:
        try:
            found = join(ask, context)
        except Unreachable as error:
            told(str(error))
            sleep(_WAIT_S)
            continue
        if isinstance(found, Papers):
            return found
        told(found.told)
        sleep(found.wait_s)


def _ca_pem(answer: Answer) -> str:
    text = answer.document().get("ca_pem") or answer.body.decode("ascii", "replace")
    return str(text)


def _reason(answer: Answer) -> str:
    document = answer.document()
    told = document.get("detail") or document.get("title") or "it gives no reason"
    if answer.status == _MISSING:
        return f"{told} (status {_MISSING}); is this the web port of an aggregator?"
    return str(told)


def _papers(ask: Ask, answer: Answer) -> Papers:
    document = answer.document()
    try:
        chain_pem, ca_pem = str(document["chain_pem"]), str(document["ca_pem"])
        own = certificate.first(chain_pem)
        certificate.blocks(ca_pem)
        place = Place(
            site_id=ask.site_id,
            grpc=_reachable(str(document["grpc"]), ask.door, https.trusting(ca_pem)),
            renew_after_ns=int(document["renew_after_ns"]),
        )
    except (KeyError, ValueError, TypeError, OSError, WireError) as error:
        raise HeatpoolError(f"{ask.door}: its answer cannot be used: {error}") from error
    if own.key_sha256 != ask.request.key_sha256 or own.site_ids != (ask.site_id,):
        raise HeatpoolError(
            f"{ask.door}: answers with a certificate for {own.site_ids} and not for our key; "
            "tell whoever runs the aggregator"
        )
    return Papers(key_pem=ask.request.key_pem, chain_pem=chain_pem, ca_pem=ca_pem, place=place)


def _reachable(address: str, at: Door, context: ssl.SSLContext) -> str:
    """Where to send: what the aggregator says, or the same port where it answered us.

    It knows the address on which it listens, and not the name by which we get there; only the
    latter may be in its certificate.
    """
    told, _, port = address.rpartition(":")
    if not 0 < int(port) < 65_536:
        raise ValueError(f"no port in {address!r}")
    found = told.strip("[]")
    is_known = found not in (*_EVERYWHERE, at.host) and https.greets(found, int(port), context)
    found = found if is_known else at.host
    return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"
