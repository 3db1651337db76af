"""The Redfish service's answers hold for any request and any page, without a socket."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from integration.redfish_bmc import CONTROL, RESOURCES, SmallTree

from heatpool_sim.devices import redfish_folder
from heatpool_sim.devices.redfish_answer import Answers, Ask, Reply
from heatpool_sim.devices.redfish_bridge import bridges
from heatpool_sim.devices.redfish_session import SESSIONS, Sessions
from heatpool_sim.devices.redfish_tree import ROOT, normal, reachable
from heatpool_sim.plant.faults import REDFISH

paths = st.one_of(st.sampled_from([*RESOURCES, SESSIONS, "/", "/redfish"]), st.text())
queries = st.dictionaries(
    st.sampled_from(["$skip", "$top", "$expand", "only", "excerpt", "$filter", "x"]),
    st.one_of(st.sampled_from(["", "1", "-1", ".", "*($levels=3)", "~"]), st.text()),
)
headers = st.dictionaries(
    st.sampled_from(["Accept", "If-None-Match", "If-Match", "X-Auth-Token", "Authorization"]),
    st.one_of(st.sampled_from(["*", "*/*", "Basic eA=="]), st.text()),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
names = st.text("AbC1", min_size=1, max_size=6)


def served(tree: Any = None, *, user: str = "") -> Answers:
    """Answers from a tree, locked where there is a user."""
    sessions = Sessions(user=user, password="right", slots=1)
    return Answers(SmallTree() if tree is None else tree, sessions)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"]),
    path=paths,
    query=queries,
    headers=headers,
    body=st.binary(max_size=40),
    faults=st.sets(st.sampled_from(sorted(REDFISH))),
    user=st.sampled_from(["", "admin"]),
)
def test_any_request_has_an_answer(
    method: str,
    path: str,
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes,
    faults: set[str],
    user: str,
) -> None:
    ask = Ask(method=method, path=path, query=query, headers=headers, body=body)
    reply = served(user=user).reply(ask, frozenset(faults))
    assert isinstance(reply, Reply) and 200 <= reply.status < 600
    assert reply.headers["OData-Version"] == "4.0"


@given(change=values)
def test_a_change_of_any_form_is_taken_or_refused_whole(change: Any) -> None:
    tree = SmallTree()
    ask = Ask(method="PATCH", path=CONTROL, body=json.dumps(change).encode())
    reply = served(tree).reply(ask, frozenset())
    assert reply.status == 400
    assert tree.resources[CONTROL] == RESOURCES[CONTROL]


@given(page=values, faults=st.sets(st.sampled_from(sorted(REDFISH))))
def test_any_page_is_served_with_any_fault(page: Any, faults: set[str]) -> None:
    resource = {"@odata.id": page, "Members": page, "PowerSupplies": page, "InputPowerWatts": page}
    tree = SmallTree()
    tree.resources[CONTROL] = resource | {"Members@odata.count": page}
    for query in ({}, {"$top": "1"}, {"$expand": "*"}, {"only": ""}):
        ask = Ask(method="GET", path=CONTROL, query=query)
        assert served(tree).reply(ask, frozenset(faults)).status in (200, 400, 401, 503)


@given(body=st.binary(max_size=60))
def test_any_file_is_served_as_it_is(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.json").write_bytes(body)
        tree = redfish_folder.read(Path(folder))
    replies = [served(tree).reply(Ask(method="GET", path=path), frozenset()) for path in tree.pages]
    assert [reply.body for reply in replies] == [body]


@given(parts=st.lists(st.lists(names, min_size=1, max_size=6), min_size=1, max_size=6))
def test_bridges_lead_to_every_page_that_links_nowhere(parts: list[list[str]]) -> None:
    caught = {normal(f"{ROOT}/{'/'.join(part)}"): {"Id": part[-1]} for part in parts}
    # A page that was caught keeps its own links, so what lies below it is its own affair.
    tops = {
        path: page
        for path, page in caught.items()
        if not any(path.startswith(f"{other}/") for other in caught)
    }
    found = reachable((bridges(tops) | tops).get)
    assert tops.keys() <= found.keys()
