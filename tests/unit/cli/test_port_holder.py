"""The server that has a port is named by its process and directory."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from birthmark.cli.output import machine_specific_hints
from birthmark.cli.output.machine_specific_hints import PortHolder, find_port_holder
from birthmark.net.listener import PortTakenError


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    family = socket.AF_INET6 if request.param == "::" else socket.AF_INET
    with closing(socket.socket(family)) as listening:
        listening.bind((request.param, 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    with (tmp_path / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path


def test_a_server_is_found_by_its_port(port: int, data: Path) -> None:
    assert find_port_holder("127.0.0.1", port) == PortHolder(os.getpid(), data)


def test_another_program_is_none(port: int) -> None:
    assert find_port_holder("127.0.0.1", port) is None


def test_a_port_of_another_address_is_none(data: Path) -> None:
    with closing(socket.create_server(("127.0.0.2", 0))) as listening:
        assert find_port_holder("127.0.0.1", listening.getsockname()[1]) is None


def test_a_taken_port_leads_to_its_server(port: int, data: Path) -> None:
    fix = machine_specific_hints.hint(PortTakenError(address="127.0.0.1", port=str(port)))
    assert fix is not None
    assert f"The Birthmark server of {data} has the port." in fix
    assert f"`kill {os.getpid()}`" in fix
