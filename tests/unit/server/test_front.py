"""The page of metrics that a parent makes of its workers' pages."""

from prometheus_client.parser import text_string_to_metric_families

from birthmark.server.workers.front import merged

ONE = """# HELP birthmark_refusals_total Refusals.
# TYPE birthmark_refusals_total counter
birthmark_refusals_total{code="a"} 1.0
# HELP birthmark_up Up.
# TYPE birthmark_up gauge
birthmark_up 1.0
"""
TWO = """# HELP birthmark_refusals_total Refusals.
# TYPE birthmark_refusals_total counter
birthmark_refusals_total{code="a"} 4.0
birthmark_refusals_total{code="b, \\"c\\"} 2"} 1e+06
"""


def test_each_sample_has_its_worker_and_each_family_stands_together() -> None:
    families = list(text_string_to_metric_families(merged({"w1": ONE, "w2": TWO})))
    assert [family.name for family in families] == ["birthmark_refusals", "birthmark_up"]
    assert [(one.labels, one.value) for one in families[0].samples] == [
        ({"worker": "w1", "code": "a"}, 1.0),
        ({"worker": "w2", "code": "a"}, 4.0),
        ({"worker": "w2", "code": 'b, "c"} 2'}, 1e6),
    ]
    assert [(one.labels, one.value) for one in families[1].samples] == [({"worker": "w1"}, 1.0)]


def test_of_no_worker_there_is_nothing() -> None:
    assert merged({}) == ""
