"""A web port that answers as an aggregator's does, and notes what it was asked; misbehaves on wish.

The real one answers in tests/e2e/test_enrol.py; what no real one does is asked of this.
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from unit.agent.certificates import Ca, key_pem, new_key

TOKEN = "abc123.0123456789abcdef"
Answer = tuple[int, dict[str, str], bytes]


@dataclass(slots=True)
class Door:
    """What a server answers, by path, and all that came to it."""

    ca: Ca
    port: int = 0
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    answers: dict[str, Callable[[bytes], Answer]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def has_seen(self, text: str) -> bool:
        return any(text.encode() in body for _, body in self.asked)


def told(status: int, **document: Any) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode()


def enrolled(ca: Ca, body: bytes, *, site_id: str = "", other_key: bool = False) -> Answer:
    """What a join is answered with, as agreed."""
    wish = json.loads(body)
    key = x509.load_pem_x509_csr(wish["csr_pem"].encode()).public_key()
    if other_key:
        key = new_key().public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return told(
        200,
        chain_pem=ca.site(key, site_id or wish["site_id"]),
        ca_pem=ca.pem,
        grpc="0.0.0.0:8443",
        renew_after_ns=1_767_225_600 * 10**9,
    )


@contextmanager
def door(
    folder: Path, *, ca: Ca, host: str = "127.0.0.1", shown: Ca | None = None
) -> Iterator[Door]:
    """A server with a certificate of `ca` for `host`, that hands out the certificate of `shown`."""
    made = Door(ca)
    made.answers = {
        "/v1/ca": lambda _: (200, {}, (shown or ca).pem.encode()),
        "/v1/join": lambda body: enrolled(ca, body),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.asked.append((self.path, body))
            status, headers, text = made.answers[self.path](body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Says nothing: a test asks `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a handshake that failed
    server.socket = _secured(folder, ca, host).wrap_socket(server.socket, server_side=True)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _secured(folder: Path, ca: Ca, host: str) -> ssl.SSLContext:
    key = new_key()
    file = folder / f"door-{host}.pem"
    file.write_text(key_pem(key) + ca.server(key.public_key(), host))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
