"""Redfish by its open root, IPMI by what it tells anybody, an MQTT broker by its greeting."""

import asyncio
import hashlib
import json
import os
import ssl
from contextlib import suppress
from typing import Any

from heatpool_agent.config import is_loopback
from heatpool_agent.search.found import Found, name_of

_CONNECT_S, _ANSWER_S = 1.5, 3.0
_MOST_BYTES = 65_536
_ROOT = "/redfish/v1/"
# Presence ping and pong of RMCP (ASF 2.0, 3.2.4): ASF's number 4542, types 80 and 40.
_PING = bytes.fromhex("0600ff06000011be80000000")
_PONG_AT, _PONG = 8, 0x40
# Get Channel Authentication Capabilities, which is answered without a session (IPMI 2.0, 22.13).
_CAPABILITIES = bytes.fromhex("0600ff07 00 00000000 00000000 09 2018c8 81 00 38 8e 04 b5")
_IPMI_CLASS_AT, _IPMI_CLASS = 3, 7
# CONNECT of MQTT 3.1.1, clean session, 10 s; CONNACK has type 2 and the answer in its last byte.
_CONNACK, _ACCEPTED = 0x20, 0
_REFUSALS = {4: "user or password is asked for", 5: "a login is asked for"}
_DISCONNECT = b"\xe0\x00"


async def redfish(host: str, port: int, *, is_tls: bool) -> Found | None:
    """A Redfish service, asked for its root alone; None if it is none."""
    root, fingerprint = await _service_root(host, port, is_tls=is_tls)
    if not isinstance(root, dict) or "ServiceRoot" not in str(root.get("@odata.type")):
        return None
    scheme, usual = ("https", 443) if is_tls else ("http", 80)
    name = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{name}" + ("" if port == usual else f":{port}")
    block: dict[str, Any] = {"id": name_of("redfish", host, port), "kind": "redfish", "url": url}
    told = [f"Redfish {root.get('RedfishVersion', 'of unknown version')}"]
    told += [str(root[key]) for key in ("Vendor", "Product") if root.get(key)]
    seen = [", ".join(told)]
    if fingerprint:
        block["fingerprint"] = fingerprint
        seen.append("compare the certificate's fingerprint with the one that its own page shows")
    return Found(
        place=f"{host}:{port}",
        kind="redfish",
        seen=(*seen, "most BMCs need a read-only user for more"),
        block=block,
        missing="" if is_tls or is_loopback(url) else "switch HTTPS on there, write it in the url",
        options=('user = "heatpool"', 'password_file = "/etc/heatpool/bmc.password"'),
    )


async def _service_root(host: str, port: int, *, is_tls: bool) -> tuple[object, str]:
    context = None
    if is_tls:
        # Only looked at: no secret is sent, and the certificate is what a person is to compare.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(_CONNECT_S * 2):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        lines = (f"GET {_ROOT} HTTP/1.0", f"Host: {host}", "Accept: application/json", "", "")
        writer.write("\r\n".join(lines).encode("ascii", "replace"))
        body = await _all(reader)
        tls = writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls else None
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                await writer.wait_closed()
    fingerprint = hashlib.sha256(certificate).hexdigest() if certificate else ""
    _, _, content = body.partition(b"\r\n\r\n")
    with suppress(ValueError, RecursionError):
        return json.loads(content), fingerprint
    return None, fingerprint


async def _all(reader: asyncio.StreamReader) -> bytes:
    data = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            while len(data) < _MOST_BYTES and (more := await reader.read(_MOST_BYTES)):
                data += more
    return data


class _Ear(asyncio.DatagramProtocol):
    """Hears one datagram."""

    def __init__(self) -> None:
        self.heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """The first one counts."""
        if not self.heard.done():
            self.heard.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """A closed port answers so."""
        if not self.heard.done():
            self.heard.set_result(b"")


async def ipmi(host: str, port: int) -> Found | None:
    """A BMC that answers without a login; None if nobody does."""
    loop = asyncio.get_running_loop()
    transport, ear = await loop.create_datagram_endpoint(_Ear, remote_addr=(host, port))
    answer = b""
    try:
        transport.sendto(_PING)
        # Not every BMC knows the ping.
        transport.sendto(_CAPABILITIES)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                answer = await ear.heard
    finally:
        transport.close()
    is_pong = len(answer) > _PONG_AT and answer[_PONG_AT] == _PONG
    is_told = len(answer) > _IPMI_CLASS_AT and answer[_IPMI_CLASS_AT] == _IPMI_CLASS
    if not is_pong and not is_told:
        return None
    name = f"[{host}]" if ":" in host else host
    url = f"ipmi://{name}" + ("" if port == 623 else f":{port}")
    return Found(
        place=f"{host}:{port}",
        kind="ipmi",
        seen=("a BMC answers by IPMI",),
        block={
            "id": name_of("ipmi", host, port),
            "kind": "ipmi",
            "url": url,
            "user": "heatpool",
            "password_file": "/etc/heatpool/bmc.password",
        },
        missing="make a user with the right to read on the BMC, write its password into the file",
    )


async def mqtt(host: str, port: int) -> Found | None:
    """A broker that answers a greeting; it is left at once. None if it is none."""
    async with asyncio.timeout(_CONNECT_S):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_greeting())
        answer = b""
        with suppress(TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_CONNECT_S):
                answer = await reader.readexactly(4)
        if answer[:1] == bytes((_CONNACK,)) and answer[3] == _ACCEPTED:
            writer.write(_DISCONNECT)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if answer[:1] != bytes((_CONNACK,)):
        return None
    refusal = _REFUSALS.get(answer[3], f"it refuses with code {answer[3]}" if answer[3] else "")
    name = f"[{host}]" if ":" in host else host
    return Found(
        place=f"{host}:{port}",
        kind="mqtt",
        seen=(f"an MQTT broker; {refusal or 'it lets us in without a login'}",),
        block={"id": name_of("mqtt", host, port), "kind": "mqtt", "url": f"mqtt://{name}:{port}"},
        missing="add a [[sensor.point]] for each topic (docs/drivers/mqtt.md)",
    )


def _greeting() -> bytes:
    client = b"hp-" + os.urandom(4).hex().encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x0a" + len(client).to_bytes(2, "big") + client
    return bytes((0x10, len(body))) + body
