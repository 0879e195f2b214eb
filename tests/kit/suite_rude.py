"""Tests that leave the cloud badly: interrupted while it answers, ended, or asked by several at once."""

import os
import shutil
import signal
import socket
import threading

import pytest

from birthmark.errors import BirthmarkError
from birthmark.testing.server_process import ServerEndedError

MQTT = 8883


def interrupt(*_: object) -> None:
    pytest.fail("interrupted")


def test_a_test_may_be_interrupted_while_it_waits_for_an_answer(birthmark_cloud):
    """As pytest-timeout does it."""
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(pytest.fail.Exception):
            birthmark_cloud.ask("why", name="nobody", within_s=2)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_and_the_next_one_hears_answers_to_what_it_asks(birthmark_cloud, azure_device):
    assert azure_device.name == "device-1"
    assert birthmark_cloud.messages() == []


def test_threads_ask_in_turn(birthmark_cloud):
    made: list[str] = []

    def make(name: str) -> None:
        made.extend(birthmark_cloud.azure_device(f"{name}-{number}", auth="key").name for number in range(20))

    threads = [threading.Thread(target=make, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 60


def test_what_a_test_forked_neither_holds_the_server_nor_ends_it(birthmark_cloud):
    """As multiprocessing does it; the child outlives what follows, or ends as a program does."""
    server = birthmark_cloud._server
    ending = os.fork()
    if not ending:
        server.stop()
        os._exit(0)
    os.waitpid(ending, 0)
    assert birthmark_cloud.messages() == []
    lasting = os.fork()
    if not lasting:
        signal.pause()
    process = server._process
    server.stop()
    os.kill(lasting, signal.SIGKILL)
    os.waitpid(lasting, 0)
    assert process.returncode == 0


def test_the_server_may_end(birthmark_cloud):
    os.kill(birthmark_cloud._server._process.pid, signal.SIGKILL)
    with pytest.raises(ServerEndedError):
        birthmark_cloud.messages()


def test_and_the_next_one_has_another(azure_device):
    assert azure_device.register is not None


def test_its_data_may_be_spoiled(birthmark_cloud):
    while birthmark_cloud.data.is_dir():  # the server writes into it meanwhile
        shutil.rmtree(birthmark_cloud.data, ignore_errors=True)
    birthmark_cloud.data.write_text("no directory")
    with pytest.raises(BirthmarkError):
        birthmark_cloud.reset()


def test_and_the_next_one_has_another_again(birthmark_cloud, azure_device):
    assert birthmark_cloud.data.is_dir()


def test_who_has_the_server_itself_may_leave_it_out_of_order(birthmark_server):
    birthmark_server.set_line("cut")
    birthmark_server.set_clock("+90d")


def test_and_the_next_one_has_it_as_new(birthmark_cloud):
    socket.create_connection((birthmark_cloud.host, MQTT), 5).close()
