"""Every mark of our own has words, and the manual says the same."""

from pathlib import Path

import pytest

from heatpool_agent.core.marks import OF_DRIVERS, told, words
from heatpool_agent.core.mbus import STATUS_FLAGS
from heatpool_agent.core.plausible import FLAGS, REFUSED_BY_DRIVERS, REJECTING
from heatpool_agent.core.redfish import flags as redfish

_REDFISH = [value for name, value in vars(redfish).items() if name.isupper() and type(value) is str]


_MBUS = [flag for _, flag in STATUS_FLAGS]


@pytest.mark.parametrize("flag", [*_REDFISH, *_MBUS, *sorted(REJECTING)])
def test_no_mark_of_our_own_is_shown_raw(flag: str) -> None:
    assert words(flag) != flag.replace("_", " ")


@pytest.mark.parametrize(("flag", "text"), OF_DRIVERS.items())
def test_the_manual_lists_the_marks_of_drivers(flag: str, text: str) -> None:
    refused = "yes" if flag in REFUSED_BY_DRIVERS else "no"
    page = (Path(__file__).parents[3] / "docs/physics.md").read_text(encoding="utf-8")
    assert f"| `{flag}` | {refused} | {text} |" in page
    assert flag not in FLAGS


def test_a_foreign_mark_is_its_own_name_and_none_is_told_twice() -> None:
    assert words("their_own") == "their own"
    assert told(["twin", "their_own", "twin"]) == f"{OF_DRIVERS['twin']}; their own"
