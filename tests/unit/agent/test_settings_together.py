"""What of an agent's settings does not fit together is named by its key, and nothing else."""

import pytest

from heatpool_agent.config import (
    Aggregator,
    Config,
    Loop,
    Sampling,
    loop_model,
    loop_priors,
    mistakes,
)
from heatpool_agent.core.loop_sample import LoopModel


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


@pytest.mark.parametrize("cooling", ["dlc", "dlc_full", "immersion", "air_coil", "air"])
def test_a_loop_s_model_is_the_priors_of_its_cooling(cooling: str) -> None:
    model = loop_model(Loop(id="rack", cooling=cooling))  # type: ignore[arg-type]
    priors, _ = loop_priors(cooling)
    assert model.capture_frac == priors.capture_frac
    assert model.gain_u_frac == pytest.approx(
        max(1e-3, priors.capture_frac_u / priors.capture_frac)
    )
    assert model.tau_s == LoopModel().tau_s
    # Heat that is lost to the room is no less heat that left the IT with the air.
    assert model.loss_frac == 0.0
    assert (model.loss_frac_u <= 1e-3) == (cooling == "air")


def test_what_a_site_knows_of_its_loop_is_known_better() -> None:
    model = loop_model(Loop(id="rack", tau_s=240.0, delay_s=75.0))
    assert (model.tau_s, model.delay_s) == (240.0, 75.0)
    assert model.tau_ln_u < LoopModel().tau_ln_u
    assert model.delay_s_u < LoopModel().delay_s_u
