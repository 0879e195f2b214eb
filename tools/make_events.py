"""Write docs/reference/events.schema.json from the catalogue of events.

python tools/make_events.py
"""

import json
from pathlib import Path

from birthmark.events.json_schema import schema

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "events.schema.json"

if __name__ == "__main__":
    PAGE.write_text(json.dumps(schema(), indent=2) + "\n")
    print(f"{PAGE.name}: {len(schema()['oneOf'])} types")
