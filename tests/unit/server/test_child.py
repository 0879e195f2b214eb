"""A worker is loaded before it follows another: what it cannot load is found while that one still serves."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import sys
lacks, *arguments = sys.argv[1:]
sys.modules[lacks] = None  # as of half of another version: it cannot be imported
from birthmark.server.workers.worker_process import main
sys.argv = ["child", *arguments]
main()
"""


def is_loaded(lacks: str) -> bool:
    told, answers = os.pipe(), os.pipe()
    os.close(told[1])  # it is told nothing, and ends
    command = [sys.executable, "-c", _PROGRAM, lacks, str(os.getpid()), str(told[0]), str(answers[1])]
    subprocess.run(command, pass_fds=(told[0], answers[1]), stderr=subprocess.DEVNULL, check=False)
    os.close(told[0])
    os.close(answers[1])
    with os.fdopen(answers[0], "rb") as pipe:
        return pipe.read() == b"\n"


@pytest.mark.parametrize(
    "part",
    [
        *(
            "birthmark.dps.http",
            "birthmark.iothub.http",
            "birthmark.azure_arm.http",
            "birthmark.net.bounded_websocket",
        ),
        *("birthmark.bus.nats", "birthmark.store.postgresql"),
    ],
)
def test_one_of_which_a_part_cannot_be_loaded_follows_nobody(part: str) -> None:
    assert not is_loaded(part)


def test_one_that_is_whole_says_so() -> None:
    assert is_loaded("birthmark.nothing")
