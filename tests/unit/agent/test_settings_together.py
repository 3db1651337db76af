"""What of an agent's settings does not fit together is named by its key, and nothing else."""

import pytest

from heatpool_agent.config import Aggregator, Config, Loop, Sampling, mistakes


def test_the_settings_nobody_touched_are_fine() -> None:
    assert mistakes(Config(loop=(Loop(id="rack"),))) == []


@pytest.mark.parametrize(
    ("sampling", "key"),
    [
        (Sampling(period_s=61.0, report_period_s=61.0, message_period_s=61.0), "period_s"),
        (Sampling(report_period_s=1.0, message_period_s=1_001.0), "message_period_s"),
        (Sampling(report_period_s=10.0, message_period_s=10_010.0), "message_period_s"),
        (Sampling(report_period_s=float("nan")), "report_period_s"),
        (Sampling(message_period_s=float("inf")), "message_period_s"),
    ],
)
def test_a_period_out_of_bounds_is_named(sampling: Sampling, key: str) -> None:
    found = mistakes(Config(sampling=sampling))
    assert any(mistake.startswith(f"sampling.{key}: ") for mistake in found)


def test_the_most_rows_of_a_message_are_allowed() -> None:
    assert mistakes(Config(sampling=Sampling(message_period_s=10_000.0))) == []


@pytest.mark.parametrize("hot_limit_c", [float("nan"), float("inf"), 19.9, 95.1, -300.0])
def test_a_limit_that_protects_nothing_is_named(hot_limit_c: float) -> None:
    (mistake,) = mistakes(Config(loop=(Loop(id="rack", hot_limit_c=hot_limit_c),)))
    assert mistake.startswith("loop[0].hot_limit_c: ")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "http://127.0.0.1:99999",
        "127.0.0.1:x",
        "http://[::1",
        "ftp://127.0.0.1:1",
    ],
)
def test_an_aggregator_without_a_usable_address_is_named(url: str) -> None:
    (mistake,) = mistakes(Config(aggregator=Aggregator(url=url)))
    assert mistake.startswith("aggregator.url: ") and "HOST:PORT" in mistake


@pytest.mark.parametrize("url", ["http://127.0.0.1:9190", "localhost:9190", "grpc://[::1]:9190"])
def test_an_address_on_this_machine_is_fine(url: str) -> None:
    assert mistakes(Config(aggregator=Aggregator(url=url))) == []
