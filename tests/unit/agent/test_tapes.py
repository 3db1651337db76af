"""The form of a recording, what never gets into it, and how answers find their requests."""

import asyncio
import errno
import resource
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heatpool.errors import ConfigError, SensorBusy, SensorGone, WireError
from heatpool_agent.assembly import SystemClock
from heatpool_agent.tapes.keep import Recorder
from heatpool_agent.tapes.lines import (
    Begin,
    Do,
    End,
    Exchange,
    KeptError,
    Manifest,
    answered,
    error_of,
    kept_error,
)
from heatpool_agent.tapes.play import Pass, Player, PlayingTape, load
from heatpool_agent.tapes.redaction import Redaction


def _pass(number: int, *exchanges: Exchange, do: Do = "read", end: End | None = None) -> Pass:
    begin = Begin(do=do, event_ns=100 * number, boot_ns=number)
    end = end or End(event_ns=100 * number + 99, boot_ns=number, count=1)
    return Pass(number=number, do=do, begin=begin, exchanges=exchanges, end=end)


def _exchange(request: str, answer: str, event_ns: int = 0) -> Exchange:
    return Exchange(event_ns=event_ns, boot_ns=event_ns, request=request, answer=answer)


def _unasked() -> bytes:
    raise AssertionError("a device was asked while a recording played")


@given(st.binary(max_size=300), st.text(max_size=60))
def test_any_answer_comes_back_as_it_was(data: bytes, request: str) -> None:
    kept = answered(request, data, event_ns=1, boot_ns=2)
    again = msgspec.json.decode(msgspec.json.encode(kept), type=Exchange)
    assert again.data() == data
    assert again.request == request


@pytest.mark.parametrize(
    ("data", "form"),
    [(b"42\n", "answer"), (b"\x00\x01", "answer_hex"), (b"\xff", "answer_hex"), (b"", "answer")],
)
def test_text_is_kept_as_text(data: bytes, form: str) -> None:
    kept = answered("x", data, event_ns=1, boot_ns=2)
    assert getattr(kept, form) is not None


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        ConnectionResetError("Connection lost"),
        TimeoutError(),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
        SensorBusy("later", wait_s=2.5),
        SensorGone("gone", fix="plug it in"),
        WireError("no telegram", offset=7),
        OSError("strange"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_as_it_was(error: Any) -> None:
    again = error_of(msgspec.json.decode(msgspec.json.encode(kept_error(error)), type=KeptError))
    assert type(again) is type(error)
    assert str(again) == str(error)
    told = ("errno", "strerror", "wait_s", "reason", "fix", "offset")
    assert [getattr(again, name, None) for name in told] == [
        getattr(error, name, None) for name in told
    ]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("url", "tcp://meter.plant.example:502", "tcp://192.0.2.1:502"),
        ("url", "rtu+tcp://10.1.2.3:4001", "rtu+tcp://192.0.2.1:4001"),
        ("url", "tcp://[fd00::17]:502", "tcp://192.0.2.1:502"),
        ("url", "https://BMC7.rack.example/", "https://192.0.2.1/"),
        ("url", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("url", "http://[::1]:8000", "http://[::1]:8000"),
        ("url", "rtu:/dev/ttyUSB0?baud=9600", "rtu:/dev/ttyUSB0?baud=9600"),
        ("url", "file:/home/karla/capture", "file:/recorded/1"),
        ("url", "mqtt://karla:pass-word@10.1.2.3:1883", "mqtt://192.0.2.1:1883"),
        ("host", "node17", "192.0.2.1"),
        ("user", "karla", "user-1"),
        ("password_file", "/home/karla/none", "/recorded/password_file-1"),
        ("meter_id", "KAM67731942", "meter-1"),
        ("secondary", "67731942.KAM.12.4", "00000000.KAM.12.4"),
        ("fingerprint", "ab" * 32, "0" * 64),
        ("map", "generic-cdu", "generic-cdu"),
        ("address", 17, 17),
    ],
)
def test_what_stands_in_the_manifest_is_nobody_s(key: str, value: Any, shown: Any) -> None:
    assert Redaction([{"id": "s", "kind": "k", key: value}]).blocks[0][key] == shown


