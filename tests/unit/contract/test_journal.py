"""Log lines: one event, one line, whatever words of others are among its facts."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.process.journal import _Logfmt, facts


def line(**values: Any) -> str:
    record = logging.makeLogRecord({"msg": "rpc.refused", "levelname": "WARNING"})
    record.__dict__.update(facts(**values))
    return _Logfmt().format(record)


@given(st.text())
def test_words_of_others_stay_in_their_line_and_drive_no_terminal(words: str) -> None:
    said = line(detail=words, peer="site/e1")
    assert said.isprintable() and len(said.splitlines()) == 1
    assert said.endswith(" peer=site/e1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("a\nb", '"a b"'),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r2026 error forged=1", '"a\\x0d2026 error forged=1"'),
        ("\u2028", "\\x2028"),
        ('say "no"', "\"say 'no'\""),
        ("", '""'),
    ],
)
def test_what_cannot_be_shown_is_marked(words: str, told: str) -> None:
    assert line(detail=words).endswith(f" detail={told}")
