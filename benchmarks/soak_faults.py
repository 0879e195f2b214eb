"""Every fault at every step of an agent's work, in files and in a token; see tests/support/agent/faults.py.

python benchmarks/soak_faults.py [--store token] [--work renew] [--fault kill|power] [--every 1]
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
        command = [sys.executable, "-m", "support.agent.faults", f"{directory}/matrix", *sys.argv[1:]]
        sys.exit(subprocess.run(command, cwd=TESTS, check=False).returncode)
