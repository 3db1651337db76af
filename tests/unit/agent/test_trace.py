"""A trace out of the lines of a CSV file, in every hand that building automation writes."""

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.trace import Trace, encoding, read
from heatpool_agent.core.trace_cell import Cell, decimal_sign, value_of
from heatpool_agent.core.trace_columns import Mapped, mapped, resolved

NEW_YEAR_NS = 1_767_225_600_000_000_000
SECOND_NS = 10**9


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def trace_of(text: str, *columns: str) -> Trace:
    return read(lines(text), [mapped(column) for column in columns])


@pytest.mark.parametrize(
    "text",
    [
        "time,power_w\n2026-01-01T00:00:00Z,1234.5\n2026-01-01T00:00:10Z,1300\n",
        "time;power_w\r\n2026-01-01T00:00:00Z;1234,5\r\n2026-01-01T00:00:10Z;1300\r\n",
        "time;power_w\n2026-01-01T00:00:00Z;1.234,5\n2026-01-01T00:00:10Z;1.300,0\n",
        "time\tpower_w\n2026-01-01T00:00:00Z\t1234.5\n2026-01-01T00:00:10Z\t1300\n",
        '\ufeff"time","power_w"\n"2026-01-01T00:00:00Z","1,234.5"\n2026-01-01T00:00:10Z,"1,300.0"\n',
        "# a log\n\ntime,power_w\n# comment\n2026-01-01T00:00:00Z,1234.5\n\n1767225610,1300\n"
        "2026-01-01T00:00:10Z,1300\n",
        "Trend export of plant 3;\nMade by hand;\ntime;power_w\n;W\n"
        "2026-01-01T00:00:00Z;1234,5\n2026-01-01T00:00:10Z;1300,0\n",
        " TIME , Power_W \n2026-01-01T00:00:00Z, 1234.5 \n2026-01-01T00:00:10Z, 1300\n",
        "time;power_w\n2026-01-01T00:00:00Z;1 234,5\n2026-01-01T00:00:10Z;1'300,0\n",
    ],
)
def test_one_log_in_every_dialect_is_one_trace(text: str) -> None:
    trace = trace_of(text)
    assert trace.reason is None
    assert list(trace.event_ns) == [NEW_YEAR_NS, NEW_YEAR_NS + 10 * SECOND_NS]
    assert list(trace.values["power_w"]) == [1234.5, 1300.0]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "empty"), ("N/A", "empty"), ("NaN", "empty"), ("-", "empty"),
        ("Bad", "not_a_number"), ("inf", "not_a_number"), ("12 kW", "not_a_number"),
        ("1_000", "not_a_number"), ("\ufffd", "not_a_number"),
        ("243", "sentinel"), ("65535", "sentinel"), ("3276.7", "sentinel"), ("-32768", "sentinel"),
        ("151", "out_of_range"), ("-40", "below_zero"),
    ],
)  # fmt: skip
def test_a_cell_that_is_no_figure_is_absent_and_counted(cell: str, reason: str) -> None:
    trace = trace_of(f"time,hot_c\n2026-01-01T00:00:00Z,{cell}\n2026-01-01T00:00:10Z,40\n")
    assert isnan(trace.values["hot_c"][0])
    assert trace.values["hot_c"][1] == 40.0
    assert trace.absent["hot_c"] == {reason: 1}
    assert trace.reasons[trace.marks[0]] == (f"{reason}:hot_c",)


def test_water_that_flows_backwards_is_absent_not_negative() -> None:
    trace = trace_of("time,volume_flow_m3_h\n0,-3\n10,3\n")
    assert trace.absent["volume_flow_m3_h"] == {"below_zero": 1}


def test_both_pipes_at_exactly_0_are_a_meter_without_sensors() -> None:
    trace = trace_of("time,hot_c,cold_c\n0,0,0\n10,40,30\n20,10,0\n")
    assert [isnan(value) for value in trace.values["cold_c"]] == [True, False, False]
    assert trace.absent["hot_c"] == {"sentinel": 1}


def test_a_flow_far_above_all_others_is_absent_and_told() -> None:
    flows = ["0.4" if index % 3 else "2.1" for index in range(60)]
    flows[30] = "243"
    cells = "".join(f"{index},{told},40,30\n" for index, told in enumerate(flows))
    trace = trace_of(f"time,volume_flow_m3_h,hot_c,cold_c\n{cells}")
    assert trace.absent["volume_flow_m3_h"] == {"spike": 1}
    assert isnan(trace.values["volume_flow_m3_h"][30])
    assert trace.reasons[trace.marks[30]] == ("spike:volume_flow_m3_h",)
    assert trace.values["hot_c"][30] == 40.0


def test_a_pump_that_rarely_runs_fast_is_believed() -> None:
    cells = "".join(f"{index},{2 if index % 20 else 9}\n" for index in range(100))
    trace = trace_of(f"time,volume_flow_m3_h\n{cells}")
    assert not trace.absent["volume_flow_m3_h"]


def test_rows_come_in_the_order_of_time_and_once() -> None:
    trace = trace_of("time,power_w,hot_c\n20,3,\n0,1,\n10,2,40\n10,,41\n20,4,50\n")
    assert list(trace.event_ns) == [0, 10 * SECOND_NS, 20 * SECOND_NS]
    assert list(trace.values["power_w"]) == [1.0, 2.0, 4.0]
    assert list(trace.values["hot_c"])[1:] == [41.0, 50.0]
    assert trace.flags["unsorted_rows"] == 1
    assert trace.flags["duplicate_times"] == 2


