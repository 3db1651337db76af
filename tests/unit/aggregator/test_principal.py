"""Who may what, who sees what, and which URIs are names of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_aggregator.core.principal import (
    LOCAL,
    Action,
    Principal,
    Role,
    covers,
    is_name,
    may,
    name_of,
    sees,
    speaks_for,
    uri_of,
)

# Role, then whether it may: read, read accounts, command, enrol, audit, speak, renew.
TABLE = [
    (Role.ADMIN, (1, 1, 1, 1, 1, 0, 1)),
    (Role.OPERATOR, (1, 1, 1, 0, 1, 0, 1)),
    (Role.SETTLEMENT, (1, 1, 0, 0, 1, 0, 1)),
    (Role.READ_ONLY, (1, 0, 0, 0, 0, 0, 1)),
    (Role.SITE_OWNER, (1, 1, 0, 0, 0, 0, 1)),
    (Role.SITE, (0, 0, 0, 0, 0, 1, 1)),
]
ACTIONS = (
    Action.READ,
    Action.READ_ACCOUNTS,
    Action.COMMAND,
    Action.ENROL,
    Action.AUDIT,
    Action.SPEAK,
    Action.RENEW,
)


def who(role: Role, name: str = "person/anna", tenant: str = "") -> Principal:
    return Principal(name=name, role=role, tenant=tenant)


@pytest.mark.parametrize(("role", "expected"), TABLE, ids=[role for role, _ in TABLE])
def test_each_role_may_what_the_table_says_and_no_more(
    role: Role, expected: tuple[int, ...]
) -> None:
    assert tuple(int(may(who(role), action)) for action in ACTIONS) == expected
    assert set(ACTIONS) == set(Action) and {r for r, _ in TABLE} == set(Role)


def test_this_machine_may_all_and_speaks_for_any_site() -> None:
    assert all(may(LOCAL, action) for action in Action)
    assert sees(LOCAL, "anybody") and speaks_for(LOCAL, "e1")


@pytest.mark.parametrize(
    ("role", "tenant", "owner", "expected"),
    [
        (Role.OPERATOR, "", "north", True),
        (Role.OPERATOR, "north", "north", True),
        (Role.OPERATOR, "north", "south", False),
        (Role.OPERATOR, "north", "", False),
        (Role.SITE_OWNER, "north", "north", True),
        (Role.SITE_OWNER, "", "north", False),
        (Role.SITE_OWNER, "", "", False),
        (Role.SITE, "", "", False),
    ],
)
def test_a_tenant_sees_its_own_only(role: Role, tenant: str, owner: str, *, expected: bool) -> None:
    assert sees(who(role, tenant=tenant), owner) is expected


@pytest.mark.parametrize(
    ("principal", "site_id", "expected"),
    [
        (who(Role.SITE, "site/e1"), "e1", True),
        (who(Role.SITE, "site/e1"), "e10", False),
        (who(Role.SITE, "person/e1"), "e1", False),
        (who(Role.ADMIN, "site/e1"), "e1", False),
        (who(Role.ADMIN), "e1", False),
    ],
)
def test_only_the_site_itself_speaks_for_it(
    principal: Principal, site_id: str, *, expected: bool
) -> None:
    assert speaks_for(principal, site_id) is expected


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://heatpool",
        "spiffe://heatpool/",
        "spiffe://heatpool/site/",
        "spiffe://heatpool/site/../x",
        "spiffe://heatpool/site/a/b",
        "spiffe://heatpool/site/e1\n",
        "spiffe://heatpool/site/e1?x",
        "spiffe://heatpool/root/e1",
        "spiffe://heatpool/local",
        "spiffe://heatpool.example/site/e1",
        "SPIFFE://heatpool/site/e1",
        "https://heatpool/site/e1",
        " spiffe://heatpool/site/e1",
    ],
)
def test_a_uri_that_we_never_give_names_nobody(uri: str) -> None:
    assert name_of("heatpool", uri) is None


@given(st.sampled_from(["site", "person", "machine"]), st.from_regex(r"[A-Za-z0-9._-]{0,70}"))
def test_a_name_comes_back_out_of_its_uri(kind: str, name: str) -> None:
    found = name_of("heatpool", uri_of("heatpool", f"{kind}/{name}"))
    assert found == (f"{kind}/{name}" if is_name(name) else None)


@given(st.text())
def test_no_text_upsets_the_reader_of_uris(uri: str) -> None:
    assert name_of("heatpool", uri) is None


@pytest.mark.parametrize(
    ("holder", "wanted", "expected"),
    [
        (Role.ADMIN, Role.OPERATOR, True),
        (Role.READ_ONLY, Role.ADMIN, False),
        (Role.SETTLEMENT, Role.OPERATOR, False),
        (Role.ADMIN, Role.SITE, False),
    ],
)
def test_a_token_may_do_no_more_than_its_holder(
    holder: Role, wanted: Role, *, expected: bool
) -> None:
    assert covers(holder, wanted) is expected
