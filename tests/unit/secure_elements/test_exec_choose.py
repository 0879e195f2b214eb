"""Which way a program goes: by what it is, what the machine has, and what is asked for."""

import asyncio
import contextlib
import os
import re
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from birthmark.secure_elements.errors import EngineMissingError, ProgramUnsupportedError
from birthmark.secure_elements.exec.execution_plan import configuration
from birthmark.secure_elements.exec.host_capabilities import HostCapabilities
from birthmark.secure_elements.exec.key_access_strategy import KeyAccess, choose
from birthmark.secure_elements.exec.loopback_tls_proxy import Address, ProxyCa, TlsProxy, owner_of, parse_target
from birthmark.secure_elements.exec.program_arguments import by_proxy
from birthmark.secure_elements.exec.program_detection import Program, ProgramKind

ENGINE, PROVIDER = Path("/usr/lib/engines-3/pkcs11.so"), Path("/usr/lib/ossl-modules/pkcs11.so")
BOTH, OLD, NEW = HostCapabilities(ENGINE, PROVIDER), HostCapabilities(ENGINE, None), HostCapabilities(None, PROVIDER)
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0100007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2
   2: 0100007F:1F90 0100007F:A001 01 00000000:00000000 00:00000000 00000000     0        0 3
"""


def a_program(kind: ProgramKind, *, links_openssl: bool = True, flag: str | None = None) -> Program:
    return Program("/usr/bin/program", kind, "as it is", flag, links_openssl)


@pytest.mark.parametrize(
    ("kind", "machine", "way"),
    [
        (ProgramKind.PYTHON, BOTH, KeyAccess.HOOK),
        (ProgramKind.PYTHON, NEW, KeyAccess.PROVIDER),
        (ProgramKind.NODE, OLD, KeyAccess.HOOK),
        (ProgramKind.CURL, BOTH, KeyAccess.ENGINE),
        (ProgramKind.CURL, NEW, KeyAccess.PROVIDER),
        (ProgramKind.OPENSSL, OLD, KeyAccess.ENGINE),
        (ProgramKind.MOSQUITTO, BOTH, KeyAccess.PROVIDER),
        (ProgramKind.MOSQUITTO, OLD, KeyAccess.PROXY),
        (ProgramKind.LINKED, BOTH, KeyAccess.PROVIDER),
        (ProgramKind.LINKED, OLD, KeyAccess.PROXY),
        (ProgramKind.LAUNCHER, OLD, KeyAccess.HOOK),
        (ProgramKind.OTHER, BOTH, KeyAccess.PROXY),
    ],
)
def test_the_first_way_that_the_machine_can_go_is_chosen(
    kind: ProgramKind, machine: HostCapabilities, way: KeyAccess
) -> None:
    assert choose(a_program(kind), machine, ["program"]).way is way


def test_a_python_with_its_own_openssl_goes_by_the_proxy_and_is_told_why() -> None:
    choice = choose(a_program(ProgramKind.PYTHON, links_openssl=False), OLD, ["python"])
    assert choice.way is KeyAccess.PROXY
    assert "not by the hook: its OpenSSL is not the system's" in choice.reason


def test_a_way_that_is_forced_is_gone() -> None:
    assert choose(a_program(ProgramKind.CURL), BOTH, ["curl"], KeyAccess.PROXY).way is KeyAccess.PROXY
    assert choose(a_program(ProgramKind.PYTHON), BOTH, ["python"], KeyAccess.PROVIDER).way is KeyAccess.PROVIDER


@pytest.mark.parametrize(
    ("kind", "machine", "how"),
    [
        (ProgramKind.NODE, BOTH, KeyAccess.ENGINE),
        (ProgramKind.CURL, BOTH, KeyAccess.HOOK),
        (ProgramKind.CURL, OLD, KeyAccess.PROVIDER),
    ],
)
def test_a_way_that_leads_nowhere_is_refused_with_the_command_without_it(
    kind: ProgramKind, machine: HostCapabilities, how: KeyAccess
) -> None:
    with pytest.raises(ProgramUnsupportedError) as refused:
        choose(a_program(kind), machine, ["program", "an argument"], how)
    assert "`birthmark chip exec -- program 'an argument'`" in refused.value.explain_fix()


@pytest.mark.parametrize("kind", list(ProgramKind))
def test_on_a_machine_with_nothing_the_package_is_named(kind: ProgramKind) -> None:
    with pytest.raises(EngineMissingError):
        choose(a_program(kind), HostCapabilities(None, None), ["program"])


def test_a_python_that_ignores_its_environment_is_refused_unless_by_the_proxy() -> None:
    isolated = a_program(ProgramKind.PYTHON, flag="-I")
    with pytest.raises(ProgramUnsupportedError) as refused:
        choose(isolated, OLD, ["python", "-I", "app.py"])
    assert "`birthmark chip exec -- python app.py`" in refused.value.explain_fix()
    assert choose(isolated, OLD, ["python", "-I", "app.py"], KeyAccess.PROXY).way is KeyAccess.PROXY
    with pytest.raises(ProgramUnsupportedError) as refused:  # its own first line says so
        choose(isolated, OLD, ["app.py", "one"])
    assert "`birthmark chip exec -- python3 /usr/bin/program one`" in refused.value.explain_fix()


def test_mosquittos_options_are_turned_to_the_proxy_and_name_no_key() -> None:
    given = ["-h", "hub", "--cafile", "ca.pem", "--cert", "c.pem", "--key", "k.pem", "-t", "a/b", "-m", "-h"]
    arguments, targets, trust = by_proxy(ProgramKind.MOSQUITTO, given)
    assert targets == ("hub:8883",)
    assert trust == "ca.pem"
    assert arguments[-4:] == ("-t", "a/b", "-m", "-h")
    assert not {"k.pem", "c.pem", "ca.pem", "hub"} & set(arguments)


def test_the_kernels_table_tells_whose_connection_it_is() -> None:
    ours, door = ("127.0.0.1", 0xA001), ("127.0.0.1", 0x1F90)
    assert owner_of(ours, door, TABLE) == 1000
    assert owner_of(("127.0.0.1", 0xA002), door, TABLE) is None
    assert owner_of(door, ours, TABLE) == 0  # each end has a line of its own
    assert owner_of(ours, door, TABLE.replace("1F90 01", "1F90 06")) is None  # it has ended


def test_the_same_port_of_another_loopback_address_is_another_ones() -> None:
    ours, theirs, door = ("127.0.0.1", 0xA001), ("127.0.0.2", 0xA001), ("127.0.0.1", 0x1F90)
    assert owner_of(theirs, door, TABLE) is None
    table = TABLE + "   3: 0200007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  65534        0 4\n"
    assert (owner_of(ours, door, table), owner_of(theirs, door, table)) == (1000, 65534)


def test_a_socket_of_both_families_is_found_in_the_other_table() -> None:
    mapped = "0000000000000000FFFF0000"
    table = f"   0: {mapped}0100007F:A001 {mapped}0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000  0 4\n"
    assert owner_of(("127.0.0.1", 0xA001), ("127.0.0.1", 0x1F90), table) == 1000


def nobody_connects_with(port: int, door: Address) -> bytes:
    """Connect as another user from 127.0.0.2 and this port, in a child; return what the door said."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        try:
            os.setgid(65534)
            os.setuid(65534)
            with socket.socket() as line:
                line.settimeout(5)
                line.bind(("127.0.0.2", port))
                line.connect(door)
                line.sendall(b"CONNECT hub:1 HTTP/1.1\r\n\r\n")
                os.write(writing, line.recv(100))
        except OSError:
            pass
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as said:
        return said.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_with_the_programs_port_is_not_let_in() -> None:
    proxy = TlsProxy(ssl.create_default_context(), ProxyCa(), [("hub", 2)])
    async with contextlib.AsyncExitStack() as stack:
        url = urlsplit((await proxy.start(stack))["HTTPS_PROXY"])
        door = (str(url.hostname), int(url.port or 0))
        reader, writer = await asyncio.open_connection(*door)
        port = writer.get_extra_info("sockname")[1]
        assert await asyncio.to_thread(nobody_connects_with, port, door) == b""
        writer.write(b"CONNECT hub:1 HTTP/1.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 403")  # heard: this is the program's own
        writer.close()
        async with asyncio.timeout(5):
            with socket.socket(socket.AF_INET6) as both:
                both.setblocking(False)
                await asyncio.get_running_loop().sock_connect(both, (f"::ffff:{door[0]}", door[1]))
                reader, writer = await asyncio.open_connection(sock=both.dup())
                writer.write(b"CONNECT hub:1 HTTP/1.1\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 403")
                writer.close()


def test_the_provider_is_set_so_that_a_program_may_reconnect() -> None:
    text = configuration(PROVIDER, Path("/lib/token.so"), Path("/proc/7/fd/3"))
    assert text.index("default = ") < text.index("pkcs11 = ")
    assert "pkcs11-module-cache-keys = false\n" in text
    assert "pkcs11-module-token-pin = file:/proc/7/fd/3\n" in text
    assert "token-pin" not in configuration(PROVIDER, Path("/lib/token.so"), None)


@pytest.mark.parametrize("text", ["hub", ":8883", "hub:0", "hub:65536", "hub:x", "a/b:1", "user@hub:1"])
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_target(text)
