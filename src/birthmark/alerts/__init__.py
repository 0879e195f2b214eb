"""Alerts: the server evaluates one rule catalog and notifies when an alert is raised and resolved.

The Prometheus rules and the dashboard are generated from the same catalog (`tools/make_alerts.py`).
"""
