"""Where the web port may listen, and by which names it may be called without TLS."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from heatpool.errors import ConfigError
from heatpool_aggregator.web.address import check_listen, check_loopback, only_own_hosts
from heatpool_aggregator.web.problem import Refused


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("127.9.9.9:0", ("127.9.9.9", 0)),
        ("localhost:80", ("localhost", 80)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_without_tls_it_listens_on_loopback(address: str, expected: tuple[str, int]) -> None:
    assert check_loopback(address) == check_listen(address) == expected


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.0.2.7:80", "example:80"])
def test_other_addresses_need_tls(address: str) -> None:
    with pytest.raises(ConfigError, match="heatpool-aggregator init"):
        check_loopback(address)
    assert check_listen(address)[1] in (80, 8080)


@pytest.mark.parametrize(
    "address", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "h:x", "127.0.0.1:65536"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    for check in (check_loopback, check_listen):
        with pytest.raises(ConfigError):
            check(address)


async def asked(*hosts: str) -> int:
    """Status of a request that names these hosts, on a machine called `box`."""
    told: list[web.Request] = []
    headers = CIMultiDict([("Host", host) for host in hosts])

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    request = make_mocked_request("GET", "/v1/state", headers=headers)
    try:
        return (await only_own_hosts("box", told.append)(request, handler)).status
    except Refused as refused:
        assert told == [request]
        return refused.status


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST:1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "[::1]",
        "box:80",
    ],
)
async def test_this_machine_may_be_called_by_its_names(host: str) -> None:
    assert await asked(host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "192.0.2.7", "localhost.evil.example", "", "[::2]:80"],
)
async def test_a_page_that_points_its_own_name_at_us_reads_nothing(host: str) -> None:
    assert await asked(host) == 421


async def test_a_request_without_a_host_is_a_balancers_and_two_hosts_are_a_trick() -> None:
    assert await asked() == 200
    assert await asked("localhost", "evil.example") == 421