def test_a_zone_that_is_not_named_is_said_to_be_assumed() -> None:
    trace = trace_of("time,power_w\n2026-01-01T00:00:00,1\n2026-01-01T00:00:10,1\n")
    assert trace.event_ns[0] == NEW_YEAR_NS
    assert trace.flags["zone_assumed"] == 2


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no line"),
        ("\n\n# nothing\n", "no line"),
        ("stamp,power_w\n0,1\n", "time=stamp"),
        ("time,kW\n0,1\n", "--column"),
        ("time,power_w\n46023.0,1\n46023.0104,1\n46023.0208,1\n", "days of a spreadsheet"),
        ("time;power_w\n46023,5;1,5\n46023,6;1,5\n", "days of a spreadsheet"),
        ("date,time,power_w\n2026-01-01,00:00,1\n2026-01-01,00:15,1\n", "join date and time"),
        ("time,power_w\nsoon,1\nlater,2\n", "'soon'"),
        ("time,power_w\n03/04/2026,1\n03/05/2026,1\n", "day and month"),
        ("time,power_w\n", "no row follows its header"),
        ("time,power_w\n" + "9" * 60_000 + ",1\n", "999': no time"),
        ("\x00\x01\x02\xff" * 50, "no column"),
    ],
)
def test_a_file_of_no_use_says_why(text: str, word: str) -> None:
    assert word in (trace_of(text).reason or "")


@pytest.mark.parametrize(
    ("told", "factor", "offset"),
    [
        ("it_w=P", 1.0, 0.0),
        ("it_w=P*1000", 1000.0, 0.0),
        ("it_w = P / 4", 0.25, 0.0),
        ("hot_c=P-273.15", 1.0, -273.15),
        ("hot_c=P/1.8-17.5", 1 / 1.8, -17.5),
        ("it_w=P*1e3+5", 1000.0, 5.0),
    ],
)
def test_a_column_is_mapped_with_factor_and_offset(told: str, factor: float, offset: float) -> None:
    column = resolved(mapped(told), ["x", "P"])
    assert (column.header, column.factor, column.offset) == ("P", factor, offset)


def test_a_header_that_reads_like_a_sum_is_that_header() -> None:
    column = resolved(Mapped(name="it_w", told="A-B/2"), ["A", "A-B/2"])
    assert (column.header, column.factor) == ("A-B/2", 1.0)


@pytest.mark.parametrize("told", ["it_w", "=P", "it_kw=P", "nonsense=P", ""])
def test_what_is_no_mapping_is_refused(told: str) -> None:
    with pytest.raises(ValueError, match=r"no name=Header|not known"):
        mapped(told)


@pytest.mark.parametrize("told", ["it_w=Q", "it_w=P*0", "it_w=P/0", "time=P*2", "it_w=P*1e999"])
def test_a_mapping_that_makes_no_sense_is_refused(told: str) -> None:
    with pytest.raises(ValueError, match=r"no such column|factor"):
        resolved(mapped(told), ["P"])


@pytest.mark.parametrize(
    ("cells", "is_comma_free", "sign"),
    [
        (["1,5", "2"], False, ","),
        (["1.5", "2"], False, "."),
        (["1.234,5"], False, ","),
        (["1,234.5"], True, "."),
        (["1,234"], False, ","),
        (["1,234"], True, "."),
        (["01.02.2026", "2,5"], False, ","),
        (["2026-01-01T00:00:00.5Z", "7"], False, ","),
        (["12,5"], True, ","),
    ],
)
def test_the_decimal_sign_is_told_by_the_cells(
    cells: list[str], *, is_comma_free: bool, sign: str
) -> None:
    assert decimal_sign(cells, is_comma_free=is_comma_free) == sign


@given(st.floats(min_value=0.01, max_value=9e7), st.sampled_from(".,"))
def test_a_number_written_with_either_sign_is_itself(value: float, decimal: str) -> None:
    text = f"{value:.6f}".replace(".", decimal)
    cell = Cell(low=0.0, high=1e8, decimal=decimal, no_values=frozenset())
    assert value_of(text, cell) == pytest.approx(value, rel=1e-4)


@given(st.text(max_size=60), st.sampled_from(".,"))
def test_no_cell_makes_it_fall(text: str, decimal: str) -> None:
    found = value_of(text, Cell(low=-10.0, high=10.0, decimal=decimal))
    assert isinstance(found, str) or -10.0 <= found <= 10.0


@given(st.lists(st.text(max_size=30), max_size=12))
def test_no_lines_make_it_fall(found: list[str]) -> None:
    read([line + "\n" for line in found])
    trace = read([line + "\n" for line in ("time,power_w", *found)])
    lengths = {len(trace), *(len(column) for column in trace.values.values())}
    assert trace.reason is not None or len(lengths) == 1


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"time,power_w\n", "utf-8"),
        ("time,°C\n".encode(), "utf-8"),
        (b"\xef\xbb\xbftime", "utf-8-sig"),
        ("time;°C; Temp\n0;1;2\n".encode("cp1252"), "cp1252"),
        ("time".encode("utf-16"), "utf-16"),
        (b"", "utf-8"),
        (("°" * 40).encode()[:-1], "utf-8"),
    ],
)
def test_the_encoding_is_told_by_the_first_bytes(first: bytes, name: str) -> None:
    assert encoding(first) == name
