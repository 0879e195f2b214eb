"""Write docs/reference/metrics.md from the catalogue of metrics.

python tools/make_metrics.py
"""

from pathlib import Path

import birthmark
from birthmark.metric_catalog import CATALOGUE, SECONDS, SIZES

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "metrics.md"
HEAD = f"""# Metrics

The server exposes metrics at `GET /metrics` on the health port, in the Prometheus text format or as OpenMetrics.

| topic | behavior |
|---|---|
| access | clients on the same machine; with `health_metrics = true`, all clients that can reach `health_listen` |
| content | no device names; refusal codes and hub names are included |
| counters | per process, starting at its start |
| gauges | current values |

```yaml
scrape_configs:
  - job_name: birthmark
    static_configs: [{{targets: ["127.0.0.1:8080"]}}]
```

The label `cloud` is `azure_dps`, `azure_hub` or `aws`. Histograms have these bounds:

| unit | bounds |
|---|---|
| seconds | {", ".join(map(str, SECONDS))} |
| sizes | {", ".join(f"{size:g}" for size in SIZES)} |

`tools/make_metrics.py` generates this page.

| metric | type | labels | description |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in CATALOGUE
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{len(CATALOGUE)} metrics")
