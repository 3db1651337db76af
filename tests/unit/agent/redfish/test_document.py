"""Every answer that is no resource is refused for its own reason."""

import pytest

from heatpool.errors import WireError
from heatpool_agent.core.redfish import parse

PATH = "/redfish/v1/Chassis/1"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "an empty body"),
        (b" \r\n", "an empty body"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b'{"Reading": 4', "ends half way"),
        (b'{"Reading": "4', "ends half way"),
        (b'{{"Reading": 4}', "broken JSON"),
        (b"[1, 2]", "a JSON list instead of an object"),
        (b"null", "instead of an object"),
        (b'"text"', "instead of an object"),
        (b'{"Reading": NaN}', "NaN is no number"),
        (b'{"Reading": -Infinity}', "-Infinity is no number"),
        (b'{"Reading": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"a": \xff\xfe}', "no JSON"),
        (b'{"a": ' * 100 + b"1" + b"}" * 100, "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"error": {"message": "Gone away"}}', "Gone away"),
        (b'{"error": null, "@odata.id": "/x"}', "an error instead"),
    ],
)
def test_what_is_no_resource_is_refused_with_its_reason(answer: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason) as refusal:
        parse(answer, PATH)
    assert PATH in str(refusal.value)


def test_reasons_differ_from_each_other() -> None:
    answers = (b"", b"<html>", b"{", b"{]", b"[]", b'{"error": 1}')
    reasons = set()
    for answer in answers:
        with pytest.raises(WireError) as refusal:
            parse(answer, PATH)
        reasons.add(refusal.value.reason)
    assert len(reasons) == len(answers)


def test_a_resource_with_an_error_beside_its_content_is_read() -> None:
    assert parse(b'{"error": {}, "PowerWatts": 4}', PATH)["PowerWatts"] == 4


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse(b"\xef\xbb\xbf{}", PATH) == {}
