"""Run the tutorials for real, and draw what a terminal showed where a page has a picture (docs/images/terminal/).

python tools/make_terminals.py [NAME...]

A picture shows the commands of a block as on the page, and their output. Names of chips, keys and times differ in every
run, so the tool is run by hand when a page or an output changed. A test compares the commands of each picture with
its page.
"""

import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "images" / "terminal"
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
UNSEEN = re.compile(
    r"export |unset |until |sleep |kill |eval |printf |cp |cat |[A-Z]+=|code=|arn=|.*azure_device.py \|\| true"
)
"""Commands that run but are not shown."""
COLUMNS, LINES = 96, 12
_PORTS = (8883, 8443, 8085, 8080)
_MARK = "\x1e"


class Scene(NamedTuple):
    """A picture: its tutorial, the beginning of the displayed block, and a sentence that describes the picture."""

    page: str
    block: str
    seen: str


SCENES = {
    "azure": Scene(
        "azure",
        "birthmark device ls\nbirthmark hub device ls",
        "The device is assigned, and the hub received its messages",
    ),
    "azure-refused": Scene(
        "azure",
        "python examples/azure_device.py || true",
        "Without the secure element, the server rejects the connection and records the reason",
    ),
    "group": Scene("group", "code=$(birthmark dps ca code", "Possession of the CA key is proven"),
    "twin": Scene(
        "twin",
        'birthmark hub c2d "$DPS_X509_REGISTRATION_ID" "open',
        "The cloud-to-device message waits until the device reconnects",
    ),
    "telemetry": Scene(
        "telemetry", "python examples/read_telemetry.py 3", "The back end reads the messages of the device"
    ),
    "manifest": Scene("manifest", "birthmark manifest verify", "The signatures of 50 manifest entries are verified"),
    "aws": Scene("aws", "TOPIC=elsewhere/data", "The policy does not allow the topic, as birthmark why reports"),
    "jitp": Scene(
        "jitp", "export AWS_IOT_ENDPOINT", "The first connection provisions the thing, the second one publishes"
    ),
    "est": Scene("est", "birthmark agent run", "The agent renewed the certificate, and the hub has the new one"),
    "renew": Scene("renew", "birthmark pki rollover start", "The rollover waits until the device has the new root"),
    "edge": Scene(
        "edge", "birthmark agent renew --root device", "The hub issued the certificate, and the modules are unchanged"
    ),
    "jobs": Scene("jobs", "birthmark aws job why", "The reason why the rollout was cancelled"),
    "factory": Scene("factory", "birthmark manifest verify shipment.jsonl", "The lists of both stations are verified"),
}


def statements(body: str) -> list[str]:
    """Return a block's statements; lines that go on by a backslash are one."""
    return [one for one in re.sub(r"\\\n\s*", "", body).splitlines() if one.strip()]


def shown_of(scene: Scene) -> list[str]:
    """Return the commands of a picture as its page has them."""
    text = (ROOT / "docs" / "tutorial" / f"{scene.page}.md").read_text()
    (body,) = (one["body"] for one in BLOCK.finditer(text) if one["body"].startswith(scene.block))
    return [one for one in statements(body) if not UNSEEN.match(one)]