def test_one_host_is_one_host_in_every_block() -> None:
    urls = ("tcp://a.example:1", "tcp://b.example:1", "tcp://A.example:2")
    blocks = Redaction([{"id": str(at), "url": url} for at, url in enumerate(urls)]).blocks
    assert [block["url"] for block in blocks] == [
        "tcp://192.0.2.1:1",
        "tcp://192.0.2.2:1",
        "tcp://192.0.2.1:2",
    ]


@pytest.fixture
def redaction(tmp_path: Path) -> Redaction:
    (tmp_path / "secret").write_text('pass"word/&1\n')
    block = {
        "id": "s",
        "kind": "k",
        "url": "https://bmc.example",
        "user": "karla",
        "password_file": str(tmp_path / "secret"),
        "meter_id": "KAM67731942",
    }
    return Redaction([block])


@pytest.mark.parametrize(
    "spelling",
    [
        'pass"word/&1',
        "pass%22word%2F%261",
        r"pass\"word/&1",
        "cGFzcyJ3b3JkLyYx",
        "a2FybGE6cGFzcyJ3b3JkLyYx",
    ],
)
def test_a_secret_is_hidden_however_it_is_spelt(redaction: Redaction, spelling: str) -> None:
    for told in (f"x={spelling};", spelling):
        assert spelling not in redaction.text(told)
        assert spelling.encode() not in redaction.answer(b"\xff" + told.encode())


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("https://BMC.example/x: status 503", "https://192.0.2.1/x: status 503"),
        ("give 'karla' the right to read", "give 'user-1' the right to read"),
        ("other KAM67731942 here", "other meter-1 here"),
        ("mybmc.example.org", "mybmc.example.org"),
    ],
)
def test_errors_speak_of_placeholders(redaction: Redaction, told: str, shown: str) -> None:
    # The meter's number comes after url, user and file, so its placeholder has another number.
    assert redaction.text(told) == shown.replace("meter-1", redaction.blocks[0]["meter_id"])


def test_the_number_of_a_board_is_hidden(redaction: Redaction) -> None:
    told = b"model name\t: ARM\nSerial\t\t: 00000000abcdef01\n"
    assert b"abcdef01" not in redaction.answer(told)


def test_a_secret_too_short_to_be_found_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1\n")
    with pytest.raises(ConfigError, match="fewer than 4"):
        Redaction([{"id": "s", "password_file": str(tmp_path / "secret")}])


def test_answers_come_in_the_order_of_their_pass() -> None:
    passes = [_pass(0, _exchange("a", "1"), _exchange("b", "2"), _exchange("a", "3"))]
    tape = PlayingTape(passes)
    tape.begin(passes[0])
    answers = [tape.look(name, _unasked) for name in ("a", "a", "b")]
    assert answers == [b"1", b"3", b"2"]


def test_the_clock_is_that_of_the_last_answer() -> None:
    passes = [_pass(1, _exchange("a", "1", event_ns=150))]
    tape = PlayingTape(passes)
    tape.begin(passes[0])
    assert (tape.event_ns(), tape.boot_ns()) == (100, 1)
    tape.look("a", _unasked)
    assert (tape.event_ns(), tape.boot_ns()) == (150, 150)


def test_what_was_never_asked_is_named() -> None:
    passes = [_pass(0, _exchange("a", "1"))]
    tape = PlayingTape(passes)
    tape.begin(passes[0])
    with pytest.raises(SensorGone, match="the recording has no answer to 'c'") as caught:
        tape.look("c", _unasked)
    assert caught.value.fix


def test_a_pass_that_did_not_ask_gets_what_was_known_then() -> None:
    passes = [
        _pass(0, _exchange("a", "1"), _exchange("x", "0")),
        _pass(1, _exchange("x", "1")),
        _pass(2, _exchange("a", "3"), _exchange("b", "4")),
    ]
    tape = PlayingTape(passes)
    tape.begin(passes[1])
    assert [tape.look(name, _unasked) for name in ("a", "b")] == [b"1", b"4"]


async def test_a_pass_that_failed_without_an_answer_fails_again() -> None:
    gone = kept_error(SensorGone("no answer in 2 s", fix="wait"))
    late = Exchange(event_ns=0, boot_ns=0, request="a", error=KeptError(kind="late"))
    passes = [_pass(0, late, end=End(event_ns=1, boot_ns=1, error=gone))]
    tape = PlayingTape(passes)
    tape.begin(passes[0])

    async def ask() -> bytes:
        return _unasked()

    with pytest.raises(SensorGone, match="no answer in 2 s"):
        await tape.exchange("a", ask)


