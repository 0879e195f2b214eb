"""What is said of a chip that hardware alone can show."""

from dataclasses import replace

import pytest

from birthmark.doctor.facts import BusSeen, ChipAsked, ChipSeen, Ending, FileSeen, KeySeen, SoftHsmSeen, TokenSeen
from birthmark.doctor.model import Severity
from birthmark.doctor.probe import _held_back
from birthmark.doctor.rules import bus, chip
from birthmark.doctor.settings import Kind, Setting

PORT = Setting(Kind.VARIABLE, "EX_SSS_BOOT_SSS_PORT", "/dev/i2c-1:0x48")
TOKEN = TokenSeen("SSS_PKCS11", 1, needs_pin=True)


def a_chip(**facts: object) -> ChipSeen:
    module = str(facts.pop("module", "/lib.so"))
    return ChipSeen(ChipAsked(), module, FileSeen(module, exists=True), **facts)  # type: ignore[arg-type] # by name


def test_no_login_is_tried_where_it_would_be_the_last() -> None:
    held = _held_back(TokenSeen("t", 1, is_last_try=True))
    assert held is not None
    (found,) = chip.findings(a_chip(code=held.code, cause=held.cause, tokens=(TOKEN,)))
    assert (found.code, bool(found.for_a_person)) == ("doctor.pin_last_try", True)


def test_a_locked_token_is_left_to_its_officer() -> None:
    held = _held_back(TokenSeen("t", 1, is_locked=True))
    assert held is not None
    (found,) = chip.findings(a_chip(code=held.code, cause=held.cause, tokens=(TOKEN,)))
    assert (found.code, bool(found.for_a_person)) == ("keys.pin_locked", True)


def test_another_token_is_tried() -> None:
    assert _held_back(TOKEN) is None


def test_a_library_is_not_blamed_where_its_settings_lead_nowhere() -> None:
    setting = Setting(Kind.VARIABLE, "SOFTHSM2_CONF", "/chip/softhsm2.conf")
    hsm = SoftHsmSeen(FileSeen(setting.value, exists=True), setting, FileSeen("/chip/tokens"))
    (found,) = chip.findings(a_chip(code="keys.module_broken", cause="GeneralError", softhsm=hsm))
    assert found.code == "doctor.softhsm_tokens_missing"


def test_a_library_that_sees_no_token_is_told_with_its_name() -> None:
    (found,) = chip.findings(a_chip(code="keys.token_not_found", cause="none"))
    assert "/lib.so sees no token" in found.seen


@pytest.mark.parametrize(
    "facts",
    [
        {"code": "keys.token_not_found", "cause": "none"},
        {"ending": Ending.HUNG, "detail": "no answer within 10 s"},
        {"code": "keys.token_failed", "cause": "it failed", "detail": "DeviceError"},
    ],
    ids=["no token", "hangs", "fails"],
)
def test_an_se050_that_is_silent_may_be_in_deep_power_down(facts: dict[str, object]) -> None:
    path = "/usr/lib/plug-and-trust/libsss_pkcs11.so"
    (found,) = chip.findings(a_chip(**facts, module=path, others=("/usr/lib/another.so",)))
    assert "deep power-down" in found.advice
    (found,) = chip.findings(a_chip(**facts))
    assert "deep power-down" not in found.advice


def test_a_silent_chip_behind_cryptoauthlib_is_looked_for_on_its_bus_and_no_other_library_is_named() -> None:
    named = Setting(Kind.VARIABLE, "BIRTHMARK_PKCS11_MODULE", "cryptoauthlib:i2c,0x6A,7")
    seen = a_chip(code="keys.token_failed", cause="it failed", module=named.value, others=("/usr/lib/another.so",))
    (found,) = chip.findings(replace(seen, asked=ChipAsked(module=named)))
    assert "`i2cdetect -y 7`" in found.advice
    assert "another.so" not in found.command


def test_a_chip_that_opens_is_right() -> None:
    (found,) = chip.findings(a_chip(opened="SSS_PKCS11", keys=(KeySeen("sss:F0000100"),)))
    assert found.severity is Severity.OK


def test_a_bus_of_another_user_is_the_administrators() -> None:
    seen = BusSeen(PORT, FileSeen("/dev/i2c-1", exists=True, mode=0o660, reason="permission denied"))
    found = next(bus.findings(seen))
    assert (found.code, found.command) == ("doctor.bus_closed", 'sudo usermod -aG i2c "$(id -un)"')


def test_no_bus_at_all_is_the_boards() -> None:
    found = next(bus.findings(BusSeen(PORT, FileSeen("/dev/i2c-1"))))
    assert (found.code, bool(found.for_a_person), found.command) == ("doctor.bus_missing", True, "")


def test_an_access_manager_is_no_bus() -> None:
    assert bus.device_in("127.0.0.1:8040") == ""
