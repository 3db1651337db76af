"""The audit chain: whoever changes, removes, inserts or swaps an entry is seen."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_aggregator.core.audit import AuditEntry, Deed, chained, first_break

TEXT = st.text(max_size=8)
DEEDS = st.builds(
    Deed,
    at_ns=st.integers(-(2**63), 2**63 - 1),
    who=TEXT,
    action=TEXT,
    subject=TEXT,
    reason=TEXT,
    detail=TEXT,
)


def chain(deeds: list[Deed]) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for deed in deeds:
        entries.append(chained(entries[-1] if entries else None, deed))
    return entries


def deed(number: int) -> Deed:
    return Deed(at_ns=number, who="person/anna", action="site.revoke", subject=f"site/e{number}")


FIVE = chain([deed(number) for number in range(5)])


@given(st.lists(DEEDS, max_size=6))
def test_what_was_chained_holds_whole_and_in_parts(deeds: list[Deed]) -> None:
    entries = chain(deeds)
    assert first_break(entries) is None
    assert [entry.number for entry in entries] == list(range(1, len(deeds) + 1))
    for before, entry in pairwise(entries):
        assert first_break([entry], before=before) is None


@given(DEEDS, DEEDS)
def test_two_deeds_have_two_hashes(one: Deed, other: Deed) -> None:
    same = chained(None, one).chain_sha256 == chained(None, other).chain_sha256
    assert same is (one == other)


def test_a_letter_moved_into_the_next_field_is_seen() -> None:
    one = replace(deed(0), who="ab", action="c")
    other = replace(deed(0), who="a", action="bc")
    assert chained(None, one).chain_sha256 != chained(None, other).chain_sha256


@pytest.mark.parametrize(
    ("tamper", "number"),
    [
        (lambda e: [e[0], replace(e[1], reason="nicer"), *e[2:]], 2),
        (lambda e: [e[0], replace(e[1], at_ns=77), *e[2:]], 2),
        (lambda e: [e[0], *e[2:]], 2),
        (lambda e: e[1:], 1),
        (lambda e: [e[0], e[2], e[1], *e[3:]], 2),
        (lambda e: [*e[:3], e[2], *e[3:]], 4),
        (lambda e: [*e[:3], chained(e[1], deed(9)), *e[3:]], 4),
    ],
    ids=["text", "time", "removed", "first removed", "swapped", "doubled", "inserted"],
)
def test_tampering_is_found_where_it_begins(
    tamper: Callable[[list[AuditEntry]], list[AuditEntry]], number: int
) -> None:
    assert first_break(tamper(FIVE)) == number
