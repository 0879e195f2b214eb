"""Variables: what another server left, what is not there, and what a new terminal does not know."""

from dataclasses import replace

import pytest

from birthmark.doctor.facts import FileFacts, MismatchedVariable, PathFacts, ServerFacts, TrustFacts
from birthmark.doctor.findings import FindingSeverity
from birthmark.doctor.rules.connection_environment_variables import not_set_up, of_another_server, paths, trust
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting

SERVER = ServerFacts("/data", is_served=True, is_known_to_shell=False)
BUNDLE = SourcedSetting(SettingSource.VARIABLE, "SSL_CERT_FILE", "/trust.pem")
THERE = FileFacts(BUNDLE.value, exists=True)


def test_variables_of_another_server_are_named_without_their_secrets_and_set_anew() -> None:
    foreign = (MismatchedVariable("PROVISIONING_HOST", "10.0.0.9"), MismatchedVariable("AWS_SECRET_ACCESS_KEY"))
    (found,) = of_another_server(replace(SERVER, foreign=foreign))
    assert "PROVISIONING_HOST=10.0.0.9; AWS_SECRET_ACCESS_KEY; the intended server uses /data" in found.seen
    assert found.command == 'eval "$(birthmark env --data /data)"'
    assert list(of_another_server(SERVER)) == []


def test_a_new_terminal_is_told_of_the_server_and_nobody_else() -> None:
    (found,) = not_set_up(SERVER)
    assert found.severity is FindingSeverity.NOTE
    assert list(not_set_up(replace(SERVER, is_known_to_shell=True))) == []
    assert list(not_set_up(replace(SERVER, is_served=False))) == []


def test_a_path_that_is_not_there_gives_way_to_one_that_is_or_to_the_programs_own() -> None:
    setting = SourcedSetting(SettingSource.VARIABLE, "OPENSSL_CONF", "/gone")
    (there, away) = paths([PathFacts(setting, FileFacts("/gone"), "/here"), PathFacts(setting, FileFacts("/gone"))])
    assert (there.command, away.command) == ("export OPENSSL_CONF=/here", "unset OPENSSL_CONF")
    assert list(paths([PathFacts(setting, FileFacts("/gone", exists=True))])) == []


@pytest.mark.parametrize("server", [SERVER, replace(SERVER, is_served=False), None])
@pytest.mark.parametrize(
    ("file", "code"),
    [
        (FileFacts(BUNDLE.value), "doctor.trust_missing"),
        (replace(THERE, reason="permission denied"), "doctor.trust_missing"),
        (THERE, "doctor.trust_empty"),
    ],
)
def test_cas_that_nobody_can_read_are_exchanged_for_the_servers_own_or_the_systems(
    file: FileFacts, code: str, server: ServerFacts | None
) -> None:
    (found,) = trust([TrustFacts(BUNDLE, file)], server)
    by_server = server is not None and server.is_served
    assert (found.code, found.severity) == (code, FindingSeverity.FAULT)
    assert found.command == (SERVER.env if by_server else "unset SSL_CERT_FILE")


def test_cas_that_are_there_are_counted() -> None:
    (found,) = trust([TrustFacts(BUNDLE, THERE, 3)], None)
    assert (found.severity, found.seen) == (FindingSeverity.OK, "SSL_CERT_FILE=/trust.pem: 3 certificates")
