"""`[functions."ARN"]` and `[roles."ARN"]` of the configuration."""

from pathlib import Path

import pytest

from birthmark.outbound.webhook_signature import secret_of
from birthmark.server.function_and_role_files import functions_of, roles_of
from birthmark.server.message_server_files import servers_of
from birthmark.server.message_server_settings import ServerTable
from birthmark.server.settings import ConfigInvalidError, Settings, read_settings

ARN = "arn:aws:lambda:us-east-1:000000000000:function:hook"


def read(directory: Path, arn: str = ARN, url: str = "https://hook.example/x") -> Settings:
    file = directory / "server.toml"
    file.write_text(f'[functions."{arn}"]\nurl = "{url}"\nsecret_file = "{directory / "secret"}"\n')
    return read_settings(file, {})


def test_a_function_has_an_address_and_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{secret_of(b'k' * 32)}\n")
    (hook,) = functions_of(read(tmp_path)).values()
    assert (hook.url, hook.host, hook.secret) == ("https://hook.example/x", "hook.example", secret_of(b"k" * 32))
    assert "whsec_" not in repr(hook)


@pytest.mark.parametrize(
    ("arn", "url"),
    [
        ("hook", "https://hook.example"),
        ("arn:aws:lambda:us-east-1:0:function:hook", "https://hook.example"),
        (ARN, "http://hook.example"),
        (ARN, "https://me:secret@hook.example"),
    ],
)
def test_a_mistake_is_told_by_its_key(tmp_path: Path, arn: str, url: str) -> None:
    with pytest.raises(ConfigInvalidError):
        read(tmp_path, arn, url)


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"whsec_", b"whsec_AAAA", b"c2VjcmV0c2VjcmV0c2VjcmV0"])
def test_a_secret_that_cannot_be_used_is_told_with_its_file(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigInvalidError):
        functions_of(read(tmp_path))


@pytest.mark.parametrize("key", ["secret", "password", "policy"])
def test_of_a_secret_that_is_not_utf_8_no_encoding_is_guessed(tmp_path: Path, key: str) -> None:
    (file := tmp_path / "file").write_bytes("Neuchâtel".encode("cp1252"))
    (config := tmp_path / "server.toml").write_text(
        {
            "secret": f'[functions."{ARN}"]\nurl = "https://hook.example"\nsecret_file = "{file}"\n',
            "password": f'[servers.bus]\nurl = "nats://bus.example"\npassword_file = "{file}"\n',
            "policy": f'[roles."{ROLE}"]\npolicy_file = "{file}"\n',
        }[key]
    )
    settings = read_settings(config, {})
    with pytest.raises(ConfigInvalidError) as refused:
        [reads(settings) for reads in (functions_of, servers_of, roles_of)]
    assert ("iconv -f CP1252" in refused.value.explain_fix()) is (key == "policy")
    assert ("Neuchâtel" in refused.value.explain_cause()) is (key == "policy")


ROLE = "arn:aws:iam::000000000000:role/reader"


def roles_in(directory: Path, text: str, arn: str = ROLE) -> Settings:
    (directory / "policy.json").write_text(text)
    file = directory / "server.toml"
    file.write_text(f'[roles."{arn}"]\npolicy_file = "{directory / "policy.json"}"\n')
    return read_settings(file, {})


def test_a_role_may_do_what_its_file_says_also_of_other_services(tmp_path: Path) -> None:
    text = '{"Statement": {"Effect": "Allow", "Action": ["iot:*", "s3:Get*"], "Resource": "*"}}'
    (policy,) = roles_of(roles_in(tmp_path, text)).values()
    assert policy.name == ROLE


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Statement": {"Effect": "Allow", "Action": "x", "Resource": "*"}}'])
def test_a_policy_that_says_nothing_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        roles_of(roles_in(tmp_path, text))
    assert "policy.json" in refused.value.explain_cause()


def test_a_policy_that_says_something_twice_is_refused(tmp_path: Path) -> None:
    text = '{"Statement": {"Effect": "Deny", "Effect": "Allow", "Action": "iot:*", "Resource": "*"}}'
    with pytest.raises(ConfigInvalidError) as refused:
        roles_of(roles_in(tmp_path, text))
    assert 'an object has the key "Effect" twice' in refused.value.explain_cause()


def test_what_names_no_role_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalidError):
        roles_in(tmp_path, "{}", "reader")


@pytest.mark.parametrize("text", ["one\r\ntwo", "P\0a\0s\0s", "a\x1fsecret"])
def test_a_password_with_a_control_character_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_bytes(text.encode())
    server = ServerTable("mqtts://broker.example", user="me", password_file=str(tmp_path / "secret"))
    with pytest.raises(ConfigInvalidError) as refused:
        servers_of(Settings(servers={"plant": server}))
    assert "a control character" in refused.value.explain_cause()
