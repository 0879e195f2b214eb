"""Write the rules of alerts for Prometheus, and a dashboard for Grafana, from the catalogue.

python tools/make_alerts.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from birthmark import metric_catalog
from birthmark.alerts.model import AlertRule, Thresholds
from birthmark.alerts.rules import RULES

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES_FILE, DASHBOARD = DEPLOY / "prometheus-rules.yml", DEPLOY / "grafana-dashboard.json"
PANELS = (
    ("Alerts", "sum by (rule) (birthmark_alerts)", "{{rule}}"),
    ("Connected", "sum by (cloud, protocol) (birthmark_connections)", "{{cloud}} {{protocol}}"),
    ("Messages from devices, a second", "sum by (cloud) (rate(birthmark_messages_received_total[5m]))", "{{cloud}}"),
    ("Refusals, an hour", "topk(10, sum by (code) (increase(birthmark_refusals_total[1h])))", "{{code}}"),
    ("Renewals refused, an hour", "sum by (code) (increase(birthmark_renewals_refused_total[1h]))", "{{code}}"),
    ("Registrations, an hour", "sum(increase(birthmark_registrations_total[1h]))", "registrations"),
    ("Certificates, an hour", "sum by (profile) (increase(birthmark_certificates_issued_total[1h]))", "{{profile}}"),
    ("Certificates near their end, not renewed", "birthmark_certificates_unrenewed", "certificates"),
    ("Days until it ends", "(birthmark_certificate_expiry_timestamp_seconds - time()) / 86400", "{{of}}"),
    ("Commit, p99", "histogram_quantile(0.99, rate(birthmark_commit_seconds_bucket[5m]))", "seconds"),
    ("Event loop late, p99", "histogram_quantile(0.99, rate(birthmark_event_loop_lag_seconds_bucket[5m]))", "seconds"),
    ("Disk, free", "birthmark_disk_free_ratio", "part"),
    ("Waits to be handed on", "birthmark_outbox_events", "events"),
)
"""Title, expression and legend of each picture; every metric of them is one of `birthmark.metric_catalog`."""
_WIDE, _HIGH, _IN_A_ROW = 8, 7, 3


def rules_yaml() -> str:
    """Return the file of rules; its strings are JSON, which YAML takes."""
    lines = ["# Made by tools/make_alerts.py from the rules that the server judges by itself."]
    lines += ["groups:", "  - name: birthmark", "    rules:"]
    for rule in RULES.values():
        lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _rule(rule: AlertRule) -> Iterator[str]:
    yield f"      - alert: {''.join(word.capitalize() for word in f'birthmark-{rule.name}'.split('-'))}"
    yield f"        expr: {json.dumps(rule.expression.format_map(Thresholds().format_values()))}"
    if rule.holds:
        yield f"        for: {int(rule.holds.total_seconds())}s"
    yield "        labels:"
    yield f"          severity: {rule.severity.value}"
    yield "        annotations:"
    yield f"          summary: {json.dumps(rule.says)}"
    yield f"          next: {json.dumps(rule.fix)}"


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana imports it."""
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "title": "Birthmark",
        "uid": "birthmark",
        "schemaVersion": 39,
        "tags": ["birthmark"],
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": title,
                "datasource": source,
                "targets": [{"refId": "A", "expr": expression, "legendFormat": legend, "datasource": source}],
                "gridPos": {
                    "x": number % _IN_A_ROW * _WIDE,
                    "y": number // _IN_A_ROW * _HIGH,
                    "w": _WIDE,
                    "h": _HIGH,
                },
            }
            for number, (title, expression, legend) in enumerate(PANELS)
        ],
    }


def dashboard_json() -> str:
    """Return the file of the dashboard."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    RULES_FILE.write_text(rules_yaml())
    DASHBOARD.write_text(dashboard_json())
    print(f"{len(RULES)} rules, {len(PANELS)} pictures of {len(metric_catalog.CATALOGUE)} metrics")
