"""A program that only takes key files makes TLS handshakes with the key in the token, and only through the hook."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import DNSName

from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri_files import render_uri_pem
from birthmark.pki.certificate_profiles import SERVER
from birthmark.pki.issuance import self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements import exec as element_exec
from birthmark.secure_elements.errors import EngineMissingError, ProgramMissingError, ProgramUnsupportedError
from birthmark.secure_elements.exec.host_capabilities import detect_capabilities
from birthmark.secure_elements.softhsm_element import SoftwareElement

pytestmark = pytest.mark.integration

CLIENT = """
import socket, ssl, sys
port, trust, cert, key = sys.argv[1:5]
context = ssl.create_default_context(cafile=trust)
if "12" in sys.argv[5:]:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
context.load_cert_chain(cert, key)
plain = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
with context.wrap_socket(plain, server_hostname="localhost") as tls:
    tls.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    answer = b""
    while piece := tls.recv(65536):
        answer += piece
    assert b"200 ok" in answer.splitlines()[0], answer[:200]
    print("done", tls.version())
"""


REQUESTS = """
import requests, sys
port, trust, cert, key = sys.argv[1:5]
print(requests.get(f"https://localhost:{port}/", cert=(cert, key), verify=trust, timeout=10).status_code)
"""


@dataclass(frozen=True)
class Server:
    port: int
    trust: Path


@pytest.fixture
def server(se050: SoftwareElement, old_se050: SoftwareElement, tmp_path: Path) -> Iterator[Server]:
    """`openssl s_server` that demands a certificate of one of the chips' makers."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = self_signed(
        SERVER, name_of("localhost"), key, serial=1, now=datetime.now(UTC), san=[DNSName("localhost")]
    )
    trust, key_file, makers = tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "makers.pem"
    trust.write_text(certificate.pem())
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    makers.write_text(se050.manufacturer_certificates.read_text() + old_se050.manufacturer_certificates.read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [
        "openssl",
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        "-cert",
        trust,
        "-key",
        key_file,
        "-CAfile",
        makers,
    ]
    process = subprocess.Popen(
        [*command, "-Verify", "4", "-verify_return_error", "-no_ticket", "-www"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield Server(port, trust)
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("openssl s_server does not answer")


def run_client(
    element: SoftwareElement,
    server: Server,
    cert: Path,
    key: Path,
    *,
    has_hook: bool = True,
    code: str = CLIENT,
    options: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/env", sys.executable, "-c", code, str(server.port), str(server.trust), str(cert), str(key)]
    environment = {**os.environ, **element.environment}
    if has_hook:
        pin = Pin.from_file(element.pin_file)
        with element.open() as chip:
            planned = element_exec.plan(command, chip, pin=pin, environment=environment, explain=True)
        environment |= planned.environment
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def files_of(element: SoftwareElement, selector: str, directory: Path) -> tuple[Path, Path]:
    cert, key = directory / f"{selector}.crt", directory / f"{selector}.ref.pem"
    with element.open() as chip:
        cert.write_text(chip.certificate(selector).pem())
        key.write_text(chip.reference_key(selector))
    return cert, key


@pytest.mark.parametrize("selector", ["0xF0000100", "0xF0000110"])
@pytest.mark.parametrize("options", [(), ("12",)])
def test_a_reference_key_makes_a_handshake_with_the_chips_key(
    any_se050: SoftwareElement, server: Server, tmp_path: Path, selector: str, options: tuple[str, ...]
) -> None:
    cert, key = files_of(any_se050, selector, tmp_path)
    result = run_client(any_se050, server, cert, key, options=options)
    assert result.stdout == f"done TLSv1.{'2' if options else '3'}\n", result.stderr
    assert "-> pkcs11:token=SSS_PKCS11;object=sss%3A" in result.stderr


@pytest.mark.parametrize("selector", ["0xF0000100", "0xF0000110"])
def test_without_the_hook_the_same_files_fail(
    se050: SoftwareElement, server: Server, tmp_path: Path, selector: str
) -> None:
    cert, key = files_of(se050, selector, tmp_path)
    result = run_client(se050, server, cert, key, has_hook=False)
    assert result.returncode != 0
    assert "done" not in result.stdout


def test_a_file_with_a_uri_or_the_providers_pem_names_the_key(
    se050: SoftwareElement, server: Server, tmp_path: Path
) -> None:
    cert, _key = files_of(se050, "0xF0000100", tmp_path)
    uri_file, pem_file = tmp_path / "key.uri", tmp_path / "key.pem"
    with se050.open() as chip:
        uri_file.write_text(f"{chip.key().uri}\n")
        pem_file.write_text(render_uri_pem(chip.key().uri))
    for key in (uri_file, pem_file):
        result = run_client(se050, server, cert, key)
        assert result.stdout == "done TLSv1.3\n", result.stderr


def test_requests_is_served_as_it_is(se050: SoftwareElement, server: Server, tmp_path: Path) -> None:
    cert, key = files_of(se050, "0xF0000100", tmp_path)
    result = run_client(se050, server, cert, key, code=REQUESTS)
    assert result.stdout == "200\n", result.stderr


def test_an_ordinary_key_file_goes_the_usual_way(se050: SoftwareElement, server: Server, tmp_path: Path) -> None:
    result = run_client(se050, server, server.trust, server.trust.with_name("server.key"))
    assert "alert" in result.stderr.lower()  # the server does not know this certificate: but the key was loaded
    assert "birthmark" not in result.stderr


def test_swapped_files_are_said_to_be_swapped(se050: SoftwareElement, server: Server, tmp_path: Path) -> None:
    cert, key = files_of(se050, "0xF0000100", tmp_path)
    result = run_client(se050, server, key, cert)
    assert "the two files are swapped" in result.stderr


def test_a_certificate_of_another_key_is_told_apart(se050: SoftwareElement, server: Server, tmp_path: Path) -> None:
    _cert, key = files_of(se050, "0xF0000100", tmp_path)
    result = run_client(se050, server, server.trust, key)
    assert "the certificate is not of the key" in result.stderr


def test_a_certificate_of_another_kind_of_key_is_told_apart(
    se050: SoftwareElement, server: Server, tmp_path: Path
) -> None:
    cert, _key = files_of(se050, "0xF0000100", tmp_path)
    _cert, key = files_of(se050, "0xF0000110", tmp_path)
    result = run_client(se050, server, cert, key)
    assert "the certificate is not of the key" in result.stderr


def test_a_key_the_token_does_not_have_is_named(se050: SoftwareElement, server: Server, tmp_path: Path) -> None:
    cert, _key = files_of(se050, "0xF0000100", tmp_path)
    key = tmp_path / "key.uri"
    key.write_text("pkcs11:object=nobody")
    result = run_client(se050, server, cert, key)
    assert "the token has no key pkcs11:token=SSS_PKCS11;object=nobody" in result.stderr


def test_a_shadowed_sitecustomize_still_runs_and_nothing_of_ours_is_imported(
    se050: SoftwareElement, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('the other one')\n")
    environment = {**os.environ, **se050.environment, "PYTHONPATH": str(tmp_path)}
    code = "import sys; print(sorted(name for name in sys.modules if name.startswith('birthmark')))"
    with se050.open() as chip:
        planned = element_exec.plan(
            [sys.executable, "-c", code], chip, pin=Pin.from_file(se050.pin_file), environment=environment
        )
    result = subprocess.run(
        [planned.program, *planned.arguments],
        env=environment | dict(planned.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "the other one\n[]\n"


@pytest.mark.skipif(
    detect_capabilities().provider is None, reason="pkcs11-provider is not installed; Debian 12 has none"
)
@pytest.mark.parametrize("selector", ["0xF0000100", "0xF0000110"])
def test_by_the_provider_the_same_files_work(
    se050: SoftwareElement, server: Server, tmp_path: Path, selector: str
) -> None:
    cert, key = files_of(se050, selector, tmp_path)
    command = [sys.executable, "-c", CLIENT, str(server.port), str(server.trust), str(cert), str(key)]
    environment = {**os.environ, **se050.environment}
    with se050.open() as chip:
        pin = Pin.from_file(se050.pin_file)
        planned = element_exec.plan(
            command, chip, pin=pin, environment=environment, how=element_exec.KeyAccess.PROVIDER
        )
    done = subprocess.run(
        [planned.program, *planned.arguments],
        env=environment | dict(planned.environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "done TLSv1.3\n", done.stderr


def test_the_pin_is_in_no_argument_and_no_variable(se050: SoftwareElement) -> None:
    pin = Pin.from_file(se050.pin_file)
    with se050.open() as chip:
        for given in (pin, Pin(pin.reveal())):
            planned = element_exec.plan([sys.executable], chip, pin=given, environment=os.environ)
            assert pin.reveal() not in planned.explain()
            assert Path(planned.environment["BIRTHMARK_EXEC_PIN_FILE"]).read_text().strip() == pin.reveal()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["no-such-program"], ProgramMissingError),
        ([], ProgramMissingError),
        ([sys.executable, "-I", "app.py"], ProgramUnsupportedError),
        ([sys.executable, "-sE", "app.py"], ProgramUnsupportedError),
    ],
)
def test_programs_that_cannot_be_served_are_refused(
    se050: SoftwareElement, command: list[str], error: type[Exception]
) -> None:
    with se050.open() as chip, pytest.raises(error):
        element_exec.plan(command, chip, pin=None, environment=os.environ)


def test_a_missing_engine_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError) as missing:
        element_exec.find_engine(tmp_path)
    assert "libengine-pkcs11-openssl" in missing.value.explain_fix()
