"""TOML -> frozen msgspec Structs, with every mistake listed at once.

`msgspec.convert` stops at the first mistake, so this walks the Struct and converts field by field.
Sources, later wins: main file, `conf.d/*.toml`, environment `PREFIX__SECTION__KEY`.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from heatpool.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)
# No text, broken text, and what makes the parser itself give up: thousands of digits or brackets.
_NOT_TOML = (ValueError, RecursionError)
_NOTHING = object()


def load(path: Path | None, kind: type[S], *, environ: Mapping[str, str], prefix: str) -> S:
    """The settings of one program.

    Raises:
        ConfigError: with every mistake, each with its key.
    """
    return convert(_merged(path, environ, prefix), kind, file=str(path or ""))


def load_what_holds(
    path: Path | None, kind: type[S], *, environ: Mapping[str, str], prefix: str
) -> tuple[S | None, list[str]]:
    """The settings without what is wrong in them, and every mistake of them by itself.

    None where nothing can be kept. For those who look on for more mistakes, never to run with.

    Raises:
        ConfigError: a file cannot be read, or is not TOML.
    """
    tree = _merged(path, environ, prefix)
    mistakes: list[str] = []
    _check(tree, kind, "", mistakes)
    held = _sound(tree, kind)
    try:
        return (None if held is _NOTHING else msgspec.convert(held, kind)), mistakes
    except msgspec.ValidationError as error:
        return None, mistakes or [str(error)]


def read_toml(path: Path) -> dict[str, Any]:
    """The file as a tree.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], file=str(path)) from error
    except ValueError as error:  # a name with a NUL in it
        raise ConfigError([f"cannot be read: {error}"], file=repr(str(path))) from error
    try:
        return tomllib.loads(data.decode())
    except _NOT_TOML as error:
        raise ConfigError([f"is not TOML: {error}"], file=str(path)) from error


def _merged(path: Path | None, environ: Mapping[str, str], prefix: str) -> dict[str, Any]:
    tree = read_toml(path) if path else {}
    if path:
        for extra in sorted(path.parent.glob("conf.d/*.toml")):
            _overlay(tree, read_toml(extra))
    _overlay(tree, _from_environ(environ, prefix))
    return tree


def convert(tree: Mapping[str, Any], kind: type[S], *, file: str = "") -> S:
    """The tree as a Struct.

    Raises:
        ConfigError: with every mistake, each with its key.
    """
    mistakes: list[str] = []
    _check(tree, kind, "", mistakes)
    if mistakes:
        raise ConfigError(mistakes, file=file)
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise ConfigError([str(error)], file=file) from error


def _check(tree: Any, kind: Any, path: str, mistakes: list[str]) -> None:
    struct = _struct_of(tree, kind, path, mistakes)
    if struct is None:
        _check_plain(tree, kind, path, mistakes)
    elif not isinstance(tree, Mapping):
        mistakes.append(f"{path or 'file'}: is {tree!r}, must be a table")
    else:
        _check_struct(tree, struct, path, mistakes)


def _check_struct(tree: Mapping[str, Any], struct: Any, path: str, mistakes: list[str]) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    tag = struct.__struct_config__.tag_field
    for key in tree.keys() - fields.keys() - {tag}:
        mistakes.append(f"{_join(path, key)}: is unknown; known here: {', '.join(fields)}")
    for key, field in fields.items():
        if key in tree:
            _check(tree[key], field.type, _join(path, key), mistakes)
        elif field.required:
            mistakes.append(f"{_join(path, key)}: is missing")


def _check_plain(tree: Any, kind: Any, path: str, mistakes: list[str]) -> None:
    if get_origin(kind) in (tuple, list) and isinstance(tree, list):
        for index, item in enumerate(tree):
            _check(item, get_args(kind)[0], f"{path}[{index}]", mistakes)
        return
    try:
        msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        forms = [meta.description for meta in getattr(kind, "__metadata__", ()) if meta.description]
        told = f", must be {forms[0]}" if forms and isinstance(tree, str) else f": {error}"
        mistakes.append(f"{path}: is {tree!r}{told}")


def _sound(tree: Any, kind: Any) -> Any:
    """The tree without what does not fit; `_NOTHING` where it cannot do without that."""
    found: list[str] = []
    _check(tree, kind, "", found)
    if not found:
        return tree
    struct = _struct_of(tree, kind, "", [])
    if struct is not None and isinstance(tree, Mapping):
        return _sound_struct(tree, struct)
    if get_origin(kind) in (tuple, list) and isinstance(tree, list):
        items = [_sound(item, get_args(kind)[0]) for item in tree]
        return [item for item in items if item is not _NOTHING]
    return _NOTHING


def _sound_struct(tree: Mapping[str, Any], struct: Any) -> Any:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    kept = {key: _sound(tree[key], field.type) for key, field in fields.items() if key in tree}
    kept = {key: value for key, value in kept.items() if value is not _NOTHING}
    tag = struct.__struct_config__.tag_field
    kept |= {tag: tree[tag]} if tag in tree else {}
    return kept if all(key in kept for key, f in fields.items() if f.required) else _NOTHING


def _struct_of(tree: Any, kind: Any, path: str, mistakes: list[str]) -> Any:
    """The Struct that `tree` must be, for a Struct or a tagged union of Structs; else None."""
    options = [option for option in (get_args(kind) or (kind,)) if _is_struct(option)]
    if get_origin(kind) in (tuple, list) or not options or (tree is None and len(options) == 1):
        return None
    if len(options) == 1 or not isinstance(tree, Mapping):
        return options[0]
    tags = {option.__struct_config__.tag: option for option in options}
    tag_field = options[0].__struct_config__.tag_field
    return tags.get(tree.get(tag_field))


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _overlay(tree: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        here = tree.get(key)
        if isinstance(value, Mapping) and isinstance(here, dict):
            _overlay(here, value)
        elif isinstance(value, Mapping) and isinstance(here, list):
            _overlay_by_id(here, value)
        else:
            tree[key] = value


def _overlay_by_id(items: list[Any], extra: Mapping[str, Any]) -> None:
    """Items of a list are addressed by id: `SENSOR__METER__PERIOD_S` means the one called meter."""
    for item in items:
        if isinstance(item, dict) and isinstance(change := extra.get(str(item.get("id"))), Mapping):
            _overlay(item, change)


def _from_environ(environ: Mapping[str, str], prefix: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, text in environ.items():
        parts = name.split("__")
        if len(parts) > 1 and parts[0] == prefix:
            node = tree
            for part in parts[1:-1]:
                node = node.setdefault(part.lower(), {})
                if not isinstance(node, dict):
                    raise ConfigError([f"{name}: another variable has set {part} to one value"])
            node[parts[-1].lower()] = _toml_value(text)
    return tree


def _toml_value(text: str) -> Any:
    """A number, bool or list if the text reads as one, else the text itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except _NOT_TOML:
        return text
