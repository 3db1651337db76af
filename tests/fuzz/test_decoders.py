"""Every decoder under hypothesis: small inputs of our own, broken anywhere, and long ones in time.

The laws are those that the fuzzer runs by hand (`run.py`); what is special to one decoder is
tested beside it.
"""

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from fuzz import run
from fuzz.laws import CUT, DECODERS, STAMP
from fuzz.seeds import SEEDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heatpool.errors import WireError
from heatpool_agent.core import ipmi_sdr, mbus_document, redfish, smi_xml
from heatpool_agent.core.mbus_frames import long_frame

LONG = 65_536
# Forty and twenty times what they take: what grows with the square of its input takes more.
TELEGRAM_MS, LONG_MS = 25.0, 250.0

# What breaks texts and numbers: ends of ranges, what is no number, brackets, controls, no UTF-8.
TOKENS = (
    *(b"", b"0", b"-1", b"inf", b"-inf", b"nan", b"1e308", b"1e-320", b"9" * 25, b"9" * 400),
    *(b"18446744073709551616", b"-9223372036854775809", b"2147483648", b"65536", b"0x10", b"1_0"),
    *(b"[", b"]", b"{", b"}", b'"', b"'", b"\\", b"\\ud800", b"\\u0000", b"/", b"#", b"=", b"."),
    *(b",", b":", b"\n", b"\r\n", b"\t", b" ", b"\0", b"\xff", b"\xc3\xa9", b"\xe2\x82", b"\x7f"),
    *(b"null", b"true", b"[[point]]", b"[[sensor]]", b"&x;", b"<!ENTITY a 'b'>", b"</gpu>", CUT),
    *(b"\x68", b"\x16", b"\x10", b"\xe5", b"\x0d\xfd\x7c", b"\xff\xff", b"\x80\x00", b"\x7f\x80"),
)
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(TOKENS) | st.binary(max_size=6)),
    min_size=1,
    max_size=5,
)


def broken(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """The seed with some bytes taken out and others put in."""
    data = seed
    for place_frac, taken, put in changes:
        at = int(place_frac * len(data))
        data = data[:at] + put + data[at + taken :]
    return data


def test_the_fuzzer_knows_every_decoder() -> None:
    assert set(run._names()) == set(DECODERS)


def test_every_decoder_has_a_seed_that_it_reads() -> None:
    assert list(SEEDS) == list(DECODERS)
    for name, seeds in SEEDS.items():
        for seed in seeds:
            DECODERS[name](seed)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_an_input_broken_anywhere_is_decoded_or_refused(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS[name]), label="seed")
    DECODERS[name](broken(seed, data.draw(edits, label="edits")))


# What may stand behind a key of TOML, and of JSON.
VALUES = (
    "inf ; -inf ; nan ; 0 ; -1 ; 3 ; 65535 ; 1000000 ; 1e308 ; -1e-320 ; "
    "99999999999999999999 ; true ; [] ; {} ; [inf] ; [-999.0, 3] ; {a = 1} ; {on = nan} ; "
    '[{}] ; ["x"] ; "" ; "x" ; "[" ; "\\u0000" ; "uint16" ; "float64" ; "BADC" ; "counter" ; '
    '"state" ; "%" ; "degC" ; "kWh" ; "MWh" ; "modicon" ; "hot" ; "primary" ; "a.b[0].c" ; '
    '"tcp://[:5" ; "http://[::1" ; "file:/x" ; "generic-cdu" ; "modbus" ; "host" ; '
    '"billing" ; 1979-05-27 ; 07:32:00'
).split(" ; ")


@pytest.mark.parametrize("name", ["modbus_map", "mqtt_points", "settings_text"])
@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(VALUES)), min_size=1, max_size=3
    )
)
def test_a_table_with_any_values_is_read_or_every_mistake_told(
    name: str, changes: list[tuple[int, str]]
) -> None:
    lines = SEEDS[name][0].decode().splitlines()
    told = [number for number, line in enumerate(lines) if " = " in line]
    for number, value in changes:
        at = told[number % len(told)]
        lines[at] = f"{lines[at].partition(' = ')[0]} = {value}"
    DECODERS[name]("\n".join(lines).encode())


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@pytest.mark.parametrize("name", ["recording", "redfish_json"])
@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 10_000),
            json_values | st.lists(json_values, max_size=2) | st.just({"kind": "os", "errno": -1}),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_document_with_any_values_is_read_or_refused(
    name: str, changes: list[tuple[int, object]]
) -> None:
    data = SEEDS[name][0].decode()
    for number, value in changes:
        found = list(re.finditer(r'(?<=: )("[^"]*"|-?[0-9.]+|true|\{\}|\[\])', data))
        place = found[number % len(found)]
        data = data[: place.start()] + json.dumps(value) + data[place.end() :]
    DECODERS[name](data.encode())


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(name: str, data: bytes) -> None:
    DECODERS[name](data)


