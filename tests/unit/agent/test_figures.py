"""Numbers for people: digits follow the doubt, units scale, absent is a dash."""

import math

import pytest

from heatpool_agent.http import figures
from heatpool_agent.http.markup import Markup, fitting, tag

GAP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value_w", "half_w", "told"),
    [
        (18_620.0, 770.3, ("18.62 kW", "± 0.77 kW")),
        (18_620.0, 3_175.0, ("18.6 kW", "± 3.2 kW")),
        (61.23, 9.41, ("61.2 W", "± 9.4 W")),
        (912.0, 357.0, ("910 W", "± 360 W")),
        (999.7, 20.0, ("1.000 kW", "± 0.020 kW")),
        (2_500_000.0, 40_000.0, ("2.500 MW", "± 0.040 MW")),
        (0.0, 12.0, ("0 W", "± 12 W")),
        (-0.2, 30.0, ("0 W", "± 30 W")),
        (-1_240.0, 310.0, ("−1.24 kW", "± 0.31 kW")),
        (21_480.0, None, ("21.5 kW", "–")),
        (21_480.0, 0.0, ("21.5 kW", "–")),
        (0.0, None, ("0 W", "–")),
        (None, None, ("–", "–")),
        (math.nan, 5.0, ("–", "–")),
        (math.inf, 5.0, ("–", "–")),
    ],
)
def test_a_rate_has_no_more_digits_than_its_doubt_supports(
    value_w: float | None, half_w: float | None, told: tuple[str, str]
) -> None:
    value, half = figures.with_doubt(value_w, half_w)
    assert (value.replace(GAP, " "), half.replace(GAP, " ")) == told


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (figures.energy(240_422_366.27), "66.78 kWh"),
        (figures.energy(0.0), "0 Wh"),
        (figures.size(0), "0 B"),
        (figures.size(61_440), "61.4 kB"),
        (figures.size(79_000_000), "79.0 MB"),
        (figures.span(0.0042), "4 ms"),
        (figures.span(87.4), "87 s"),
        (figures.span(900.0), "15 min"),
        (figures.span(None), "–"),
        (figures.measure(None, "K", 1), "–"),
        (figures.measure(-0.04, "K", 1), "0.0 K"),
        (figures.stamp(1_760_000_000_999_999_999), "2025-10-09 08:53:20 UTC"),
    ],
)
def test_other_measures_scale_to_what_a_person_reads(told: str, text: str) -> None:
    assert told.replace(GAP, " ") == text


def test_text_is_escaped_once_and_markup_never() -> None:
    assert tag("p", "a<b", tag("b", "&"), css="x") == '<p class="x">a&lt;b<b>&amp;</b></p>'


def test_what_does_not_fit_is_counted() -> None:
    parts = [Markup("12345"), Markup("123"), Markup("1")]
    assert fitting(parts, most_bytes=8) == ("12345123", 1)
    assert fitting(parts, most_bytes=4) == ("", 3)
