"""The agent's keys in a PKCS#11 token: made there, found again, destroyed there; and what is told when they are not."""

import hashlib
import hmac
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType

from birthmark.agent.config.key_and_file_uris import token_of
from birthmark.agent.config.model import KeyLocation, TokenLocation, TokenSettings
from birthmark.agent.key_store import AgentTokenError, KeyStore
from birthmark.agent.state_directory import DEVICE_ID, EST_ID, AgentPaths
from birthmark.keys.errors import KeyNotFoundError, ModuleMissingError
from birthmark.keys.key_handle import default_scheme
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.secure_elements.softhsm_element import initialize_token
from support.fakes import SeededEntropy

PIN = "123456"
SECRET = bytes(range(32))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The library of a chip with one token, `device`."""
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    yield initialize_token(tmp_path / "chip", "device", PIN)
    stop_library()
    os.environ.pop("SOFTHSM2_CONF", None)


def at(text: str) -> TokenLocation:
    return token_of(f"pkcs11:{text}?pin-value={PIN}")


def a_store(
    directory: Path, module: Path, slot: str | None = "token=device", preloaded: Mapping[str, KeyLocation] | None = None
) -> KeyStore:
    places = AgentPaths(directory / "root")
    places.prepare()
    settings = TokenSettings(module, None if slot is None else at(slot))
    return KeyStore(places, settings, preloaded or {}, SeededEntropy())


def labels(module: Path) -> set[str]:
    """The labels of the private keys in the token."""
    token = Pkcs11Token.open(module, label="device", pin=Pin(PIN))
    with closing(token), token.session() as session:
        found = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        return {str(item[Attribute.LABEL]) for item in found}


def test_a_new_key_is_made_in_the_token_and_its_file_only_names_it(tmp_path: Path, module: Path) -> None:
    with closing(keys := a_store(tmp_path, module)):
        made = keys.create(DEVICE_ID).handle
        text = keys.places.key(DEVICE_ID).read_text()
        assert text.startswith("pkcs11:token=device")
        assert PIN not in text
        (label,) = labels(module)
        assert label.startswith("device-id-")
    with closing(again := a_store(tmp_path, module)):
        found = again.open(DEVICE_ID).handle
        assert found.public_key == made.public_key
        public, signature = found.public_key, found.sign(b"data", default_scheme(found.public_key))
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


def test_a_key_that_is_replaced_is_destroyed_in_the_token_and_the_others_stay(tmp_path: Path, module: Path) -> None:
    with closing(keys := a_store(tmp_path, module)):
        keys.create(DEVICE_ID)
        keys.create(EST_ID)
        before = labels(module)
        keys.create(DEVICE_ID)
        after = labels(module)
    assert len(before) == len(after) == 2
    assert {label.rpartition("-")[0] for label in after} == {"device-id", "est-id"}
    assert len(before & after) == 1


def test_what_is_at_hand_is_told(tmp_path: Path, module: Path) -> None:
    with closing(keys := a_store(tmp_path, module)):
        keys.create(DEVICE_ID)
        (label,) = labels(module)
    given = {"born": at(f"token=device;object={label}")}
    with closing(keys := a_store(tmp_path, module, preloaded=given)):
        assert keys.look().endswith("; new keys are created in token device")
        assert label in keys.look()
    with closing(keys := a_store(tmp_path, module, slot=None)):
        assert keys.look() == "", "new keys are made in files"


def test_a_token_of_another_name_is_told_with_the_command_that_lists_them(tmp_path: Path, module: Path) -> None:
    with closing(keys := a_store(tmp_path, module, slot="token=another")):
        with pytest.raises(AgentTokenError) as refused:
            keys.create(DEVICE_ID)
        assert f"`birthmark chip ls --module {module}`" in refused.value.explain_fix()
        assert not keys.exists(DEVICE_ID)


def test_a_token_whose_pin_is_not_configured_is_told(tmp_path: Path, module: Path) -> None:
    places = AgentPaths(tmp_path / "root")
    places.prepare()
    keys = KeyStore(places, TokenSettings(module, token_of("pkcs11:token=device")), {}, SeededEntropy())
    with pytest.raises(AgentTokenError) as refused:
        keys.create(DEVICE_ID)
    assert "PIN" in refused.value.explain_cause()


def test_a_pin_may_stand_in_a_file_of_its_own(tmp_path: Path, module: Path) -> None:
    (tmp_path / "pin").touch(mode=0o600)
    (tmp_path / "pin").write_text(f"{PIN}\n")
    places = AgentPaths(tmp_path / "root")
    places.prepare()
    slot = token_of(f"pkcs11:token=device?pin-source=file:{tmp_path / 'pin'}")
    with closing(keys := KeyStore(places, TokenSettings(module, slot), {}, SeededEntropy())):
        keys.create(DEVICE_ID)
    assert len(labels(module)) == 1


def test_a_key_file_that_names_a_token_needs_the_library_in_the_configuration(tmp_path: Path, module: Path) -> None:
    with closing(keys := a_store(tmp_path, module)):
        keys.create(DEVICE_ID)
    without = KeyStore(keys.places, None, {}, SeededEntropy())
    with pytest.raises(ModuleMissingError) as refused:
        without.open(DEVICE_ID)
    assert "pkcs11_lib_path" in refused.value.explain_cause()


def test_a_key_of_ours_that_the_token_lost_is_made_again_and_one_that_is_given_is_missed(
    tmp_path: Path, module: Path
) -> None:
    lost = at("token=device;object=lost")
    with closing(keys := a_store(tmp_path, module, preloaded={"born": lost})):
        keys.create(DEVICE_ID)
        keys.places.key(DEVICE_ID).write_text(f"{lost.uri}\n")
        assert keys.find(DEVICE_ID) is None
        with pytest.raises(KeyNotFoundError):
            keys.find("born")


def test_a_secret_key_in_the_token_signs_there(tmp_path: Path, module: Path) -> None:
    token = Pkcs11Token.open(module, label="device", pin=Pin(PIN))
    with closing(token), token.session() as session:
        kind = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.GENERIC_SECRET}
        what = {Attribute.LABEL: "shared", Attribute.VALUE: SECRET, Attribute.SIGN: True, Attribute.TOKEN: True}
        session.create_object({**kind, **what})
    with closing(keys := a_store(tmp_path, module)):
        sign = keys.signs_by_secret(at("token=device;object=shared"))
        assert sign(b"data") == hmac.digest(SECRET, b"data", hashlib.sha256)
        missing = keys.signs_by_secret(at("token=device;object=other"))
        with pytest.raises(KeyNotFoundError) as refused:
            missing(b"data")
    assert "secret key 'other'" in refused.value.explain_cause()
