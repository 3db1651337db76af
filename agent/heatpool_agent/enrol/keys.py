"""Keys from a short-lived child: the library that makes them stays out of this process."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heatpool.errors import UplinkError
from heatpool_agent.enrol.files import Enrolled, Papers, Place

_CHILD = "heatpool_agent.enrol.child"
# It imports two large libraries and waits for one answer at most.
_MOST_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A key and the request that it signs; `key_sha256` is what a person compares."""

    key_pem: str = field(repr=False)
    csr_pem: str
    key_sha256: str


def request(key_pem: str = "") -> Request:
    """A new key, or the one given, with its signing request; blocking.

    Raises:
        UplinkError: the child failed, with its last words.
    """
    return Request(**_asked("request", {"key_pem": key_pem}))


def renew(enrolled: Enrolled, target: str) -> Papers:
    """The identity after this one, on a new key, from the aggregator at `host:port`.

    Blocking; nothing is written.

    Raises:
        UplinkError: the aggregator cannot be reached or refused; the present one is as it was.
    """
    identity, place = enrolled.identity, enrolled.place
    found = _asked(
        "renew",
        {
            "target": target,
            "root_pem": identity.root_pem.decode(),
            "key_pem": identity.key_pem.decode(),
            "chain_pem": identity.chain_pem.decode(),
        },
    )
    return Papers(
        key_pem=found["key_pem"],
        chain_pem=found["chain_pem"],
        ca_pem=found["ca_pem"],
        place=Place(site_id=place.site_id, grpc=place.grpc, renew_after_ns=found["renew_after_ns"]),
    )


def _asked(verb: str, document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", _CHILD, verb],
            input=json.dumps(document),
            capture_output=True,
            text=True,
            timeout=_MOST_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        # Its repr would show what was handed in; a time-out's own text does not.
        raise UplinkError(f"no key could be made: {type(error).__name__}") from None
    if child.returncode == 0:
        found: dict[str, Any] = json.loads(child.stdout)
        return found
    words = [line for line in child.stderr.strip().splitlines() if line] or ["no word"]
    raise UplinkError(words[-1])
