"""Code blocks of a page as one shell session.

A block's info string says what it is: `sh` is run; `toml file=NAME` and the like are written to NAME. The host name
`localhost` stands for this run's own loopback address.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.server.servers import free_address

BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)


def script_of(text: str, name: str) -> str:
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for block in BLOCK.finditer(text):
        info, body = block["info"].split(), block["body"]
        named = [part.removeprefix("file=") for part in info if part.startswith("file=")]
        if named:
            lines.append(f"cat > {named[0]} <<'END_OF_BLOCK'\n{body}END_OF_BLOCK")
        else:
            assert info == ["sh"], f"{name}: a block of kind {info} is neither run nor written"
            lines.append(body)
    return "\n".join(lines)


def run_script(script: str, directory: Path, environment: Mapping[str, str]) -> str:
    """Run a page's script in a directory, and return its output."""
    address = free_address()
    done = subprocess.run(
        ["bash", "-c", re.sub(r"\blocalhost\b", address, script)],
        cwd=directory,
        env={"HOME": str(directory), "NO_COLOR": "1", **environment, "BIRTHMARK_LISTEN": address},
        capture_output=True,
        text=True,
        timeout=600,  # a Go that never ran compiles its library first
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr
