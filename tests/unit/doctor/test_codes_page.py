"""docs/reference/doctor.md has every code that is not about something right."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/doctor.md").read_text()
RIGHT = {"agent", "bus", "channel", "chip", "clock", "identity", "openssl_conf", "place", "proxy", "server", "trust"}


def test_every_code_is_on_the_page_and_no_other() -> None:
    sources = [*(ROOT / "src/birthmark/doctor").rglob("*.py"), ROOT / "src/birthmark/cli/doctor.py"]
    used = {code for path in sources for code in re.findall(r'"doctor\.([a-z_]+)"', path.read_text())}
    named = set(re.findall(r"`doctor\.([a-z_]+)`", PAGE)) - {"identity_certificate_expiry"}
    assert used - RIGHT == named
