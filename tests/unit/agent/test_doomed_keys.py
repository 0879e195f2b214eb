"""Keys in a token that are to go, while the token is away."""

from pathlib import Path

from birthmark.agent.key_store import KeyStore
from birthmark.agent.state_directory import write_file
from birthmark.keys.pkcs11_uri import Pkcs11Uri
from birthmark.keys.pkcs11_uri_files import render_uri_pem
from support.agent.world import World

COUNT = 40


def doom(keys: KeyStore, number: int) -> None:
    uri = Pkcs11Uri(token="away", object=f"device-id-{number}", type="private")
    write_file(keys.places.key("device-id"), render_uri_pem(uri).encode())
    keys._mark_for_destruction("device-id")


def test_none_is_forgotten_however_many_there_are(tmp_path: Path) -> None:
    keys = World(tmp_path).agent().identities.keys
    for number in range(COUNT):
        doom(keys, number)
    path = keys._doomed_at("device-id")
    keys.sweep("device-id")  # nothing of it is at hand
    assert {uri.object for uri in keys._load_keys_to_destroy(path)} >= {
        f"device-id-{number}" for number in range(COUNT - 1)
    }


def test_a_line_that_was_cut_names_no_key(tmp_path: Path) -> None:
    keys = World(tmp_path).agent().identities.keys
    path = keys._doomed_at("device-id")
    write_file(path, b"pkcs11:token=away;object=one;type=private\npkcs11:token=away;object=tw")
    assert [uri.object for uri in keys._load_keys_to_destroy(path)] == ["one"]