def least_ms(work: Callable[[], object]) -> float:
    """Processor time of the best of three runs, ms: others may use the machine meanwhile."""
    spans_s = []
    for _ in range(3):
        start_s = time.process_time()
        work()
        spans_s.append(time.process_time() - start_s)
    return 1000 * min(spans_s)


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=200, max_size=252))
def test_a_full_telegram_of_any_bytes_takes_milliseconds(body: bytes) -> None:
    assert least_ms(partial(DECODERS["mbus_body"], body)) < TELEGRAM_MS


@pytest.mark.parametrize("record", ["00 00", "2f", "01 fd 7d 00", "0d 13 00", "80 40 06 05"])
def test_the_most_records_of_a_telegram_take_milliseconds(record: str) -> None:
    body = b"\x72" + bytes(12) + bytes.fromhex(record) * 200
    frame = long_frame(0x08, 1, body[:252])
    assert least_ms(partial(DECODERS["mbus_telegram"], frame)) < TELEGRAM_MS


def _rows(row: str, between: str = ",") -> str:
    return between.join([row] * (LONG // (len(row) + len(between))))


def _json(head: str, row: str) -> bytes:
    return f'{{"@odata.id": "/redfish/v1/x", {head}: [{_rows(row)}]}}'.encode()


def _redfish(data: bytes) -> object:
    return redfish.redfish_readings({"/redfish/v1/x": redfish.parse(data, "/redfish/v1/x")}, STAMP)


SENSOR = (
    '{"@odata.id": "/redfish/v1/Chassis/1/Sensors/%d", "@odata.type": "#Sensor.v1_5_0.Sensor",'
    '"Id": "P", "Name": "Power", "ReadingType": "Power", "Reading": 3.5, "ReadingUnits": "W",'
    '"PhysicalContext": "Chassis", "Status": {"State": "Enabled", "Health": "OK"}}'
)


@pytest.mark.parametrize(
    ("work", "data"),
    [
        (DECODERS["ipmi_words"], b" " * LONG),
        (DECODERS["ipmi_words"], b"a: " * (LONG // 3)),
        (ipmi_sdr.sensors, _rows("PS1 | 110 Watts | ok", "\n").encode()),
        (ipmi_sdr.sensors, b"a | " + b"9" * LONG + b" Watts | ok"),
        (DECODERS["mqtt_payload"], b"[" * (LONG - 1)),
        (DECODERS["mqtt_payload"], b'{"a": "' + b"9" * (LONG - 10) + b'"}'),
        (DECODERS["mqtt_payload"], _json('"a"', "[]")),
        (_redfish, _json('"Members"', SENSOR)),
        (_redfish, _json('"Members"', '{"@odata.id": "/redfish/v1/Chassis/1"}')),
        (_redfish, _json('"PowerControl"', SENSOR)),
        (smi_xml.cards, f'<nvidia_smi_log><gpu id="0:1">{_rows("<a>1</a>")}</gpu></nvidia_smi_log>'
            .encode()),
        (smi_xml.cards, b'<nvidia_smi_log><gpu id="0:1">' + b"\n" * LONG),
        (mbus_document.document, b"\x68" * LONG),
        (mbus_document.document, b"\x68\x03\x03\x68" * (LONG // 4)),
        (mbus_document.document, b"00 " * (LONG // 3)),
        (mbus_document.document, b"#" * LONG),
    ],
)  # fmt: skip
def test_a_long_input_of_any_form_takes_no_second(
    work: Callable[[bytes], object], data: bytes
) -> None:
    def once() -> None:
        with suppress(WireError):
            work(data)

    assert least_ms(once) < LONG_MS


@pytest.mark.parametrize("row", [b" ", b"9", b"0-4095,", b"cpu 1\n", b"processor : 0\n"])
def test_long_files_of_the_kernel_take_no_second_each(row: bytes) -> None:
    content = row * (LONG // len(row))
    # Three drivers look at all of them, and some twice.
    whole_ms = least_ms(partial(DECODERS["kernel_files"], CUT.join([content] * 17)))
    assert whole_ms / 17 < LONG_MS
