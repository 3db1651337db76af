"""Every mistake of a file is shown at once, each with its key."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from heatpool.errors import ConfigError
from heatpool.process import settings


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    period_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 1
    name: str | None = None


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    inner: Inner = Inner()
    item: tuple[Item, ...] = ()


def mistakes_of(text: str, tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        settings.load(path, Outer, environ={}, prefix="X")
    return caught.value.mistakes


def test_all_mistakes_are_told_together_with_their_keys(tmp_path: Path) -> None:
    text = """
    wrong = 1
    [inner]
    port = 70000
    nmae = "x"
    [[item]]
    period_s = 0
    [[item]]
    id = 5
    """
    found = mistakes_of(text, tmp_path)
    assert sorted(mistake.split(":")[0] for mistake in found) == [
        "inner.nmae",
        "inner.port",
        "item[0].id",
        "item[0].period_s",
        "item[1].id",
        "wrong",
    ]
    assert any("70000" in mistake for mistake in found)


@pytest.mark.parametrize(
    ("text", "told"),
    [("a = ", "is not TOML"), ("inner = 5", "must be a table"), ("item = 5", "item")],
)
def test_a_file_of_the_wrong_shape_is_told(text: str, told: str, tmp_path: Path) -> None:
    assert told in mistakes_of(text, tmp_path)[0]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load(tmp_path / "none.toml", Outer, environ={}, prefix="X")


def test_environment_beats_conf_d_beats_the_main_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[inner]\nport = 1\nname = 'a'\n[[item]]\nid = 'm'\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.toml").write_text("[inner]\nport = 2\n")
    environ = {"X__INNER__PORT": "3", "X__ITEM__M__PERIOD_S": "60", "OTHER__INNER__PORT": "9"}
    found = settings.load(tmp_path / "a.toml", Outer, environ=environ, prefix="X")
    assert (found.inner.port, found.inner.name, found.item[0].period_s) == (3, "a", 60)


def test_without_a_file_the_defaults_hold() -> None:
    assert settings.load(None, Outer, environ={}, prefix="X") == Outer()


def test_a_text_of_another_form_is_answered_with_the_form_and_no_pattern() -> None:
    form = "tcp://HOST:PORT, such as tcp://10.0.0.5:502"

    class Line(msgspec.Struct, frozen=True, kw_only=True):
        url: Annotated[str, msgspec.Meta(pattern=r"^tcp://[a-z0-9.]+:\d+$", description=form)]

    with pytest.raises(ConfigError) as caught:
        settings.convert({"url": "10.0.0.5"}, Line)
    assert caught.value.mistakes == (f"url: is '10.0.0.5', must be {form}",)
    with pytest.raises(ConfigError, match="Expected `str`, got `int`"):
        settings.convert({"url": 5}, Line)
