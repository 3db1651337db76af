"""Tricks on the HTTPS port: paths, hosts, heads and bodies that are not what they seem."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import https_bench
import pytest
from https_bench import Bench

from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.web import app

HOST = b"Host: localhost\r\n"
END = b"Connection: close\r\n\r\n"
FIGURE = b'"heat_rate_w"'  # what only who may read gets to see


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with https_bench.opened(tmp_path) as opened:
        yield opened


def get(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + END


TARGETS = [
    b"/static/../v1/state",
    b"/static/%2e%2e/v1/state",
    b"/static/..%2fv1/state",
    b"/static/..%5c..%5cetc/passwd",
    b"/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    b"/login/../v1/state",
    b"/healthz/../v1/state",
    b"/healthz/..;/v1/state",
    b"/healthz;/v1/state",
    b"/healthz%00/v1/state",
    b"//v1/state",
    b"///v1/state",
    b"/./v1/state",
    b"/v1//state",
    b"/%76%31/state",
    b"/V1/STATE",
    b"/v1/state/",
    b"/v1/state?/healthz",
    b"/v1/state#/healthz",
    b"https://localhost/v1/state",
    b"http://localhost/healthz/../v1/state",
    b"*",
    b"/v1/join/../state",
    b"/v1/ca/../state",
    b"/../identity/ca.key",
    b"/identity/ca.key",
    b"/v1/sites/lido-hall-1",
    b"/" + b"a" * 7_000,
]


async def test_no_path_leads_around_the_guard(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.raw(get(target)) for target in TARGETS))
    told = {
        target: answer
        for target, answer in zip(TARGETS, answers, strict=True)
        if answer[:12] not in (b"HTTP/1.1 401", b"HTTP/1.1 400", b"HTTP/1.0 400")
        or any(word in answer for word in (FIGURE, b"PRIVATE KEY", b"root:"))
    }
    assert not told


def body(text: bytes, *heads: bytes) -> bytes:
    start = b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    return start + b"".join(head + b"\r\n" for head in heads) + END + text


CHUNKED = b"Transfer-Encoding: chunked"
BROKEN = {
    "oversized header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 9_000 + b"\r\n" + END,
    "too many headers": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 200 + END,
    "oversized target": get(b"/" + b"a" * 9_000),
    "header without colon": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X\r\n" + END,
    "space before colon": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X : a\r\n" + END,
    "folded header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\r\n b: c\r\n" + END,
    "null in header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n" + END,
    "wrong version": b"GET /healthz HTTP/9.9\r\n" + HOST + END,
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "negative length": body(b"", b"Content-Length: -1"),
    "signed length": body(b"{}", b"Content-Length: +2"),
    "two lengths": body(b"{}", b"Content-Length: 2", b"Content-Length: 3"),
    "length and chunked": body(b"2\r\n{}\r\n0\r\n\r\n", b"Content-Length: 2", CHUNKED),
    "chunked garbage": body(b"zz\r\n{}\r\n0\r\n\r\n", CHUNKED),
    "chunk size beyond all": body(b"ffffffffffffffffff\r\n{}\r\n", CHUNKED),
    "chunk without end": body(b"2\r\n{}xx\r\n0\r\n\r\n", CHUNKED),
    "unknown coding": body(b"{}", b"Transfer-Encoding: chunked, cow"),
}


async def test_a_broken_head_or_body_is_refused_and_harms_nobody(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.raw(data) for data in BROKEN.values()))
    told = {
        name: answer
        for name, answer in zip(BROKEN, answers, strict=True)
        if answer[9:13] not in (b"400 ", b"413 ", b"") or b"Traceback" in answer
    }
    assert not told
    assert (await bench.get("/healthz"))[0] == 200


async def test_a_second_request_smuggled_behind_the_first_is_not_trusted(bench: Bench) -> None:
    token = await bench.api_token("person/anna", Role.OPERATOR)
    first = b"GET /v1/state HTTP/1.1\r\n" + HOST + b"Authorization: Bearer " + token.encode()
    answer = await bench.raw(first + b"\r\n\r\n" + get(b"/v1/sites/lido-hall-1"))
    head, _, rest = answer.partition(b"HTTP/1.1 401")
    assert head.startswith(b"HTTP/1.1 200") and rest


@pytest.mark.parametrize("host", [b"", b"evil.example", b"localhost:1\r\nHost: evil.example"])
async def test_the_host_that_is_named_opens_nothing(bench: Bench, host: bytes) -> None:
    data = b"GET /v1/state HTTP/1.1\r\nHost: " + host + b"\r\nX-Forwarded-For: 127.0.0.1\r\n" + END
    answer = await bench.raw(data)
    assert answer[:12] in (b"HTTP/1.1 401", b"HTTP/1.0 400")
    assert b"evil.example" not in answer


async def test_a_request_of_before_there_were_versions_opens_nothing(bench: Bench) -> None:
    answer = await bench.raw(b"GET /v1/state\r\n\r\n")
    assert b" 401 " in answer.partition(b"\r\n")[0]


async def test_who_sends_its_head_too_slowly_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_IDLE_S", 0.2)
    async with https_bench.opened(tmp_path) as bench:
        host, _, port = bench.address.rpartition(":")
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=bench.context, server_hostname="localhost"
        )
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: loc")
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_who_sends_its_body_too_slowly_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heatpool_aggregator.web.body.BODY_S", 0.1)
    async with https_bench.opened(tmp_path) as bench:
        answer = await bench.raw(body(b"{", b"Content-Length: 9"), wait_s=20)
    assert answer.startswith(b"HTTP/1.1 408")
