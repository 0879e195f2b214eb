"""Write docs/reference/metrics.md from the catalogue of metrics.

python tools/make_metrics.py
"""

from pathlib import Path

import birthmark
from birthmark.metrics import CATALOGUE, SECONDS, SIZES

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "metrics.md"
HEAD = f"""# Metrics

`GET /metrics` on the health port, in Prometheus' text format or as OpenMetrics, for callers of this machine; with
`health_metrics = true` also for who reaches it by `health_listen`. Nothing in it names a device, but codes of refusals
and names of hubs are told. Every number is this process's own and begins with it; gauges are as of the moment.

```yaml
scrape_configs:
  - job_name: birthmark
    static_configs: [{{targets: ["127.0.0.1:8080"]}}]
```

Clouds are `azure_dps`, `azure_hub` and `aws`. Histograms of seconds have the bounds
{", ".join(map(str, SECONDS))}; those of sizes
{", ".join(f"{size:g}" for size in SIZES)}. This page is written by `tools/make_metrics.py`.

| metric | kind | labels | what |
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
