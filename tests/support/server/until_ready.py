"""Run a command that serves, and end it in order as soon as it says that it is ready: `until_ready.py COMMAND...`.

However busy the machine, it is not told to end before it can hear that. The exit status is the command's.
"""

import signal
import subprocess
import sys


def main(command: list[str]) -> int:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stdout.write(line)
            if line.startswith(("Ready.", "{")):  # in words, or as JSON
                running.send_signal(signal.SIGTERM)
        return running.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
