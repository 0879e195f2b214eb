"""Write docs/reference/messages.md from the table of known lines.

python tools/make_messages.py
"""

from pathlib import Path

from birthmark.cli.log_patterns import HARMLESS, TELLING

HEAD = """# Messages of other programs

`birthmark why "TEXT"` finds these lines in pasted text, and refusal codes and tracking ids too. This page is written by
`tools/make_messages.py`.

## Those that may be ignored

Lines that look like trouble and are none. Any other line counts.

| program | line | why it is no trouble |
|---|---|---|
"""
MIDDLE = """
## Those that mean something

| program | line | what it means | what to do |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    ignored = "".join(f"| {one.program} | `{one.line}` | {one.why} |\n" for one in HARMLESS)
    telling = "".join(f"| {one.program} | `{one.line}` | {one.cause} | {one.fix} |\n" for one in TELLING)
    return HEAD + ignored + MIDDLE + telling


if __name__ == "__main__":
    Path("docs/reference/messages.md").write_text(page(), encoding="utf-8")
