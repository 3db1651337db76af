"""Doctor beside an agent that runs: what that one hears counts, where it can be asked."""

from dataclasses import replace
from typing import Any

import pytest
from told_page import telling

from heatpool_agent.doctor import beside, network
from heatpool_agent.doctor.verdict import Status

ANSWERS = network.Answered(address="127.0.0.1:1", speaks_http2=True)
CONNECTED = {"state": "connected", "detail": "", "fix": ""}
REFUSED = {"state": "refused", "detail": "revoked: site/e1", "fix": "ask for a new token"}


@pytest.mark.parametrize(
    ("answered", "line", "status", "word"),
    [
        (ANSWERS, None, Status.OK, ""),
        (ANSWERS, CONNECTED, Status.OK, ""),
        (ANSWERS, REFUSED, Status.FAIL, "revoked: site/e1"),
        (replace(ANSWERS, refusal="gone"), REFUSED, Status.FAIL, "gone"),
    ],
)
def test_an_aggregator_that_refuses_the_running_agent_fails(
    answered: network.Answered, line: dict[str, Any] | None, status: Status, word: str
) -> None:
    found = network.aggregator(answered, line)
    assert found.status is status
    assert word in found.found


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"uplink": {"state": "refused"}}', {"state": "refused"}),
        (b'{"uplink": null}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"[" * 9_999, None),
    ],
)
def test_the_line_is_what_the_page_says_of_it(body: bytes, told: dict[str, str] | None) -> None:
    with telling(body) as listen:
        assert beside.uplink(listen) == told


@pytest.mark.parametrize("listen", ["", "127.0.0.1:0", "127.0.0.1:1"])
def test_nobody_at_the_page_tells_nothing(listen: str) -> None:
    assert beside.uplink(listen) is None
