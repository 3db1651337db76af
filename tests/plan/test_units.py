"""A physical number says its unit: fields, parameters and proto doubles end in a known suffix."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from heatpool.units import SUFFIXES, UNITLESS

# A name with one of these words, holding a float, is a physical quantity. `u` alone is the
# uncertainty of the value beside it; words such as `rate` only count together with others.
STEMS = frozenset(
    "age ambient amount capacity charge cold current delta density duration electric energy flow "
    "glide grace heat hot interval lag lease lift mass period power pressure price temp "
    "temperature timeout tolerance volt voltage volume wait water".split()
)
# Words that make a number of such a quantity without a unit: what is said is not the quantity.
PURE_NUMBERS = (*UNITLESS, "ratio", "class", "exponent", "factor")
# "name": "why it has no unit"
WITHOUT_UNIT: Mapping[str, str] = {
    "current": "a count now, beside `previous`: its unit is that of the register",
    "mass_kg": "M-Bus meters of steam count mass; nothing else here does",
}
FLOATS = frozenset({"float", "NDArray", "Decimal", "Column", "ColumnT"})


def has_unit(name: str) -> bool:
    base = name.removesuffix("_u")
    return base.endswith(SUFFIXES) or name.endswith(PURE_NUMBERS) or base in PURE_NUMBERS


def is_bare(name: str) -> bool:
    """Whether this name of a float is physical and does not say its unit."""
    return bool(STEMS & set(name.lower().split("_"))) and not has_unit(name.lower())


def mentions(node: ast.expr | None, kinds: frozenset[str]) -> bool:
    """Whether a type speaks of numbers, itself and not as an argument of a function type."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in kinds
        case ast.BinOp(left=left, right=right):
            return mentions(left, kinds) or mentions(right, kinds)
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[kind, *_])):
            return mentions(kind, kinds)
        case ast.Subscript(value=value):
            return mentions(value, kinds)
    return False


def float_kinds(tree: ast.Module) -> frozenset[str]:
    """Float types and this module's own names for them, as `Positive = Annotated[float, …]`."""
    own = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and mentions(node.value, FLOATS)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return FLOATS | own


def float_names(tree: ast.Module) -> Iterator[str]:
    """Fields of classes and parameters of functions that hold floats; never local variables."""
    kinds = float_kinds(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and mentions(node.annotation, kinds):
            yield node.arg
        elif isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and mentions(field.annotation, kinds):
                    yield ast.unparse(field.target)


@pytest.mark.parametrize("name", ["heat_rate", "hot", "timeout", "energy_kwh", "price", "delta"])
def test_a_bare_quantity_is_seen(name: str) -> None:
    assert is_bare(name)


@pytest.mark.parametrize(
    "name", ["heat_rate_w", "heat_rate_w_u", "hot_c", "price_eur_mwh", "value", "flow_ratio"]
)
def test_a_quantity_with_its_unit_passes(name: str) -> None:
    assert not is_bare(name)


def test_our_floats_say_their_unit(trees: Mapping[str, ast.Module]) -> None:
    found = [
        f"{path}: {name}"
        for path, tree in trees.items()
        if not path.startswith("tests/")
        for name in sorted(set(float_names(tree)))
        if is_bare(name) and name not in WITHOUT_UNIT
    ]
    assert not found, "\n".join(found)


def test_doubles_on_the_wire_say_their_unit(repository: Path) -> None:
    found = [
        f"{path.name}: {name}"
        for path in sorted((repository / "protos").rglob("*.proto"))
        for name in re.findall(r"\bdouble (\w+) =", path.read_text())
        if is_bare(name)
    ]
    assert not found, "\n".join(found)
