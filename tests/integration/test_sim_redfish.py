"""The simulator's Redfish service speaks DSP0266 on a real socket."""

import asyncio
import ssl
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import aiohttp
import pytest
from integration.redfish_bmc import CONTROL, ROOT, SESSIONS, SmallTree, bmc

from heatpool.errors import HeatpoolError
from heatpool_sim.devices import redfish_message
from heatpool_sim.devices.redfish_service import RedfishService

LOCKED = {"user": "admin", "password": "right"}
BASIC = {"Authorization": aiohttp.encode_basic_auth("admin", "right")}


async def test_the_version_document_leads_to_the_root() -> None:
    async with bmc() as client:
        versions = await client.get("/redfish")
        root = await client.get(versions.tree["v1"])
    assert versions.tree == {"v1": "/redfish/v1/"}
    assert root.tree["Chassis"] == {"@odata.id": "/redfish/v1/Chassis"}


@pytest.mark.parametrize("path", [f"{ROOT}/Chassis/1", f"{ROOT}/Chassis/1/", f"{ROOT}/Chassis/%31"])
async def test_a_slash_or_a_coded_sign_makes_no_other_resource(path: str) -> None:
    async with bmc() as client:
        assert (await client.get(path)).tree["Id"] == "1"


async def test_an_answer_carries_the_headers_of_the_standard() -> None:
    async with bmc() as client:
        answer = await client.get(f"{ROOT}/Chassis/1")
    assert answer.headers["OData-Version"] == "4.0"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Content-Type"] == "application/json;charset=utf-8"
    assert answer.headers["Allow"] == "GET, HEAD"
    schema = "<http://redfish.dmtf.org/schemas/v1/Chassis.v1_21_0.json>"
    assert answer.headers["Link"] == f"{schema}; rel=describedby"


async def test_head_is_get_without_a_body() -> None:
    async with bmc() as client:
        got = await client.get(f"{ROOT}/Chassis")
        head = await client.ask("HEAD", f"{ROOT}/Chassis")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["ETag"] == got.headers["ETag"]
    assert int(head.headers["Content-Length"]) == len(got.body)


@pytest.mark.parametrize(("form", "status"), [("{}", 304), ("W/{}", 304), ('"x", {}', 304)])
async def test_what_a_client_has_is_not_sent_again(form: str, status: int) -> None:
    async with bmc() as client:
        etag = (await client.get(CONTROL)).headers["ETag"]
        again = await client.get(CONTROL, headers={"If-None-Match": form.format(etag)})
    assert (again.status, again.body, again.headers["ETag"]) == (status, b"", etag)


async def test_a_change_is_sent_again() -> None:
    tree = SmallTree()
    async with bmc(tree) as client:
        etag = (await client.get(CONTROL)).headers["ETag"]
        tree.patch(CONTROL, {"SetPoint": 50})
        again = await client.get(CONTROL, headers={"If-None-Match": etag})
    assert (again.status, again.tree["SetPoint"]) == (200, 50)


async def test_metadata_names_every_type_that_is_served() -> None:
    async with bmc() as client:
        answer = await client.get(f"{ROOT}/$metadata")
    assert answer.headers["Content-Type"] == "application/xml"
    spaces = {held.get("Namespace") for held in ElementTree.fromstring(answer.body).iter()}
    assert {"ServiceRoot.v1_15_0", "Chassis.v1_21_0", "ControlCollection"} <= spaces


async def test_the_odata_document_lists_what_the_root_names() -> None:
    async with bmc() as client:
        listed = (await client.get(f"{ROOT}/odata")).tree["value"]
    assert [row["url"] for row in listed] == ["/redfish/v1/", "/redfish/v1/Chassis"]


