"""Coefficients as a JSON document and as text for people."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import sqrt
from typing import Any

import msgspec

from heatpool.sample import QualityClass
from heatpool_agent.calibrations import SCHEMA
from heatpool_agent.core.coefficients import COMPONENTS, INPUTS, LOAD, NAMES, Coefficients, chosen

_NS = 1_000_000_000
_HERE = "this machine"
_WORDS = {"busy_frac": "load", "electric_w": "power", "excess_k": "hot pipe above the room"}


def document(
    named: Iterable[tuple[str, Coefficients]], at_ns: int, **more: object
) -> dict[str, Any]:
    """All coefficients as one JSON document, each with the file it lies in; `import` takes it."""
    told = list(named)
    used = {
        id(one)
        for host in chosen((one for _, one in told), at_ns).values()
        for one in (*host.components.values(), host.load)
    }
    return {
        "schema": SCHEMA,
        "saved_ns": at_ns,
        **more,
        "coefficients": [_record(file, one, at_ns, is_used=id(one) in used) for file, one in told],
    }


def _record(file: str, one: Coefficients, at_ns: int, *, is_used: bool) -> dict[str, Any]:
    us = [sqrt(max(0.0, one.covariance[at][at])) for at in range(len(one.values))]
    named = {
        name: {"value": value, "value_u": u}
        for name, value, u in zip(NAMES[one.kind], one.values, us, strict=True)
    }
    if one.kind == LOAD:
        named["exponent"] = {"value": one.exponent, "value_u": one.exponent_u}
    return {
        **msgspec.to_builtins(one),
        "named": named,
        "range": {
            name: [low, high]
            for name, low, high in zip(INPUTS[one.kind], one.lows, one.highs, strict=True)
        },
        "quality_class": QualityClass(one.quality).name,
        "learned_at": _stamp(one.learned_ns),
        "expires_at": _stamp(one.expires_ns),
        "expires_ns": one.expires_ns,
        "is_valid": one.is_valid(at_ns),
        "is_used": is_used,
        "file": file,
    }


def text(told: Mapping[str, Any]) -> str:
    """The document for people."""
    blocks = ["\n".join(_lines(record)) for record in told["coefficients"]]
    return "\n\n".join(blocks) or (
        "nothing was learnt yet: the agent learns as it runs beside a meter of power, "
        "and by `heatpool-agent calibrate fit`"
    )


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield f"{record['subject'] or _HERE}: {_law(record)}"
    state = "in use" if record["is_used"] else _why(record)
    lessons = f"{record['count']} lessons of {_meter(record)}"
    yield f"  learnt until {record['learned_at']} from {lessons}"
    yield f"  {state}; expires {record['expires_at']}; {record['file']}"
    residual = f"{100 * record['residual_u_frac']:.1f}"
    meter = f"{100 * record['reference_u_frac']:.1f}"
    yield f"  u: {residual} % residual, {meter} % of the meter; seen for {_range(record)}"
    before, after = record["before_mape_frac"], record["after_mape_frac"]
    if before is not None and after is not None:
        yield (
            f"  mean error of figures not yet learnt: {100 * before:.1f} % before, "
            f"{100 * after:.1f} % after"
        )


def _meter(record: Mapping[str, Any]) -> str:
    return f"{record['reference']} (class {record['quality_class']})"


def _why(record: Mapping[str, Any]) -> str:
    if record["is_valid"]:
        return (
            "shown only" if record["kind"] not in (COMPONENTS, LOAD) else "a better one is in use"
        )
    return "not used: out of date, learnt after now, or fewer than 4 lessons"


def _law(record: Mapping[str, Any]) -> str:
    named = {name: _figure(**one) for name, one in record["named"].items()}
    if record["kind"] == COMPONENTS:
        basis = record["basis"]
        law = f"wall = {named['base_w']} W + {named['cpu_frac']} x counters"
        law += f" + {named['gpu_frac']} x GPU" if {"gpu", "module"} & set(basis) else ""
        law += f" + {named['fan_full_w']} W x fans^3" if "fan_cube_frac" in basis else ""
        return f"{law}, seen are {', '.join(basis)}"
    if record["kind"] == LOAD:
        return f"wall = {named['idle_w']} W + {named['span_w']} W x load^{named['exponent']}"
    return f"heat = {named['capture_frac']} x power - {named['loss_w_k']} W/K x excess over room"


def _figure(value: float, value_u: float) -> str:
    digits = 3 if abs(value) < 10 else 0 if abs(value) >= 100 else 1
    return f"{value:.{digits}f} (u {value_u:.{digits}f})"


def _range(record: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{_WORDS.get(name, name)} {low:.3g} to {high:.3g}"
        for name, (low, high) in record["range"].items()
        if (low, high) != (0.0, 0.0)
    )


def _stamp(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // _NS, UTC).isoformat(timespec="minutes")


def merged(old: Sequence[Coefficients], new: Sequence[Coefficients]) -> tuple[Coefficients, ...]:
    """The old ones without those of which there is a newer one of the same thing."""
    keys = {(one.subject, one.kind, one.basis) for one in new}
    kept = (one for one in old if (one.subject, one.kind, one.basis) not in keys)
    return (*kept, *new)
