"""Samples as Prometheus reads them, and the page that lists the metrics."""

import re

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from birthmark import metric_catalog
from birthmark.metric_catalog import CATALOGUE, Distribution, MetricKind, Sample
from birthmark.server.prometheus import render
from support.tools_pages import metrics_page

OPEN = "application/openmetrics-text; version=1.0.0"


def test_every_metric_is_on_the_page_without_a_sample() -> None:
    content, media_type = render([], "")
    assert media_type.startswith("text/plain")
    found = {family.name: family.type for family in text_string_to_metric_families(content.decode())}
    assert found == {metric.name.removesuffix("_total"): metric.kind for metric in CATALOGUE}


def test_samples_keep_labels_and_values_in_both_formats() -> None:
    seconds = Distribution((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        seconds.observe(value)
    samples = [
        Sample(metric_catalog.REFUSALS, ('a"b\n',), 3),
        Sample(metric_catalog.CONNECTIONS, ("aws", "5"), 2),
        Sample(metric_catalog.COMMITS, (), seconds),
    ]
    for accept, parse in (("", text_string_to_metric_families), (OPEN, parse_openmetrics)):
        content, _ = render(samples, accept)
        read = {
            (one.name, *sorted(one.labels.items())): one.value
            for family in parse(content.decode())
            for one in family.samples
        }
        assert read["birthmark_refusals_total", ("code", 'a"b\n')] == 3
        assert read["birthmark_connections", ("cloud", "aws"), ("protocol", "5")] == 2
        buckets = [read["birthmark_commit_seconds_bucket", ("le", bound)] for bound in ("0.1", "1.0", "+Inf")]
        assert buckets == [2, 3, 4]
        assert read["birthmark_commit_seconds_count",] == 4
        assert round(read["birthmark_commit_seconds_sum",], 3) == 7.65


def test_names_and_helps_are_as_prometheus_wants_them() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert re.fullmatch("birthmark_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.help.endswith(".")


def test_the_page_is_the_catalogue() -> None:
    written, wanted = metrics_page()
    assert written == wanted, "run tools/make_metrics.py"
