"""What needs somebody: judged by the server from one catalogue of rules, said once, and said again when it is over.

The same catalogue makes the rules for Prometheus and the dashboard (`tools/make_alerts.py`).
"""
