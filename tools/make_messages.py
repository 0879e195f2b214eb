"""Write docs/reference/messages.md from the table of known lines.

python tools/make_messages.py
"""

from pathlib import Path

from birthmark.cli.log_patterns import HARMLESS, TELLING

HEAD = """# Log messages of other programs

This page explains log messages of vendor SDKs, middleware and tools that you can see when you use Birthmark.
`birthmark why "TEXT"` finds these lines in pasted text, together with refusal codes and tracking IDs.

`tools/make_messages.py` generates this page.

## Harmless messages

These lines look like errors, but you can ignore them.

| program | line | reason |
|---|---|---|
"""
MIDDLE = """
## Messages that indicate a problem

| program | line | cause | fix |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    ignored = "".join(f"| {one.program} | `{one.line}` | {one.why} |\n" for one in HARMLESS)
    telling = "".join(f"| {one.program} | `{one.line}` | {one.cause} | {one.fix} |\n" for one in TELLING)
    return HEAD + ignored + MIDDLE + telling


if __name__ == "__main__":
    Path("docs/reference/messages.md").write_text(page(), encoding="utf-8")
