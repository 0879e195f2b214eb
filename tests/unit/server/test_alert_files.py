"""The rules for Prometheus and the dashboard are those of the catalogue, and real tools take them."""

import json
import re
import subprocess
from pathlib import Path

from birthmark import metric_catalog
from birthmark.alerts.rules import RULES
from support.tools_pages import alert_files

DEPLOY = Path(__file__).parents[3] / "deploy"
NAMES = {one.name for one in metric_catalog.CATALOGUE}
HISTOGRAMS = {
    f"{one.name}_bucket" for one in metric_catalog.CATALOGUE if one.kind is metric_catalog.MetricKind.HISTOGRAM
}
TESTS = """
rule_files: [prometheus-rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'birthmark_disk_free_ratio', values: '0.5x10 0.05x20'}
      - {series: 'birthmark_clock_offset_seconds{worker="w1"}', values: '4x30'}
      - {series: 'birthmark_clock_offset_seconds{worker="w2"}', values: '-6x30'}
      - {series: 'birthmark_refusals_total{code="est.password_wrong"}', values: '0+1x30'}
      - {series: 'birthmark_refusals_total{code="ca.name_held"}', values: '0x31 0+1x30'}
      - {series: 'birthmark_renewals_refused_total{code="ca.name_held"}', values: '0x31 0+1x30'}
      - {series: 'birthmark_certificate_expiry_timestamp_seconds{of="issuing"}', values: '86400x30'}
      - {series: 'birthmark_certificate_expiry_timestamp_seconds{of="server"}', values: '8640000x30'}
    alert_rule_test:
      - {eval_time: 5m, alertname: BirthmarkDiskFull, exp_alerts: []}
      - eval_time: 20m
        alertname: BirthmarkDiskFull
        exp_alerts: [{exp_labels: {severity: critical}, exp_annotations: {summary: DISK, next: 'df -h .'}}]
      - {eval_time: 20m, alertname: BirthmarkRenewalRefused, exp_alerts: []}
      - eval_time: 20m
        alertname: BirthmarkEnrollmentRefused
        exp_alerts: [{exp_labels: {severity: warning}, exp_annotations: {summary: ENROLL, next: birthmark why}}]
      - eval_time: 61m
        alertname: BirthmarkRenewalRefused
        exp_alerts: [{exp_labels: {severity: warning}, exp_annotations: {summary: RENEW, next: birthmark why}}]
      - {eval_time: 95m, alertname: BirthmarkEnrollmentRefused, exp_alerts: []}
      - eval_time: 20m
        alertname: BirthmarkClockWrong
        exp_alerts:
          - {exp_labels: {severity: warning, worker: w2}, exp_annotations: {summary: CLOCK, next: timedatectl}}
      - {eval_time: 20m, alertname: BirthmarkServerCertificateEnds, exp_alerts: []}
      - eval_time: 20m
        alertname: BirthmarkCaEnds
        exp_alerts: [{exp_labels: {severity: critical, of: issuing}, exp_annotations: {summary: CA, next: NEXT}}]
"""


def test_the_files_are_those_of_the_catalogue() -> None:
    assert all(written == made for written, made in alert_files()), "run: python tools/make_alerts.py"


def test_every_metric_that_is_asked_for_is_one_of_the_server() -> None:
    asked = [one.expression for one in RULES.values()]
    asked += re.findall(r'"expr": "(.*)"', (DEPLOY / "grafana-dashboard.json").read_text())
    named = {name for text in asked for name in re.findall(r"birthmark_[a-z_]+", text)}
    assert named
    assert named <= NAMES | HISTOGRAMS


def test_the_dashboard_is_json_with_a_picture_for_every_question() -> None:
    found = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"]) > 8
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found["panels"]}
    assert len(places) == len(found["panels"])


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(DEPLOY / "prometheus-rules.yml"))
    assert f"{len(RULES)} rules found" in done.stdout


def test_prometheus_finds_what_the_server_would(tmp_path: Path) -> None:
    rules = (DEPLOY / "prometheus-rules.yml").read_text()
    (tmp_path / "prometheus-rules.yml").write_text(rules)
    words = {
        "DISK": RULES["disk-full"].says,
        "CA": RULES["ca-ends"].says,
        "CLOCK": RULES["clock-wrong"].says,
        "RENEW": RULES["renewal-refused"].says,
        "ENROLL": RULES["enrollment-refused"].says,
        "NEXT": RULES["ca-ends"].fix,
    }
    text = re.sub(r"\b(DISK|CA|NEXT|CLOCK|RENEW|ENROLL)\b", lambda found: json.dumps(words[found[0]]), TESTS)
    (tmp_path / "tests.yml").write_text(text)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "tests.yml")).stdout


def promtool(*words: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