async def test_nothing_there_is_told_with_an_extended_error() -> None:
    async with bmc() as client:
        answer = await client.get(f"{ROOT}/Nowhere")
    assert (answer.status, answer.message) == (404, "ResourceMissingAtURI")
    error = answer.tree["error"]
    assert error["code"].startswith("Base.1.") and "/redfish/v1/Nowhere" in error["message"]
    told = error["@Message.ExtendedInfo"][0]
    assert {"MessageId", "Message", "MessageArgs", "MessageSeverity", "Resolution"} <= told.keys()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", f"{ROOT}/Chassis/1", "GET, HEAD"),
        ("PUT", CONTROL, "GET, HEAD, PATCH"),
        ("POST", f"{ROOT}/Chassis", "GET, HEAD"),
        ("PATCH", f"{ROOT}/Chassis/1", "GET, HEAD"),
        ("PATCH", SESSIONS, "GET, HEAD, POST"),
        ("DELETE", f"{ROOT}/$metadata", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allow: str) -> None:
    async with bmc() as client:
        answer = await client.ask(method, path, json={})
    assert (answer.status, answer.headers["Allow"]) == (405, allow)
    assert answer.message == "OperationNotAllowed"


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_no_method_finds_what_is_not_there(method: str) -> None:
    async with bmc() as client:
        assert (await client.ask(method, f"{ROOT}/Nowhere", json={})).status == 404


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Accept": "application/json"}, ROOT, 200),
        ({"Accept": "text/html, */*;q=0.1"}, ROOT, 200),
        ({"Accept": "application/*"}, ROOT, 200),
        ({"Accept": "text/html"}, ROOT, 406),
        ({"Accept": "application/json"}, f"{ROOT}/$metadata", 406),
        ({"Accept": "application/xml"}, f"{ROOT}/$metadata", 200),
        ({"OData-Version": "4.0"}, ROOT, 200),
        ({"OData-Version": "3.0"}, ROOT, 412),
    ],
)
async def test_a_client_may_say_what_it_understands(
    headers: dict[str, str], path: str, status: int
) -> None:
    async with bmc() as client:
        assert (await client.get(path, headers=headers)).status == status


@pytest.mark.parametrize(
    ("query", "members", "following"),
    [
        ("$top=2", ["1", "2"], f"{ROOT}/Chassis?$skip=2&$top=2"),
        ("$skip=2", ["3"], None),
        ("$skip=1&$top=1", ["2"], f"{ROOT}/Chassis?$skip=2&$top=1"),
        ("$skip=9", [], None),
        ("only", ["1", "2", "3"], None),
        ("unknown=1", ["1", "2", "3"], None),
    ],
)
async def test_a_collection_comes_in_pages(
    query: str, members: list[str], following: str | None
) -> None:
    async with bmc() as client:
        answer = await client.get(f"{ROOT}/Chassis?{query}")
    assert answer.members == [f"{ROOT}/Chassis/{member}" for member in members]
    assert answer.tree["Members@odata.count"] == 3
    assert answer.tree.get("Members@odata.nextLink") == following


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/Chassis?$top=x", 400, "QueryParameterValueTypeError"),
        ("/Chassis?$skip=-1", 400, "QueryParameterOutOfRange"),
        ("/Chassis/1?$top=1", 400, "QueryNotSupportedOnResource"),
        ("/Chassis/1?only", 400, "QueryNotSupportedOnResource"),
        ("/Chassis?only=x", 400, "QueryParameterValueTypeError"),
        ("/Chassis/1?excerpt=x", 400, "QueryParameterValueTypeError"),
        ("/Chassis?only&$top=1", 400, "QueryCombinationInvalid"),
        ("/Chassis?$expand=x", 400, "QueryParameterValueTypeError"),
        ("/Chassis?$expand=.($levels=9)", 400, "QueryParameterOutOfRange"),
        ("/Chassis?$skiptoken=2", 404, "ResourceMissingAtURI"),
        ("/Chassis?$filter=x", 501, "QueryNotSupported"),
        ("/Chassis?$select=Id", 501, "QueryNotSupported"),
    ],
)
async def test_a_query_that_fits_nothing_is_refused(path: str, status: int, message: str) -> None:
    async with bmc() as client:
        answer = await client.get(ROOT + path)
    assert (answer.status, answer.message) == (status, message)


