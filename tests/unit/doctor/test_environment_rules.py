"""Variables: what another server left, what is not there, and what a new terminal does not know."""

from dataclasses import replace

import pytest

from birthmark.doctor.facts import FileSeen, MismatchedVariable, PathSeen, ServerSeen, TrustSeen
from birthmark.doctor.model import Severity
from birthmark.doctor.rules.environment import not_set_up, of_another_server, paths, trust
from birthmark.doctor.setting_sources import Kind, Setting

SERVER = ServerSeen("/data", is_served=True, is_known_to_shell=False)
BUNDLE = Setting(Kind.VARIABLE, "SSL_CERT_FILE", "/trust.pem")
THERE = FileSeen(BUNDLE.value, exists=True)


def test_variables_of_another_server_are_named_without_their_secrets_and_set_anew() -> None:
    foreign = (MismatchedVariable("PROVISIONING_HOST", "10.0.0.9"), MismatchedVariable("AWS_SECRET_ACCESS_KEY"))
    (found,) = of_another_server(replace(SERVER, foreign=foreign))
    assert "PROVISIONING_HOST=10.0.0.9; AWS_SECRET_ACCESS_KEY; the intended server is that of /data" in found.seen
    assert found.command == 'eval "$(birthmark env --data /data)"'
    assert list(of_another_server(SERVER)) == []


def test_a_new_terminal_is_told_of_the_server_and_nobody_else() -> None:
    (found,) = not_set_up(SERVER)
    assert found.severity is Severity.NOTE
    assert list(not_set_up(replace(SERVER, is_known_to_shell=True))) == []
    assert list(not_set_up(replace(SERVER, is_served=False))) == []


def test_a_path_that_is_not_there_gives_way_to_one_that_is_or_to_the_programs_own() -> None:
    setting = Setting(Kind.VARIABLE, "OPENSSL_CONF", "/gone")
    (there, away) = paths([PathSeen(setting, FileSeen("/gone"), "/here"), PathSeen(setting, FileSeen("/gone"))])
    assert (there.command, away.command) == ("export OPENSSL_CONF=/here", "unset OPENSSL_CONF")
    assert list(paths([PathSeen(setting, FileSeen("/gone", exists=True))])) == []


@pytest.mark.parametrize("server", [SERVER, replace(SERVER, is_served=False), None])
@pytest.mark.parametrize(
    ("file", "code"),
    [
        (FileSeen(BUNDLE.value), "doctor.trust_missing"),
        (replace(THERE, reason="permission denied"), "doctor.trust_missing"),
        (THERE, "doctor.trust_empty"),
    ],
)
def test_cas_that_nobody_can_read_are_exchanged_for_the_servers_own_or_the_systems(
    file: FileSeen, code: str, server: ServerSeen | None
) -> None:
    (found,) = trust([TrustSeen(BUNDLE, file)], server)
    by_server = server is not None and server.is_served
    assert (found.code, found.severity) == (code, Severity.FAULT)
    assert found.command == (SERVER.env if by_server else "unset SSL_CERT_FILE")


def test_cas_that_are_there_are_counted() -> None:
    (found,) = trust([TrustSeen(BUNDLE, THERE, 3)], None)
    assert (found.severity, found.seen) == (Severity.OK, "SSL_CERT_FILE=/trust.pem: 3 certificates")
