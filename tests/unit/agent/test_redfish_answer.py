"""Answers of a Redfish service as a tape keeps them, and links as paths."""

import pytest

from heatpool.errors import WireError
from heatpool_agent.sensors.redfish.answer import Answer, hidden, own_path, unpacked


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (b'{"SerialNumber": "A\\"1"}', b'{"SerialNumber": "hidden"}'),
        (b'{"UUID" :"1-2" , "Reading": 1e400}', b'{"UUID" :"hidden" , "Reading": 1e400}'),
        (b'{"Text": "at 10.0.0.7 now"}', b'{"Text": "at hidden now"}'),
        (b'["00:1b:21:aa:bb:cc"]', b'["hidden"]'),
        (b'{"Model": "X 1.2.3"}', b'{"Model": "X 1.2.3"}'),
        (b'{"@odata.id": "/redfish/v1/10.0.0.7"}', b'{"@odata.id": "/redfish/v1/10.0.0.7"}'),
        (b'["10.0.0.7 or 10.0.0.8, 1.2.3.4.5"]', b'["hidden or hidden, 1.2.3.4.5"]'),
        (b'{"HostName": "a', b'{"HostName": "hidden"'),
    ],
)
def test_what_tells_who_and_where_is_hidden(told: bytes, kept: bytes) -> None:
    assert hidden(told) == kept


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("/redfish/v1/Chassis", "/redfish/v1/Chassis"),
        ("/redfish/v1/Sensors?$skip=50", "/redfish/v1/Sensors?$skip=50"),
        ("/redfish/v1/Power#/PowerControl/0", "/redfish/v1/Power"),
        ("http://elsewhere/redfish/v1", None),
        ("//elsewhere/redfish/v1", None),
        ("///elsewhere", None),
        ("//[", None),
        ("/redfish/../etc", None),
        ("/redfish/v1\r\nX: y", None),
        ("redfish/v1", None),
        ("", None),
    ],
)
def test_a_link_is_a_path_of_this_service_or_nothing(link: str, path: str | None) -> None:
    assert own_path(link) == path


def test_a_packed_answer_comes_back_as_it_was() -> None:
    answer = Answer(status=404, body=b"200\n\n{")
    assert unpacked(answer.packed()) == answer


@pytest.mark.parametrize("data", [b"", b"{}", b"20\n", b"abc\n", b"2000\n{}"])
def test_a_tape_of_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        unpacked(data)
