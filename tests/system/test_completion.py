"""Shells complete sub-commands and options by the script that `birthmark completion` prints."""

import subprocess
from pathlib import Path

import pytest

from support.server.servers import BIRTHMARK, clean_environment

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("birthmark dev", "device"), ("birthmark device enr", "enroll"), ("birthmark device enroll --for", "--force")],
)
def test_bash_completes_commands_sub_commands_and_options(tmp_path: Path, words: str, wanted: str) -> None:
    script = subprocess.run([BIRTHMARK, "completion", "bash"], capture_output=True, text=True, check=True)
    (tmp_path / "completion.sh").write_text(script.stdout)
    count = len(words.split()) - 1
    typed = f"COMP_WORDS=({words}); COMP_CWORD={count}"
    line = f'. ./completion.sh; {typed}; _birthmark_completion birthmark; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True, env=clean_environment()
    )
    assert wanted in done.stdout.split(), done.stderr
