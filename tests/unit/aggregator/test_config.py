"""Settings of the aggregator: what the accounts could not work with is refused with its key."""

from pathlib import Path

import pytest

from heatpool.errors import ConfigError
from heatpool_aggregator import config


def written(folder: Path, terms: str) -> Path:
    path = folder / "aggregator.toml"
    path.write_text(
        '[[virtual_source]]\nid = "vs-1"\nkind = "greenhouse"\nmember = [{ site_id = "s" }]\n'
        f'[virtual_source.agreement]\nid = "hpa-1"\n{terms}\n'
    )
    return path


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("key", ["price_eur_mwh", "round_eur"])
def test_money_that_is_no_number_is_refused(tmp_path: Path, key: str, value: str) -> None:
    terms = {"price_eur_mwh": "45", "round_eur": "0.01"} | {key: value}
    text = "\n".join(f'{name} = "{amount}"' for name, amount in terms.items())
    with pytest.raises(ConfigError, match=rf"virtual_source\[0\]\.agreement\.{key}"):
        config.load(written(tmp_path, text), {})


@pytest.mark.parametrize("step", ["0", "-0.01"])
def test_a_step_of_money_lies_above_0(tmp_path: Path, step: str) -> None:
    path = written(tmp_path, f'price_eur_mwh = "45"\nround_eur = "{step}"')
    with pytest.raises(ConfigError, match="round_eur"):
        config.load(path, {})


def test_cooling_may_have_a_price_below_0(tmp_path: Path) -> None:
    found = config.load(written(tmp_path, 'price_eur_mwh = "-3.5"'), {})
    assert found.virtual_source[0].agreement.price_eur_mwh < 0


def test_without_certificates_there_is_no_tls(tmp_path: Path) -> None:
    assert config.tls_files(config.Config(), tmp_path) is None


def test_certificates_of_init_are_found_by_themselves(tmp_path: Path) -> None:
    (own := tmp_path / "identity").mkdir()
    for name in ("server.pem", "server.key", "ca.pem"):
        (own / name).write_bytes(b"")
    found = config.tls_files(config.Config(), tmp_path)
    assert found is not None
    assert (found.cert, found.key, found.ca) == (
        own / "server.pem",
        own / "server.key",
        own / "ca.pem",
    )


@pytest.mark.parametrize("there", [{"server.pem"}, {"server.pem", "ca.pem"}])
def test_half_of_the_certificates_is_a_mistake(tmp_path: Path, there: set[str]) -> None:
    (own := tmp_path / "identity").mkdir()
    for name in there:
        (own / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"tls\.key: there is no file"):
        config.tls_files(config.Config(), tmp_path)


def test_a_certificate_named_and_absent_is_a_mistake_and_no_plain_port(tmp_path: Path) -> None:
    named = config.Config(tls=config.Tls(cert=str(tmp_path / "none.pem")))
    with pytest.raises(ConfigError, match=r"tls\.cert: there is no file"):
        config.tls_files(named, tmp_path)