class _Deaf:
    """A driver that passes its tape by."""

    async def probe(self) -> list[str]:
        raise AssertionError("a device was asked while a recording played")

    async def read(self) -> list[Any]:
        raise AssertionError("a device was asked while a recording played")

    async def close(self) -> None:
        pass


async def test_a_driver_that_used_no_tape_is_told() -> None:
    one = _pass(0)
    with pytest.raises(SensorGone, match="no answer to anything"):
        await Player(_Deaf(), PlayingTape([one])).read(one)


async def test_a_pass_that_the_caller_gave_up_times_out_again() -> None:
    one = _pass(0, end=End(event_ns=1, boot_ns=1, error=KeptError(kind="late")))
    with pytest.raises(TimeoutError):
        await Player(_Deaf(), PlayingTape([one])).read(one)


def test_every_answer_is_given_once_however_many_threads_ask() -> None:
    count = 2000
    passes = [_pass(0, *(_exchange("a", str(at)) for at in range(count)))]
    tape = PlayingTape(passes)
    tape.begin(passes[0])
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: tape.look("a", _unasked), range(count)))
    assert sorted(map(int, answers)) == list(range(count))


def _written(folder: Path) -> tuple[bytes, int]:
    """A recording of three passes; its one file and the passes in it."""
    manifest: Mapping[str, Any] = msgspec.to_builtins(
        Manifest(heatpool="0", begun_ns=1, sampling={}, roots={}, loop=[], sensor=[{"id": "s"}])
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    lines = [
        line
        for at in range(3)
        for line in (
            Begin(do="read", event_ns=at, boot_ns=at),
            answered("a", bytes((at, 255)), event_ns=at, boot_ns=at),
            End(event_ns=at, boot_ns=at, count=1),
        )
    ]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines), 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cut_frac=st.floats(0, 1))
def test_a_file_cut_anywhere_holds_its_whole_passes(tmp_path: Path, cut_frac: float) -> None:
    data, count = _written(tmp_path)
    cut = data[: round(cut_frac * len(data))]
    (tmp_path / "s.jsonl").write_bytes(cut)
    recording = load(tmp_path)
    found = len(recording.passes["s"])
    assert cut.count(b'"line":"end"') - 1 <= found <= cut.count(b'"line":"end"')
    assert found == count or cut != data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(junk=st.binary(max_size=200), at_frac=st.floats(0, 1))
def test_damage_in_a_file_is_told_and_never_raised(
    tmp_path: Path, junk: bytes, at_frac: float
) -> None:
    data, count = _written(tmp_path)
    at = round(at_frac * len(data))
    (tmp_path / "s.jsonl").write_bytes(data[:at] + junk + data[at:])
    recording = load(tmp_path)
    assert len(recording.passes["s"]) == count or recording.damaged or not junk.strip()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    _written(tmp_path)
    recording = asyncio.run(asyncio.to_thread(load, tmp_path))
    assert recording.passes["s"] == ()
    assert "s.jsonl" in recording.damaged["s"]


@contextmanager
def _files_end_at(size_bytes: int) -> Iterator[None]:
    """The kernel takes what fits of a write and refuses the next, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_half_a_pass_keeps_whole_ones_and_says_why(
    tmp_path: Path, redaction: Redaction
) -> None:
    manifest = Manifest(heatpool="0", begun_ns=1, sampling={}, roots={}, loop=[], sensor=[])
    recorder = Recorder(tmp_path, manifest, redaction, clock=SystemClock(), max_bytes=10**6)
    tape = recorder.tape("s")
    with _files_end_at(1500):
        for _ in range(5):
            with tape.one_pass("read"):
                tape.look("a", lambda: b"x" * 400)
    with pytest.raises(OSError, match=r"too large.*s\.jsonl"):
        recorder.end()
    kept = (tmp_path / "s.jsonl").read_bytes()
    counts = tape.counts()
    assert (counts.passes, counts.dropped_passes) == (2, 3)
    assert len(kept) == counts.bytes
    assert kept.count(b'"line":"end"') == kept.count(b"\n") / 3 == 2
