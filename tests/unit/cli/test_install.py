"""Installing as who may not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.cli import install
from birthmark.cli.common import FileUnusableError
from birthmark.cli.installing import Installer, Step
from birthmark.cli.units import agent_service


def test_who_is_not_root_is_told_to_do_it_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["/opt/birthmark/bin/birthmark", "agent", "install"])

    def forbidden() -> None:
        raise PermissionError(13, "Permission denied", "/etc/systemd/system/birthmark-agent.service")

    def plan(_installer: Installer) -> Iterator[Step]:
        yield Step("write it", forbidden)

    with pytest.raises(FileUnusableError) as refused:
        install._do(agent_service("birthmark", ()), tmp_path, plan, dry_run=False, as_json=True)
    assert refused.value.explain_fix() == "Do it as root: `sudo /opt/birthmark/bin/birthmark agent install`"
