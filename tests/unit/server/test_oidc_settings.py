"""`[oidc.NAME]` of the configuration."""

import re
from pathlib import Path

import pytest

from birthmark.iam.model import UserRole
from birthmark.server.oidc_settings import SecretFileError, providers_of
from birthmark.server.settings import ConfigInvalidError, Settings, read_settings

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "user-access.md").read_text()
GOOD = '[oidc.plant]\nissuer = "https://id.example.com"\nclient_id = "birthmark"\n'


def read(text: str, directory: Path) -> Settings:
    file = directory / "server.toml"
    file.write_text(text)
    return read_settings(file, {})


def test_what_the_page_says_is_taken(tmp_path: Path) -> None:
    found = re.search(r"```toml file=sign-in.toml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "secret").write_text("s\n")
    text = found[1].replace("/etc/birthmark/plant.secret", str(tmp_path / "secret"))
    (plant,) = providers_of(read(text, tmp_path).oidc)
    assert (plant.title, plant.secret, plant.claim, plant.domains) == ("Plant", "s", "email", ["example.com"])
    assert plant.roles == {"plant-operators": [(UserRole.OPERATOR, "hub/birthmark")]}
    assert '"s"' not in repr(plant)
    assert "secret" not in repr(plant)


def test_nobody_is_linked_or_made_unless_it_is_said(tmp_path: Path) -> None:
    (plant,) = providers_of(read(GOOD, tmp_path).oidc)
    assert (plant.title, plant.claim, plant.roles, plant.secret) == ("plant", None, {}, None)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('claim = "email"', "oidc.plant.domains"),
        ('domains = ["example.com"]', "oidc.plant.domains"),
        ('scopes = ["email"]', "oidc.plant.scopes"),
        ('roles = { "*" = "viewer" }', "oidc.plant.roles"),
        ('claim = "name"\nroles = { "*" = "king" }', "oidc.plant.roles.*"),
        ('claim = "name"\nroles = { "*" = "viewer at nowhere" }', "oidc.plant.roles.*"),
        ("secret = 1", "secret"),
    ],
)
def test_a_mistake_is_told_by_its_key(tmp_path: Path, more: str, key: str) -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        read(f"{GOOD}{more}\n", tmp_path)
    assert key in refused.value.explain_cause()


@pytest.mark.parametrize(
    "issuer", ["id.example.com", "file:///etc", "https://", "https://id.example.com?x", "https://[::1"]
)
def test_an_issuer_is_a_url(tmp_path: Path, issuer: str) -> None:
    with pytest.raises(ConfigInvalidError):
        read(GOOD.replace("https://id.example.com", issuer), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"one\r\ntwo\r\n"])
def test_a_secret_that_cannot_be_read_is_told_with_its_file(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    settings = read(f'{GOOD}client_secret_file = "{tmp_path / "secret"}"\n', tmp_path)
    with pytest.raises(SecretFileError):
        providers_of(settings.oidc)


def test_of_a_secret_that_is_not_utf_8_no_encoding_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes("Gerät".encode("cp1252"))
    settings = read(f'{GOOD}client_secret_file = "{tmp_path / "secret"}"\n', tmp_path)
    with pytest.raises(SecretFileError) as refused:
        providers_of(settings.oidc)
    assert "Save it as UTF-8 in the editor that created it." in refused.value.explain_fix()
    assert "Ger" not in str(refused.value)
