"""Our text format beside that of Prometheus' own library, and read by it."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Theirs
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from heatpool_agent.http.exposition import Metric, exposed

# As a person may name a sensor; the library's reader ends a line at more signs than the format.
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"),
    max_size=12,
)
SAMPLES = st.lists(st.tuples(st.tuples(TEXTS, TEXTS), st.floats()), max_size=4).map(tuple)


class Once(Collector):
    def __init__(self, family: Theirs) -> None:
        self.family = family

    def collect(self) -> list[Theirs]:
        return [self.family]


def metric(samples: tuple[tuple[tuple[str, ...], float], ...], text: str = "Heat.") -> Metric:
    return Metric(
        name="heat_watts", text=text, kind="gauge", labels=("loop", "basis"), samples=samples
    )


def without_numbers(page: bytes) -> list[str]:
    return [line.rpartition(" ")[0] for line in page.decode().split("\n")]


@given(SAMPLES, TEXTS)
def test_a_family_is_written_as_the_library_writes_it(
    samples: tuple[tuple[tuple[str, ...], float], ...], text: str
) -> None:
    theirs = GaugeMetricFamily("heat_watts", text, labels=("loop", "basis"))
    for values, value in samples:
        theirs.add_metric(values, value)
    registry = CollectorRegistry()
    registry.register(Once(theirs))
    # Their numbers have another form above a million: 1e+06.
    assert without_numbers(exposed([metric(samples, text)])) == without_numbers(
        generate_latest(registry)
    )


@given(SAMPLES)
def test_labels_and_numbers_come_back_from_a_reader(
    samples: tuple[tuple[tuple[str, ...], float], ...],
) -> None:
    (found,) = text_string_to_metric_families(exposed([metric(samples)]).decode())
    told = [((one.labels["loop"], one.labels["basis"]), one.value) for one in found.samples]
    assert [values for values, _ in told] == [values for values, _ in samples]
    for (_, ours), (_, sent) in zip(told, samples, strict=True):
        assert ours == sent or (math.isnan(ours) and math.isnan(sent))


def test_a_counter_without_labels_is_written_as_the_library_writes_it() -> None:
    theirs = CounterMetricFamily("missed_ticks", "Ticks skipped.")
    theirs.add_metric((), 3.0)
    registry = CollectorRegistry()
    registry.register(Once(theirs))
    ours = Metric(
        name="missed_ticks_total",
        text="Ticks skipped.",
        kind="counter",
        labels=(),
        samples=(((), 3.0),),
    )
    assert exposed([ours]) == generate_latest(registry)
