"""The demo, whole: one real site beside twelve simulated ones, all the way to the statement."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DEMO = [sys.executable, "-m", "heatpool_sim", "demo"]
Start = Callable[..., subprocess.Popen[str]]
# Only ends a wait that would never end, on any machine.
PATIENCE_S = 120.0
CLIENT = [sys.executable, "-m", "heatpool_aggregator.client"]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    """Starts the demo as a child; what it logs goes to a file. None outlives its test."""
    demos: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [*DEMO, "--state", str(tmp_path / "demo"), *arguments]
        with (tmp_path / "demo.log").open("ab") as log:
            demos.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True))
        return demos[-1]

    yield start
    for demo in demos:
        if demo.poll() is None:
            demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=PATIENCE_S)


def ended(child: subprocess.Popen[str]) -> str:
    """What the demo wrote to stdout, once it is over."""
    told, _ = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0
    return told


def children_of(
    demo: subprocess.Popen[str], module: str, *, holding: str = ""
) -> list[psutil.Process]:
    """The programs of the demo that run this module with such an argument."""
    found = []
    for child in psutil.Process(demo.pid).children(recursive=True):
        # One that ends in this moment is none of them.
        with suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if f"-m {module}" in line and holding in line:
                found.append(child)
    return found


def killed_and_again(demo: subprocess.Popen[str], module: str, *, holding: str = "") -> None:
    """kill -9 of a program of the demo; returns once the demo runs another in its place."""
    gone = children_of(demo, module, holding=holding)
    assert gone, f"no {module} {holding} among the demo's children"
    gone[0].kill()
    eventually(lambda: {*children_of(demo, module, holding=holding)} - {*gone} != set())


def eventually(is_true: Callable[[], bool]) -> None:
    """Waits for a claim to hold."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.2)


def asked(page: str, path: str) -> Any:
    """An answer of the page, None while it does not answer."""
    try:
        with urlopen(f"{page}{path}", timeout=30) as answer:
            return json.load(answer)
    except OSError:
        return None


def fresh_count(page: str) -> int:
    """Members of all virtual sources that speak."""
    answer = asked(page, "v1/sources")
    return sum(source["fresh_count"] for source in answer["virtual_sources"]) if answer else 0


def whole_statement(page: str) -> dict[str, Any] | None:
    """The newest one with all twelve lines; a newer one may wait for a site that was killed."""
    statements: list[dict[str, Any]] = asked(page, "v1/statements?limit=20")["statements"]
    return next((each for each in statements if len(each["lines"]) == 12), None)


def test_thirty_seconds_end_in_one_summary(started: Start) -> None:
    summary = json.loads(ended(started("--seconds", "30", "--json")))
    assert (summary["sites"], summary["real_sites"]) == (13, 1)
    assert summary["batches_sent"] >= summary["batches_acked"] > 100
    assert (summary["spool_unacked"], summary["balance_error_wh"]) == (0, 0)
    assert summary["plant_error_wh"] == 0, "billed is not what the plants' own meters moved"
    sources = {source["kind"]: source for source in summary["virtual_sources"]}
    assert sources.keys() == {"greenhouse", "swimming_pool", "district_loop"}
    for source in sources.values():
        assert 0 < source["heat_rate_w_u"] < source["heat_rate_w"]
        assert source["energy_wh"] > 0
        assert 30 < source["hot_c"] < 70
    check_statement(summary["statement"])


def check_statement(statement: dict[str, Any]) -> None:
    """Twelve lines of money, none of them from the machine that has no heat meter."""
    lines = statement["lines"]
    assert {line["site"] for line in lines} == {f"s{number:02}" for number in range(1, 13)}
    for line in lines:
        moved_wh = (line["register_close_wh"] - line["register_open_wh"]) % 10**8
        assert line["energy_wh"] == moved_wh
        assert Decimal(line["amount_eur"]) >= 0
    assert statement["period_start"] < statement["period_end"]


def test_kills_in_the_demo_lose_nothing_and_the_next_demo_goes_on(started: Start) -> None:
    demo = started()
    assert demo.stdout is not None
    page = demo.stdout.readline().split()[-1]
    address = demo.stdout.readline().strip().rpartition("=")[2]
    eventually(lambda: fresh_count(page) == 13)
    eventually(lambda: bool(asked(page, "v1/statements?limit=1")["statements"]))
    killed_and_again(demo, "heatpool_aggregator")
    eventually(lambda: fresh_count(page) == 13)
    killed_and_again(demo, "heatpool_agent", holding="s03")
    eventually(lambda: fresh_count(page) == 13)
    said = subprocess.run(
        [*CLIENT, "sources", "--json", "--address", address],
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert len(json.loads(said.stdout)["virtual_sources"]) == 3
    with urlopen(f"{page}metrics", timeout=30) as answer:
        assert b"heatpool_source_heat_watts" in answer.read()
    eventually(lambda: whole_statement(page) is not None)
    before = whole_statement(page)
    assert before is not None
    demo.send_signal(signal.SIGINT)
    ended(demo)
    summary = json.loads(ended(started("--seconds", "25", "--json")))
    assert (summary["spool_unacked"], summary["balance_error_wh"]) == (0, 0)
    assert summary["statement"]["period_start"] > before["period_start"]
    opened = {line["site_id"]: line["register_open_wh"] for line in before["lines"]}
    for line in summary["statement"]["lines"]:
        assert 0 <= (line["register_open_wh"] - opened[line["site"]]) % 10**8 < 10_000