async def test_only_shows_the_only_member() -> None:
    async with bmc() as client:
        assert (await client.get(f"{ROOT}/Chassis/1/Controls?only")).tree["SetPoint"] == 100


async def test_expand_puts_resources_where_links_were() -> None:
    async with bmc() as client:
        below = (await client.get(f"{ROOT}/Chassis/1?$expand=.")).tree
        linked = (await client.get(f"{ROOT}/Chassis/1?$expand=~")).tree
        deep = (await client.get(f"{ROOT}/Chassis?$expand=*($levels=2)")).tree
    assert below["Power"]["PowerSupplies"] and below["Links"]["Contains"][0].keys() == {"@odata.id"}
    assert linked["Power"].keys() == {"@odata.id"}
    assert linked["Links"]["Contains"][0]["SetPoint"] == 100
    assert deep["Members"][1]["Power"]["PowerSupplies"][0]["PowerCapacityWatts"] == 750


async def test_a_login_gives_a_session_that_can_be_read_and_ended() -> None:
    async with bmc(**LOCKED) as client:
        refused = await client.get(f"{ROOT}/Chassis")
        login = await client.log_in()
        where = login.headers["Location"]
        listed = (await client.get(SESSIONS)).members
        own = await client.get(where)
        used = client.service.open_sessions
        ended = await client.ask("DELETE", where)
        after = await client.get(f"{ROOT}/Chassis")
    assert (refused.status, refused.message) == (401, "NoValidSession")
    assert "WWW-Authenticate" in refused.headers
    assert (login.status, login.tree["@odata.id"], where) == (201, where, f"{SESSIONS}/1")
    assert own.tree["UserName"] == "admin" and listed == [where]
    assert (ended.status, after.status) == (204, 401)
    assert (used, client.service.open_sessions) == (1, 0)


@pytest.mark.parametrize(
    "path", ["/redfish", ROOT, f"{ROOT}/", f"{ROOT}/$metadata", f"{ROOT}/odata"]
)
async def test_the_door_is_read_without_a_login(path: str) -> None:
    async with bmc(**LOCKED) as client:
        assert (await client.get(path)).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (BASIC, 200),
        ({"Authorization": aiohttp.encode_basic_auth("admin", "wrong")}, 401),
        ({"Authorization": "Basic %%%"}, 401),
        ({"Authorization": "Bearer x"}, 401),
        ({"X-Auth-Token": "stale"}, 401),
        ({}, 401),
    ],
)
async def test_basic_authentication_is_taken(headers: dict[str, str], status: int) -> None:
    async with bmc(**LOCKED) as client:
        assert (await client.get(f"{ROOT}/Chassis", headers=headers)).status == status


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ('{"UserName": "admin", "Password": "wrong"}', 401, "ResourceAtUriUnauthorized"),
        ('{"UserName": "admin"}', 400, "PropertyMissing"),
        ('{"UserName": "admin", "Password": 1}', 400, "PropertyValueTypeError"),
        ("{", 400, "MalformedJSON"),
        ("[]", 400, "UnrecognizedRequestBody"),
    ],
)
async def test_a_bad_login_is_refused_with_its_reason(body: str, status: int, message: str) -> None:
    async with bmc(**LOCKED) as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.ask("POST", SESSIONS, data=body, headers=headers)
    assert (answer.status, answer.message) == (status, message)
    assert client.service.open_sessions == 0


async def test_slots_run_out_and_are_given_back() -> None:
    async with bmc(**LOCKED, slots=2) as client:
        logins = [await client.log_in() for _ in range(3)]
        await client.ask("DELETE", logins[0].headers["Location"])
        again = await client.log_in()
    assert [login.status for login in logins] == [201, 201, 503]
    assert logins[2].message == "SessionLimitExceeded"
    assert again.status == 201


