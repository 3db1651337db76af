"""The text format of Prometheus, version 0.0.4, as far as the board needs it.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/. The usual library costs
every site 1.6 MB, and does not start without OpenSSL. A test holds us against it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One family: what is counted, and its samples by the values of their labels."""

    name: str
    text: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    samples: tuple[tuple[tuple[str, ...], float], ...]


def exposed(metrics: Iterable[Metric]) -> bytes:
    """The page of these families."""
    return "".join(line for metric in metrics for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterable[str]:
    yield f"# HELP {metric.name} {_escaped(metric.text)}\n"
    yield f"# TYPE {metric.name} {metric.kind}\n"
    for values, value in metric.samples:
        yield f"{metric.name}{_labels(metric.labels, values)} {_number(value)}\n"


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    pairs = sorted(zip(names, values, strict=True))
    told = ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs)
    return f"{{{told}}}" if told else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', r"\"")


def _number(value: float) -> str:
    """As Go reads it, whose words for the infinite and for no number are Python's."""
    return repr(float(value))
