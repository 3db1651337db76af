"""`config check` refuses what `run` would refuse."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from heatpool.errors import ConfigError
from heatpool_aggregator.commands.config import command


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ('[state]\nlog = "nats://x"\n', "state.log"),
        ('[state]\nstore = "postgres:"\n', "state.store"),
        ('[listen]\ngrpc = "0.0.0.0:8443"\n', "listen.grpc"),
        ('[listen]\nhttp = "0.0.0.0:8080"\n', "listen.http"),
    ],
)
def test_check_refuses_what_run_refuses(tmp_path: Path, settings: str, key: str) -> None:
    (path := tmp_path / "aggregator.toml").write_text(settings, encoding="utf-8")
    ended = CliRunner().invoke(command, ["check", "--config", str(path)])
    assert isinstance(ended.exception, ConfigError)
    assert [mistake.split(":")[0] for mistake in ended.exception.mistakes] == [key]


def test_check_says_all_mistakes_at_once(tmp_path: Path) -> None:
    settings = '[state]\nlog = "nats://x"\nstore = "postgres:"\n'
    (path := tmp_path / "aggregator.toml").write_text(settings, encoding="utf-8")
    ended = CliRunner().invoke(command, ["check", "--config", str(path)])
    assert isinstance(ended.exception, ConfigError)
    assert len(ended.exception.mistakes) == 2


def test_check_of_good_settings_says_so_and_makes_no_file(tmp_path: Path) -> None:
    (path := tmp_path / "aggregator.toml").write_text(
        f'[state]\ndir = "{tmp_path}/state"\n', encoding="utf-8"
    )
    ended = CliRunner().invoke(command, ["check", "--config", str(path)])
    assert (ended.exit_code, ended.output) == (0, "no mistake found\n")
    assert list(tmp_path.iterdir()) == [path]