async def test_an_open_service_takes_any_login_and_needs_none() -> None:
    async with bmc() as client:
        assert (await client.get(f"{ROOT}/Chassis")).status == 200
        assert (await client.log_in("anybody", "anything")).status == 201


async def test_a_tree_without_a_session_service_has_one() -> None:
    async with bmc() as client:
        service = await client.get(f"{ROOT}/SessionService")
    assert service.tree["Sessions"] == {"@odata.id": SESSIONS}


async def test_a_change_is_answered_with_the_new_resource() -> None:
    tree = SmallTree()
    async with bmc(tree) as client:
        answer = await client.ask("PATCH", CONTROL, json={"SetPoint": 250})
        read = await client.get(CONTROL)
    assert (answer.status, answer.tree["SetPoint"]) == (200, 250)
    assert answer.headers["ETag"] == read.headers["ETag"]
    assert tree.resources[CONTROL]["SetPoint"] == 250


@pytest.mark.parametrize(
    ("change", "message", "where"),
    [
        ({"SetPoint": 900}, "PropertyValueOutOfRange", ["#/SetPoint"]),
        ({"Mode": 1}, "PropertyUnknown", ["#/Mode"]),
        ({}, "NoOperation", None),
    ],
)
async def test_a_change_that_the_tree_refuses_names_the_property(
    change: dict[str, object], message: str, where: list[str] | None
) -> None:
    async with bmc() as client:
        answer = await client.ask("PATCH", CONTROL, json=change)
    told = answer.tree["error"]["@Message.ExtendedInfo"][0]
    assert (answer.status, answer.message) == (400, message)
    assert told.get("RelatedProperties") == where


async def test_a_change_of_what_has_changed_since_is_refused() -> None:
    async with bmc() as client:
        etag = (await client.get(CONTROL)).headers["ETag"]
        first = await client.ask("PATCH", CONTROL, json={"SetPoint": 1}, headers={"If-Match": etag})
        late = await client.ask("PATCH", CONTROL, json={"SetPoint": 2}, headers={"If-Match": etag})
    assert (first.status, late.status, late.message) == (200, 412, "PreconditionFailed")


async def test_a_body_of_another_kind_is_refused() -> None:
    async with bmc() as client:
        headers = {"Content-Type": "text/xml"}
        answer = await client.ask("PATCH", CONTROL, data="<x/>", headers=headers)
    assert (answer.status, answer.message) == (415, "GeneralError")


async def test_requests_are_counted() -> None:
    async with bmc(faults=lambda: frozenset({"redfish_slow"}), slow_s=0.05) as client:
        await asyncio.gather(*(client.get(f"{ROOT}/Chassis/{n}") for n in (1, 2, 3)))
    assert (client.service.requests, client.service.most_in_flight) == (3, 3)
    assert sorted(client.service.asked)[0] == "GET /redfish/v1/Chassis/1 200"


async def test_a_taken_port_is_told_in_one_line() -> None:
    async with RedfishService(SmallTree()).serve() as address:
        with pytest.raises(HeatpoolError, match=rf"^port {address.port} on 127.0.0.1: Address"):
            async with RedfishService(SmallTree(), port=address.port).serve():
                pass


async def test_it_speaks_tls(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    async with RedfishService(SmallTree(), tls=context).serve() as address:
        url = f"https://localhost:{address.port}/redfish/v1/Chassis"
        async with aiohttp.ClientSession() as web, web.get(url, ssl=trust) as answer:
            assert answer.status == 200


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key, made for this test."""
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    names = ["-addext", "subjectAltName=DNS:localhost", "-out", str(files[0])]
    try:
        subprocess.run(
            ["openssl", *words, *names, "-keyout", str(files[1])], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed; it makes the test's certificate")
    return files


@pytest.mark.parametrize("key", ["PropertyUnknown", "PropertyValueOutOfRange", "GeneralError"])
def test_a_refusal_that_names_too_little_is_still_told(key: str) -> None:
    assert redfish_message.body(key)["error"]["code"].endswith(key)