def script_of(page: str, scenes: list[Scene]) -> str:
    """Return a page's blocks as one script, with marks where pictures begin and end."""
    lines = ["set -euo pipefail", "exec 2>&1", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for block in BLOCK.finditer((ROOT / "docs" / "tutorial" / f"{page}.md").read_text()):
        info, body = block["info"].split(), block["body"]
        named = [part.removeprefix("file=") for part in info if part.startswith("file=")]
        if named:
            lines.append(f"cat > {named[0]} <<'END_OF_BLOCK'\n{body}END_OF_BLOCK")
        elif any(body.startswith(scene.block) for scene in scenes):
            for one in statements(body):
                begins = "" if UNSEEN.match(one) else one
                lines += [f"printf '%s\\n' {_quoted(f'{_MARK}{begins}')}", one]
            lines.append(f"printf '%s\\n' '{_MARK}{_MARK}'")
        else:
            lines.append(re.sub(r"(birthmark serve[^\n]*?) &$", r"\1 > serve.log 2>&1 &", body, flags=re.MULTILINE))
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def played(page: str, scenes: list[Scene]) -> Iterator[list[tuple[str, list[str]]]]:
    """Run a page; return for each picture of it the commands, and the lines that each printed."""
    address = _free_address()
    with tempfile.TemporaryDirectory(prefix="terminal-") as place:
        (Path(place) / "examples").symlink_to(ROOT / "examples")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": place,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "COLUMNS": str(COLUMNS),
            "PYTHONWARNINGS": "ignore",
            "BIRTHMARK_LISTEN": address,
        }
        done = subprocess.run(
            ["bash", "-c", re.sub(r"\blocalhost\b", address, script_of(page, scenes))],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        told = (
            done.stdout.replace(address, "localhost")
            .replace(f"{os.path.realpath(place)}/", "")
            .replace(f"{place}/", "")
        )
    for picture in re.findall(
        rf"(?:^{_MARK}(?!{_MARK}).*\n(?:(?!{_MARK}).*\n)*)+(?=^{_MARK}{_MARK}$)", told, re.MULTILINE
    ):
        parts = re.split(rf"^{_MARK}", picture, flags=re.MULTILINE)[1:]
        yield [(lines[0], lines[1:]) for lines in (part.splitlines() for part in parts) if lines and lines[0]]


def _free_address() -> str:
    while True:
        address = f"127.{random.randrange(100, 250)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        sockets = [socket.socket() for _ in _PORTS]
        try:
            for one, port in zip(sockets, _PORTS, strict=True):
                one.bind((address, port))
        except OSError:
            continue
        else:
            return address
        finally:
            for one in sockets:
                one.close()


def wrapped(line: str) -> list[str]:
    """Return a line as a window has it: a row of a table is cut where the window ends, words go on below."""
    line = line.expandtabs().rstrip()
    if len(line) > COLUMNS and re.search(r"\S   *\S", line.strip()):
        return [line[: COLUMNS - 2].rstrip() + " …"]
    return textwrap.wrap(line, COLUMNS, drop_whitespace=False, break_on_hyphens=False) or [""]


def drawn(scene: Scene, parts: list[tuple[str, list[str]]]) -> str:
    """Return the picture."""
    rows: list[tuple[str, str]] = []
    for command, printed in parts:
        rows += [("c", one) for one in wrapped(f"$ {command}")]
        told = [("o", one) for line in printed for one in wrapped(line)]
        rows += told if len(told) <= LINES else [*told[: LINES - 1], ("o", "…")]
    high, wide, top = 17, round(COLUMNS * 7.83) + 32, 42
    texts = [
        f'<text class="{kind}" x="16" y="{top + 12 + at * high}">{escape(row, quote=False)}</text>'
        for at, (kind, row) in enumerate(rows)
        if row
    ]
    bottom = top + len(rows) * high + 14
    commands = escape("\n".join(command for command, _ in parts), quote=False)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {bottom}" role="img" aria-labelledby="t d">',
            f'<title id="t">{escape(scene.seen)}</title>',
            f'<desc id="d">{commands}</desc>',
            "<style>",
            '  text { font: 13px ui-monospace, "DejaVu Sans Mono", Consolas, monospace; white-space: pre }',
            "  .w { fill: #f4f8f7; stroke: #b9cdcb } .b { fill: #b9cdcb }",
            "  .c { fill: #0b6f6a; font-weight: 700 } .o { fill: #26393a }",
            "  @media (prefers-color-scheme: dark) {",
            "    .w { fill: #10191a; stroke: #34494a } .b { fill: #34494a } .c { fill: #7fd8cf } .o { fill: #cfdddb }",
            "  }",
            "</style>",
            f'<rect class="w" x=".5" y=".5" width="{wide - 1}" height="{bottom - 1}" rx="8"/>',
            *(f'<circle class="b" cx="{x}" cy="18" r="5"/>' for x in (20, 38, 56)),
            *texts,
            "</svg>\n",
        ]
    )


def main() -> int:
    wanted = sys.argv[1:] or list(SCENES)
    TARGET.mkdir(parents=True, exist_ok=True)
    for page in dict.fromkeys(SCENES[name].page for name in wanted):
        of_page = {name: scene for name, scene in SCENES.items() if scene.page == page}
        text = (ROOT / "docs" / "tutorial" / f"{page}.md").read_text()
        in_order = sorted(of_page.items(), key=lambda one: text.index(f"\n{one[1].block}"))
        for (name, scene), parts in zip(in_order, played(page, [*of_page.values()]), strict=True):
            (TARGET / f"{name}.svg").write_text(drawn(scene, parts))
            print(TARGET / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
