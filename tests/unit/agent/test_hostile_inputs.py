"""Inputs that once broke a decoder, found by the fuzzers: each is refused, and soon."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heatpool.errors import ConfigError, WireError
from heatpool.process import settings
from heatpool_agent import config as agent_config
from heatpool_agent.commands.replay import replay
from heatpool_agent.core import ipmi, ipmi_sdr, perf_event, redfish, smi_xml
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.mqtt_rules import Point, mistakes
from heatpool_agent.core.reading import ReadingKind
from heatpool_agent.fieldbus.maps import read_map
from heatpool_agent.tapes.play import load

NOW_NS = 1_750_000_000_000_000_000
DEEP = 100_000
LONG = 65_536


@contextmanager
def soon() -> Iterator[None]:
    """Half of what the worst of these once took, and fifty times what they take now."""
    start_s = time.process_time()
    yield
    assert time.process_time() - start_s < 2.5


@pytest.mark.parametrize("sign", [" ", "\n", "a ", "a:", ": "])
def test_a_long_text_of_ipmitool_is_refused_soon(sign: str) -> None:
    with soon(), pytest.raises(WireError, match="no power reading"):
        ipmi.power_in_text((sign * LONG)[:LONG].encode())


def test_thousands_of_digits_are_no_watts() -> None:
    text = f"Instantaneous power reading: {'9' * 5000} Watts\nPower reading state is: activated"
    with pytest.raises(WireError, match="no power reading"):
        ipmi.power_in_text(text.encode())
    assert ipmi_sdr.sensors(f"PS1 | {'9' * 400} Watts | ok".encode()) == ()


@pytest.mark.parametrize("inside", ["\n", "<a/>\n", "&#10;", "<![CDATA[ ]]>"])
def test_a_long_text_of_nvidia_smi_is_read_soon(inside: str) -> None:
    count = 500_000 // len(inside)
    with soon():
        text = f'<nvidia_smi_log><gpu id="0:1">{inside * count}</gpu></nvidia_smi_log>'
        assert list(smi_xml.cards(text.encode())) == ["0:1"]


@pytest.mark.parametrize("encoding", ["UTF-9", "utf-7", "hex", "shift_jis"])
def test_a_text_of_nvidia_smi_in_a_strange_encoding_is_refused(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}" ?><nvidia_smi_log></nvidia_smi_log>'
    with pytest.raises(WireError, match="nvidia-smi: "):
        smi_xml.cards(text.encode())


@pytest.mark.parametrize("scale", ["11/0", "0/0", "1/", "nan", "inf"])
def test_a_scale_that_is_no_number_is_no_event(scale: str) -> None:
    told = {"config": "event=0x02", "scale": scale, "unit": "Joules"}
    assert perf_event.energy_event("energy-pkg", **told) is None


def test_a_damaged_list_of_cpus_costs_no_memory() -> None:
    with soon():
        assert perf_event.cpus("0-4095," * 50_000 + "7") == tuple(range(4096))
    assert perf_event.cpus("0-4095," * 3 + "x") == ()


@pytest.mark.parametrize("key", ["scale", "offset", "u"])
@pytest.mark.parametrize("number", ["inf", "1e308", "1e31"])
def test_a_map_with_a_number_beyond_every_measurement_is_refused(
    tmp_path: Path, key: str, number: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        'name = "x"\n[[point]]\nquantity = "power"\nfunction = 4\naddress = 0\ntype = "float32"\n'
        f'unit = "MW"\n{key} = {number}\n'
    )
    with pytest.raises(ConfigError, match=f"{key} is .*beyond every measurement"):
        read_map(str(path))


@pytest.mark.parametrize("scale", ["inf", "nan"])
def test_a_counter_with_a_scale_that_is_no_number_is_refused(tmp_path: Path, scale: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        'name = "x"\n[[point]]\nquantity = "energy"\nfunction = 4\naddress = 0\ntype = "uint32"\n'
        f'unit = "Wh"\nkind = "counter"\nscale = {scale}\n'
    )
    with pytest.raises(ConfigError, match="beyond every measurement"):
        read_map(str(path))


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"u": float("inf")}, "u is inf"),
        ({"u": 1e308}, "u is 1e\\+308"),
        ({"kind": ReadingKind.STATE, "states": {"on": float("inf")}}, "states are numbers"),
        ({"kind": ReadingKind.STATE, "states": {"on": float("nan")}}, "states are numbers"),
    ],
)
def test_a_point_with_a_number_that_is_none_is_a_mistake(
    rules: dict[str, Any], reason: str
) -> None:
    (found,) = mistakes([Point(topic="t", quantity="power", unit="MW", **rules)])
    assert reason.replace("\\", "") in found


@pytest.mark.parametrize("text", ["a = " + "[" * DEEP, "a = " + "1" * 5000, "a = \x00", "\r"])
def test_settings_that_make_the_parser_give_up_are_no_toml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(text.encode())
    with pytest.raises(ConfigError, match="is not TOML"):
        agent_config.load(path, {})


def test_a_file_with_an_impossible_name_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.read_toml(Path("a\0.toml"))


@pytest.mark.parametrize("value", ["[" * DEEP, "1" * 5000])
def test_a_variable_that_is_no_toml_is_the_text_itself(value: str) -> None:
    with pytest.raises(ConfigError, match=r"site\.id"):
        agent_config.load(None, {"HEATPOOL__SITE__ID": value})


def test_a_variable_inside_of_another_is_told() -> None:
    with pytest.raises(ConfigError, match="another variable has set SITE"):
        agent_config.load(None, {"HEATPOOL__SITE": "1", "HEATPOOL__SITE__ID": "a"})


@pytest.mark.parametrize("listen", ["[", "[8:1", "http://[", "evil@127.0.0.1:1"])
def test_what_is_no_address_is_not_loopback(listen: str) -> None:
    assert not agent_config.is_loopback(listen)
    config = agent_config.Config(http=agent_config.Http(listen=listen))
    assert "http.listen" in "\n".join(agent_config.mistakes(config))


def test_a_period_that_no_clock_can_count_is_a_mistake() -> None:
    sampling = agent_config.Sampling(period_s=1e-12, report_period_s=1e-11, message_period_s=1e-10)
    found = agent_config.mistakes(agent_config.Config(sampling=sampling))
    assert found == ["sampling.period_s: is 1e-12, must be at least 0.001"]


def test_a_name_with_half_a_character_can_be_sent() -> None:
    body = {"@odata.type": "#Fan.v1_0_0.Fan", "Name": "fan \ud800", "PowerWatts": {"Reading": 3}}
    path = "/redfish/v1/Chassis/1/ThermalSubsystem/Fans/1"
    document = redfish.parse(json.dumps(body).encode(), path)
    stamp = Stamp(sensor="s", loop="rack", event_ns=NOW_NS, boot_ns=5)
    (reading,) = redfish.redfish_readings({path: document}, stamp)
    assert reading.label == "fan ?"


# Recordings.


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Path]:
    """A recording of one sensor: its lines, and parts of its manifest."""

    def write(*lines: bytes, **more: Any) -> Path:
        manifest = {
            **{"heatpool": "0", "begun_ns": NOW_NS, "sampling": {}, "roots": {}, "loop": []},
            "sensor": [{"id": "s", "kind": "ipmi", "via": "device"}],
        }
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | more))
        (tmp_path / "s.jsonl").write_bytes(b"\n".join(lines))
        return tmp_path

    return write


def test_a_manifest_nested_without_end_is_no_recording(kept: Callable[..., Path]) -> None:
    folder = kept()
    manifest = (folder / "manifest.json").read_bytes()
    deep = b'"roots": {"x": ' + b"[" * DEEP + b"}"
    (folder / "manifest.json").write_bytes(manifest.replace(b'"roots": {}', deep))
    with pytest.raises(ConfigError, match="is no recording"):
        load(folder)


def test_a_line_nested_without_end_is_told(kept: Callable[..., Path]) -> None:
    found = load(kept(b'{"x": ' + b"[" * DEEP + b"}"))
    assert list(found.damaged) == ["s"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"kind": "os", "errno": 5, "text": "I/O"}, "OSError: [Errno 5] I/O"),
        ({"kind": "os", "errno": 3, "text": "x"}, "ProcessLookupError: [Errno 3] x"),
        ({"kind": "wire", "text": "torn", "offset": 7}, "WireError: torn (byte 7)"),
    ],
)
def test_a_pass_that_ended_by_a_drivers_fault_ends_so_again(
    kept: Callable[..., Path], error: dict[str, Any], told: str
) -> None:
    begin = {"line": "begin", "do": "read", "event_ns": NOW_NS, "boot_ns": 5}
    end = {"line": "end", "event_ns": NOW_NS, "boot_ns": 6, "error": error}
    folder = kept(json.dumps(begin).encode(), json.dumps(end).encode())
    document = asyncio.run(replay(load(folder), folder))
    (sensor,) = document["sensors"]
    assert (sensor["state"], sensor["detail"]) == ("gone", told)


def test_a_recording_with_an_impossible_period_is_refused(kept: Callable[..., Path]) -> None:
    sampling = {"period_s": 1e-12, "report_period_s": 1e-11, "message_period_s": 1e-10}
    folder = kept(sampling=sampling)
    with pytest.raises(ConfigError, match="at least"):
        asyncio.run(replay(load(folder), folder))
