"""How a release came to be: an in-toto Statement (v1) with SLSA's provenance (v1) as its predicate.

It is a statement and no signature: who publishes the files signs it, or has it signed by the CI that ran the build.
"""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

BUILD_TYPE = "https://github.com/birthmark/birthmark/blob/main/scripts/package"
REPOSITORY = "git+https://github.com/birthmark/birthmark"
TOOLS = ("build", "hatchling", "cyclonedx-python-lib")


def provenance(artifacts: list[Path], *, commit: str, at: int, lock: bytes, builder: str) -> bytes:
    """Return the statement about `artifacts`, which were built from `commit` (40 hex digits) by `builder` (a URI)."""
    tools = [
        {"uri": f"pkg:pypi/{name}@{version(name)}", "name": name, "annotations": {"role": "build tool"}}
        for name in TOOLS
    ]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": one.name, "digest": {"sha256": _sha256(one.read_bytes())}} for one in artifacts],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"repository": REPOSITORY, "commit": commit},
                "internalParameters": {
                    "SOURCE_DATE_EPOCH": str(at),
                    "python": platform.python_version(),
                    "machine": platform.machine(),
                },
                "resolvedDependencies": [
                    {"uri": f"{REPOSITORY}@{commit}", "digest": {"gitCommit": commit}},
                    {"uri": "requirements.lock", "digest": {"sha256": _sha256(lock)}},
                    *tools,
                ],
            },
            "runDetails": {"builder": {"id": builder}, "metadata": {"invocationId": commit}},
        },
    }
    return json.dumps(statement, indent=2).encode() + b"\n"


def commit_of(repository: Path) -> tuple[str, int]:
    """Return the commit that is checked out, and its time (seconds since 1970)."""
    told = subprocess.run(
        ["git", "-C", str(repository), "log", "-1", "--format=%H %ct"], check=True, capture_output=True, text=True
    )
    commit, _, at = told.stdout.strip().partition(" ")
    return commit, int(at)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
