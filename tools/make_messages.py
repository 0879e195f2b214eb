"""Write docs/reference/messages.md from the table of known lines.

python tools/make_messages.py
"""

from pathlib import Path

from birthmark.cli.known import HARMLESS

HEAD = """# Messages that may be ignored

Lines of other programs that look like trouble and are none. `birthmark why "TEXT"` finds them in pasted text, and
refusal codes and tracking ids too. Any other line counts. This page is written by `tools/make_messages.py`.

| program | line | why it is no trouble |
|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return HEAD + "".join(f"| {one.program} | `{one.line}` | {one.why} |\n" for one in HARMLESS)


if __name__ == "__main__":
    Path("docs/reference/messages.md").write_text(page(), encoding="utf-8")
