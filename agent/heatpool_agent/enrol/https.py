"""HTTPS to an aggregator's web port by one CA alone; plain HTTP and redirects are never followed.

No proxy of the environment and no CA of the system is asked: who is trusted, the caller says.
"""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from heatpool.errors import ConfigError, HeatpoolError

TIMEOUT_S = 15.0
_MOST_BYTES = 65_536
_PORT = 8080


class Unreachable(HeatpoolError):
    """No answer at all: the network, the address, or nobody listens."""


class Untrusted(HeatpoolError):
    """Who answers is not who we were told to trust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The web port of an aggregator."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; `wait_s` is when to ask again, if it said so."""

    status: int
    body: bytes
    wait_s: float | None

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; empty: it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def door(url: str) -> Door:
    """The door behind a url such as https://HOST:8080.

    Raises:
        ConfigError: it is none, or not HTTPS.
    """
    try:
        parts = urlsplit(url if "//" in url else f"https://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme == "http":
        raise ConfigError(
            [f"URL: is {url!r}: a token over plain HTTP could be read by anybody; say https://"]
        )
    if parts.scheme != "https" or not host or parts.path not in ("", "/") or parts.username:
        raise ConfigError(
            [f"URL: is {url!r}, must be https://HOST:8080, the aggregator's web port"]
        )
    return Door(host=host, port=port or _PORT)


def blind() -> ssl.SSLContext:
    """Trusts whoever answers: for what is checked by its hash, and never for a secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting(ca: bytes | str) -> ssl.SSLContext:
    """Trusts these CAs alone, DER or PEM, and the host's name must stand in the certificate.

    Raises:
        OSError: they are none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    return context


def greets(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Whether whom we trust answers there, by that name; blocking."""
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT_S) as bare,
            context.wrap_socket(bare, server_hostname=host),
        ):
            return True
    except (OSError, UnicodeError):
        return False


def ask(
    at: Door, method: str, path: str, *, context: ssl.SSLContext, body: dict[str, str] | None = None
) -> Answer:
    """One question over a connection of its own; blocking, 15 s a step at most.

    Raises:
        Unreachable: nobody answers.
        Untrusted: somebody else does, or the certificate is for another name.
        HeatpoolError: what answers does not speak HTTPS, or would send us elsewhere.
    """
    line = http.client.HTTPSConnection(at.host, at.port, timeout=TIMEOUT_S, context=context)
    data = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json"} if body else {}
    try:
        line.request(method, path, body=data, headers=headers)
        response = line.getresponse()
        text = response.read(_MOST_BYTES)
    except ssl.SSLCertVerificationError as error:
        raise _untrusted(at, error) from error
    except ssl.SSLError as error:
        raise HeatpoolError(
            f"{at}: no TLS there ({error.reason or error}); give the web port of an aggregator "
            "that has certificates: heatpool-aggregator init makes them"
        ) from error
    except http.client.RemoteDisconnected as error:
        raise Unreachable(
            f"{at}: it hung up; that may be the gRPC port, and `join` asks the web port of the "
            "aggregator: listen.http there, 8080 where nobody changed it"
        ) from error
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise Unreachable(
            f"{at}: {told}; look at address, port and firewall, and whether "
            "heatpool-aggregator runs there and listens beyond its own machine"
        ) from error
    except http.client.HTTPException as error:
        raise HeatpoolError(f"{at}: does not answer as HTTP ({type(error).__name__})") from error
    finally:
        line.close()
    return _checked(at, path, response, text)


def _checked(at: Door, path: str, response: http.client.HTTPResponse, text: bytes) -> Answer:
    if 300 <= response.status < 400:
        raise HeatpoolError(
            f"{at}{path}: would send us elsewhere (status {response.status}), which is not "
            "followed; give the aggregator's own address, not that of a proxy before it"
        )
    wait = response.getheader("Retry-After") or ""
    return Answer(
        status=response.status, body=text, wait_s=float(wait) if wait.isdecimal() else None
    )


def _untrusted(at: Door, error: ssl.SSLCertVerificationError) -> HeatpoolError:
    told = error.verify_message
    if "match" in told.lower():
        return Untrusted(
            f"{at}: its certificate is for other names ({told}); use the name or address that "
            "it was made for, or run there: heatpool-aggregator certificate renew-server "
            f"--host {at.host}"
        )
    if "expired" in told or "not yet valid" in told:
        return Untrusted(f"{at}: {told}; look at the clocks of both machines: timedatectl")
    return Untrusted(
        f"{at}: its certificate is not from the CA that --ca-hash names ({told}): somebody "
        "answers in its place, or it uses a certificate from elsewhere; the token was not sent"
    )
