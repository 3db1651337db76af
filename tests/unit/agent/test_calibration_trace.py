"""A log as lessons: what it holds is learnt, what it lacks is told, and nothing breaks it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.calibration_trace import Log, Meter, fitted, read

METER = Meter(host="", logical_cpu_count=16, u_frac=0.02)
NOW_NS = 1_760_000_000_000_000_000


def lines(count: int = 30, *, step_s: int = 60, sign: str = ".", delimiter: str = ",") -> list[str]:
    told = [delimiter.join(("time", "cpu_w", "power_w"))]
    for at in range(count):
        cpu_w = 40.0 + 11.0 * ((7 * at) % 13)
        cells = (f"{at * step_s}", f"{cpu_w:.1f}", f"{80 + 1.1 * cpu_w:.2f}")
        told.append(delimiter.join(cell.replace(".", sign) for cell in cells))
    return told


def base_w(log: Log) -> float:
    (found,) = fitted(log, METER, now_ns=NOW_NS)
    return found.values[0]


@pytest.mark.parametrize(("sign", "delimiter"), [(".", ","), (",", ";"), (",", "\t"), (".", ";")])
def test_a_log_is_learnt_however_it_is_written(sign: str, delimiter: str) -> None:
    log = read(lines(120, sign=sign, delimiter=delimiter))
    assert (len(log.rows), log.left_out) == (120, 0)
    assert base_w(log) == pytest.approx(80, rel=0.1)


def test_a_log_that_counts_from_nothing_ends_now_and_one_with_dates_then() -> None:
    (found,) = fitted(read(lines()), METER, now_ns=NOW_NS)
    assert found.learned_ns == NOW_NS
    dated = lines()
    dated[1:] = [
        f"2025-11-20T10:{at:02d}:00+01:00,{line.partition(',')[2]}"
        for at, line in enumerate(dated[1:])
    ]
    (found,) = fitted(read(dated), METER, now_ns=NOW_NS)
    assert found.learned_ns == 1_763_630_940_000_000_000


def test_rows_of_seconds_are_lessons_of_ten() -> None:
    (found,) = fitted(read(lines(400, step_s=1)), METER, now_ns=NOW_NS)
    assert 30 <= found.count <= 41


def test_rows_with_a_cell_that_is_no_number_are_left_out_and_counted() -> None:
    told = lines()
    told[3] = "120,,130"
    told[4] = "180,nan,130"
    told[5] = "240,-5,130"
    assert read(told).left_out == 3


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([], "no line"),
        (["cpu_w,busy_frac", "1,2"], "needed are power_w"),
        (["\x00\x1b[2J" * 9000, "1"], r"columns are '\\x00\\x1b.{,200}; needed are power_w"),
        (["power_w", "1"], "cpu_w, gpu_w or busy_frac"),
        (["power_w,busy_frac", "100,50"], "divide it by 100"),
    ],
)
def test_a_log_of_no_use_says_why(told: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(told)


@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_text_is_a_log_or_says_that_it_is_none(body: list[str]) -> None:
    try:
        log = read(["time,cpu_w,busy_frac,power_w", *body])
    except ValueError:
        return
    fitted(log, METER, now_ns=NOW_NS)
