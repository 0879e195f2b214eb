"""Every fault at every step of an agent's work, in files and in a token; see tests/agent_faults.py.

python benchmarks/soak_faults.py [--store token] [--work renew] [--fault kill] [--every 1]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"

if __name__ == "__main__":
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        command = [sys.executable, str(TESTS / "agent_faults.py"), f"{directory}/matrix", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, check=False).returncode)
