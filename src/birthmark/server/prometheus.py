"""Metrics in the Prometheus text format, or in OpenMetrics if the client requests it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from birthmark.metric_catalog import CATALOGUE, Distribution, Metric, MetricKind, Sample

_FAMILIES: Mapping[MetricKind, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.GAUGE: GaugeMetricFamily,
    MetricKind.HISTOGRAM: HistogramMetricFamily,
}


def render(samples: Iterable[Sample], accept: str) -> tuple[bytes, str]:
    """Return the metrics page and its media type. Every metric of the catalog is included, even without a sample."""
    found: dict[Metric, list[Sample]] = {metric: [] for metric in CATALOGUE}
    for sample in samples:
        found[sample.metric].append(sample)
    registry = CollectorRegistry()
    registry.register(_Samples(found))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Samples(Collector):
    def __init__(self, found: Mapping[Metric, Sequence[Sample]]) -> None:
        self._found = found

    def collect(self) -> Iterator[Family]:
        for metric, samples in self._found.items():
            family = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
            for sample in samples:
                _add(family, sample)
            yield family


def _add(family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily, sample: Sample) -> None:
    value = sample.value
    if isinstance(value, Distribution):
        assert isinstance(family, HistogramMetricFamily)  # noqa: S101 - by type
        names = [*(str(bound) for bound in value.bounds), "+Inf"]
        upto = zip(names, map(float, accumulate(value.counts)), strict=True)
        family.add_metric(sample.labels, list(upto), value.total)
    else:
        assert not isinstance(family, HistogramMetricFamily)  # noqa: S101 - by type
        family.add_metric(sample.labels, value)
