"""The aggregator's /metrics page, whole, against a golden page."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from heatpool_aggregator.board import Board
from heatpool_aggregator.exports.prometheus import render

GOLDEN = Path(__file__).parents[2] / "data" / "aggregator_metrics.txt"


def figures(page: bytes) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(page.decode())
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, s.labels.get("virtual_source_id", "")): s.value for s in samples}


def test_the_page_is_the_golden_page(board: Any) -> None:
    page = render(board).decode().replace(f'version="{version("heatpool")}"', 'version="X"')
    assert page == GOLDEN.read_text(encoding="utf-8")


def test_energy_is_in_joules_and_heat_in_watts(board: Any) -> None:
    found = figures(render(board))
    assert found["heatpool_source_energy_joules_total", "vs-greenhouse"] == 1_234_567 * 3600
    assert found["heatpool_source_heat_watts", "vs-greenhouse"] == 41_250
    assert found["heatpool_statement_energy_joules", "vs-greenhouse"] == 10_312 * 3600


def test_absent_figures_are_left_out(board: Any) -> None:
    names = {name for name, source in figures(render(board)) if source == "vs-swimming"}
    assert "heatpool_source_heat_watts" not in names
    assert "heatpool_source_watermark_seconds" not in names
    assert "heatpool_source_energy_joules_total" in names


def test_an_empty_board_has_a_page_without_statement() -> None:
    found = {name for name, _ in figures(render(Board()))}
    assert "heatpool_build_info" in found
    assert not [name for name in found if re.match("heatpool_(statement|settlement|source)", name)]
