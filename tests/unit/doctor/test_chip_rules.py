"""What is said of a chip that hardware alone can show."""

from dataclasses import replace

import pytest

from birthmark.doctor.facts import (
    BusFacts,
    ChipFacts,
    ChipSelection,
    FileFacts,
    KeyFacts,
    ProbeExit,
    SoftHsmFacts,
    TokenFacts,
)
from birthmark.doctor.findings import DoctorFinding, FindingSeverity
from birthmark.doctor.pkcs11_probe import _held_back
from birthmark.doctor.rules import chip, i2c_bus_and_scp03
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting

PORT = SourcedSetting(SettingSource.VARIABLE, "EX_SSS_BOOT_SSS_PORT", "/dev/i2c-1:0x48")
TOKEN = TokenFacts("SSS_PKCS11", 1, needs_pin=True)


def a_chip(**facts: object) -> ChipFacts:
    module = str(facts.pop("module", "/lib.so"))
    return ChipFacts(ChipSelection(), module, FileFacts(module, exists=True), **facts)  # type: ignore[arg-type] # by name


def test_no_login_is_tried_where_it_would_be_the_last() -> None:
    held = _held_back(TokenFacts("t", 1, is_last_try=True))
    assert held is not None
    (found,) = chip.findings(a_chip(code=held.code, cause=held.cause, tokens=(TOKEN,)))
    assert (found.code, bool(found.for_a_person)) == ("doctor.pin_last_try", True)


def test_a_locked_token_is_left_to_its_officer() -> None:
    held = _held_back(TokenFacts("t", 1, is_locked=True))
    assert held is not None
    (found,) = chip.findings(a_chip(code=held.code, cause=held.cause, tokens=(TOKEN,)))
    assert (found.code, bool(found.for_a_person)) == ("keys.pin_locked", True)


def test_another_token_is_tried() -> None:
    assert _held_back(TOKEN) is None


def test_a_library_is_not_blamed_where_its_settings_lead_nowhere() -> None:
    setting = SourcedSetting(SettingSource.VARIABLE, "SOFTHSM2_CONF", "/chip/softhsm2.conf")
    hsm = SoftHsmFacts(FileFacts(setting.value, exists=True), setting, FileFacts("/chip/tokens"))
    (found,) = chip.findings(a_chip(code="keys.module_broken", cause="GeneralError", softhsm=hsm))
    assert found.code == "doctor.softhsm_tokens_missing"


def test_a_library_that_sees_no_token_is_told_with_its_name() -> None:
    (found,) = chip.findings(a_chip(code="keys.token_not_found", cause="none"))
    assert "/lib.so reports no token" in found.seen


@pytest.mark.parametrize(
    "facts",
    [
        {"code": "keys.token_not_found", "cause": "none"},
        {"ending": ProbeExit.HUNG, "detail": "no response within 10 s"},
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
    named = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_PKCS11_MODULE", "cryptoauthlib:i2c,0x6A,7")
    seen = a_chip(code="keys.token_failed", cause="it failed", module=named.value, others=("/usr/lib/another.so",))
    (found,) = chip.findings(replace(seen, asked=ChipSelection(module=named)))
    assert "`i2cdetect -y 7`" in found.advice
    assert "another.so" not in found.command


def test_a_chip_that_opens_is_right() -> None:
    (found,) = chip.findings(a_chip(opened="SSS_PKCS11", keys=(KeyFacts("sss:F0000100"),)))
    assert found.severity is FindingSeverity.OK


def test_a_bus_of_another_user_is_the_administrators() -> None:
    seen = BusFacts(PORT, FileFacts("/dev/i2c-1", exists=True, mode=0o660, reason="permission denied"))
    found = next(i2c_bus_and_scp03.findings(seen))
    assert (found.code, found.command) == ("doctor.bus_closed", 'sudo usermod -aG i2c "$(id -un)"')


def test_no_bus_at_all_is_the_boards() -> None:
    found = next(i2c_bus_and_scp03.findings(BusFacts(PORT, FileFacts("/dev/i2c-1"))))
    assert (found.code, bool(found.for_a_person), found.command) == ("doctor.bus_missing", True, "")


def test_an_access_manager_is_no_bus() -> None:
    assert i2c_bus_and_scp03.device_in("127.0.0.1:8040") == ""


MODULE = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_PKCS11_MODULE", "/lib.so")
LABEL = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_TOKEN", "north")
SLOT = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_SLOT", "9")
PIN_FILE = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_PIN_FILE", "/d/pin")
KEY = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_KEY", "key-1")
CONF = SourcedSetting(SettingSource.VARIABLE, "SOFTHSM2_CONF", "/chip/softhsm2.conf")
SIMULATE = 'eval "$(birthmark chip simulate'
THERE = FileFacts("/d/pin", exists=True, mode=0o600)


def told(**facts: object) -> DoctorFinding:
    (found,) = chip.findings(a_chip(**facts))
    return found


def asked(**settings: object) -> ChipSelection:
    return ChipSelection(**settings)  # type: ignore[arg-type] # by name


def test_a_library_that_nobody_named_is_named() -> None:
    (found,) = chip.not_named(["/usr/lib/my chip.so", "/usr/lib/other.so"])
    assert found.command == "export BIRTHMARK_PKCS11_MODULE='/usr/lib/my chip.so'"
    assert list(chip.not_named([])) == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"library": FileFacts("/lib.so")}, "keys.module_missing"),
        ({"library": FileFacts("/lib.so", exists=True, is_directory=True)}, "keys.module_missing"),
        ({"built_for": "aarch64", "here": "x86_64"}, "doctor.library_foreign"),
        ({"ending": ProbeExit.CRASHED, "detail": "SIGSEGV"}, "doctor.library_crashes"),
        ({"code": "keys.module_broken", "cause": "x"}, "keys.module_broken"),
    ],
)
def test_a_library_that_cannot_be_used_gives_way_to_one_that_is_here(facts: dict[str, object], code: str) -> None:
    seen = replace(a_chip(), others=("/other.so",), asked=asked(module=MODULE), **facts)  # type: ignore[arg-type]
    (found,) = chip.findings(seen)
    assert (found.code, found.command) == (code, "export BIRTHMARK_PKCS11_MODULE=/other.so")
    (alone,) = chip.findings(replace(seen, others=()))
    assert alone.command.startswith(SIMULATE)


@pytest.mark.parametrize(("beside", "command"), [("/new/c.conf", "export SOFTHSM2_CONF=/new/c.conf"), ("", SIMULATE)])
def test_settings_of_softhsm_that_are_gone_are_looked_for_beside_the_pin(beside: str, command: str) -> None:
    hsm = SoftHsmFacts(FileFacts(CONF.value), CONF, conf_beside_pin=beside)
    found = told(softhsm=hsm)
    assert (found.code, found.command.startswith(command)) == ("doctor.softhsm_settings_missing", True)


def test_tokens_of_softhsm_that_were_moved_are_named_where_they_stand() -> None:
    hsm = SoftHsmFacts(FileFacts(CONF.value, exists=True), CONF, None, tokens_beside="/chip/tokens")
    assert "directories.tokendir = /chip/tokens" in told(softhsm=hsm).command


@pytest.mark.parametrize(
    ("pin", "beside", "code", "command"),
    [
        (FileFacts("/d/pin"), "", "keys.pin_file_missing", "(umask 077; set -C; cat > /d/pin)"),
        (FileFacts("/d/pin"), "/chip/pin", "keys.pin_file_missing", "export BIRTHMARK_PIN_FILE=/chip/pin"),
        (replace(THERE, mode=0o644), "", "keys.pin_file", "chmod 0600 /d/pin"),
    ],
)
def test_a_pin_that_cannot_be_read_or_that_all_can_is_mended(
    pin: FileFacts, beside: str, code: str, command: str
) -> None:
    hsm = SoftHsmFacts(FileFacts("/chip/c", exists=True), pin_beside=beside)
    (found,) = chip.findings(replace(a_chip(pin=pin, softhsm=hsm), asked=asked(pin_file=PIN_FILE)))
    assert (found.code, found.command) == (code, command)


def test_white_space_around_a_pin_is_taken_away_where_the_token_refused_it() -> None:
    seen = a_chip(pin=THERE, trimming="sed x", code="keys.pin_file", tokens=(TOKEN,))
    first, *_ = chip.findings(replace(seen, asked=asked(pin_file=PIN_FILE)))
    assert (first.code, first.command.startswith("sed x && export ")) == ("doctor.pin_has_spaces", True)


@pytest.mark.parametrize("tokens", [(), (TOKEN,)])
def test_a_pin_file_that_holds_no_pin_is_told_once_and_written_anew_with_or_without_a_token(
    tokens: tuple[TokenFacts, ...],
) -> None:
    seen = a_chip(pin=THERE, code="keys.pin_file", cause="several lines", tokens=tokens)
    (found,) = chip.findings(replace(seen, asked=asked(pin_file=PIN_FILE)))
    assert (found.code, found.cause) == ("keys.pin_file", "several lines")
    assert found.command == "mv --backup=t /d/pin /d/pin.old && (umask 077; set -C; cat > /d/pin)"


NORTH = TokenFacts("north", 3)


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({}, "birthmark chip ls"),
        ({"token": replace(LABEL, value="south")}, "export BIRTHMARK_TOKEN=north"),
        ({"token": LABEL, "slot": SLOT}, "export BIRTHMARK_SLOT=3"),
    ],
)
def test_a_token_that_is_not_there_gives_way_to_one_that_is(settings: dict[str, object], command: str) -> None:
    seen = a_chip(code="keys.token_not_found", cause="none", tokens=(NORTH,))
    (found,) = chip.findings(replace(seen, asked=asked(**settings)))
    assert (found.command, "'north' in slot 3" in found.seen) == (command, True)


@pytest.mark.parametrize(
    ("tokens", "settings", "command"),
    [
        ((NORTH, TokenFacts("north", 4)), {}, "export BIRTHMARK_SLOT=3"),
        ((NORTH, TokenFacts("south", 4)), {}, "export BIRTHMARK_TOKEN=north"),
        ((NORTH, NORTH, TokenFacts("south", 4)), {"token": LABEL}, "export BIRTHMARK_TOKEN=south"),
    ],
)
def test_of_several_tokens_one_is_named_that_only_one_is_called(
    tokens: tuple[TokenFacts, ...], settings: dict[str, object], command: str
) -> None:
    seen = a_chip(code="keys.token_ambiguous", cause="several", tokens=tokens)
    (found,) = chip.findings(replace(seen, asked=asked(**settings)))
    assert found.command == command


@pytest.mark.parametrize("beside", ["", "/chip/pin"])
def test_a_pin_that_nobody_named_is_typed_or_found_beside_the_settings(beside: str) -> None:
    hsm = SoftHsmFacts(FileFacts("/chip/c", exists=True), pin_beside=beside)
    found = told(code="keys.pin_missing", cause="x", tokens=(TOKEN,), softhsm=hsm)
    assert found.command.endswith("BIRTHMARK_PIN_FILE=/chip/pin" if beside else 'BIRTHMARK_PIN_FILE="$PWD/pin"')


@pytest.mark.parametrize(
    ("settings", "pin", "beside", "command"),
    [
        ({}, None, "", "(umask 077; set -C; cat > pin)"),
        ({"pin_file": PIN_FILE}, THERE, "", "mv --backup=t /d/pin /d/pin.old && (umask 077; set -C; cat > /d/pin)"),
        ({"pin_file": PIN_FILE}, THERE, "/chip/pin", "export BIRTHMARK_PIN_FILE=/chip/pin"),
        ({"has_inline_pin": True, "config": "/etc/c.toml"}, None, "", "(umask 077; set -C; cat > /etc/pin) && sed -i"),
    ],
)
def test_a_wrong_pin_is_never_guessed(
    settings: dict[str, object], pin: FileFacts | None, beside: str, command: str
) -> None:
    hsm = SoftHsmFacts(FileFacts("/chip/c", exists=True), pin_beside=beside)
    seen = a_chip(code="keys.pin_wrong", detail="PinIncorrect", tokens=(TOKEN,), pin=pin, softhsm=hsm)
    (found,) = chip.findings(replace(seen, asked=asked(**settings)))
    assert found.command.startswith(command)
    assert "do not guess" in found.advice


def test_what_a_token_refuses_otherwise_is_told_in_its_words() -> None:
    found = told(code="keys.unsupported", detail="MechanismInvalid", tokens=(TOKEN,))
    assert (found.code, found.seen) == ("keys.unsupported", "MechanismInvalid")


@pytest.mark.parametrize(
    ("keys", "code", "command"),
    [
        ((KeyFacts("key-2"),), "keys.key_not_found", "export BIRTHMARK_KEY=key-2"),
        ((), "keys.key_not_found", "birthmark chip ls"),
        ((KeyFacts("key-1"),), "doctor.chip", ""),
    ],
)
def test_a_key_that_is_not_in_the_token_gives_way_to_one_that_is(
    keys: tuple[KeyFacts, ...], code: str, command: str
) -> None:
    (found,) = chip.findings(replace(a_chip(opened="north", keys=keys), asked=asked(key=KEY)))
    assert (found.code, found.command) == (code, command)


def test_a_label_in_the_other_byte_order_is_told_as_the_library_says_it() -> None:
    wanted = replace(KEY, value="sss:000100F0")
    seen = a_chip(opened="SSS_PKCS11", keys=(KeyFacts("sss:F0000100"),))
    (found,) = chip.findings(replace(seen, asked=asked(key=wanted)))
    assert (found.code, found.severity) == ("doctor.label_byte_order", FindingSeverity.WARNING)
    assert "'sss:F0000100' for object 0xF0000100" in found.seen


SCP03 = SourcedSetting(SettingSource.VARIABLE, "EX_SSS_BOOT_SCP03_PATH", "/keys.txt")
KEYS = FileFacts("/keys.txt", exists=True, mode=0o600)
ON_BUS = BusFacts(PORT, FileFacts("/dev/i2c-1", exists=True), scp03=SCP03, scp03_file=KEYS)


def codes(seen: BusFacts) -> list[str]:
    return [found.code for found in i2c_bus_and_scp03.findings(seen)]


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (ON_BUS, ["doctor.bus", "doctor.channel"]),
        (replace(ON_BUS, scp03=None), ["doctor.bus", "doctor.channel_plain"]),
        (replace(ON_BUS, scp03_file=None), ["doctor.bus", "doctor.channel_keys_missing"]),
        (replace(ON_BUS, scp03_file=replace(KEYS, mode=0o644)), ["doctor.bus", "doctor.channel_keys_exposed"]),
        (replace(ON_BUS, factory="SE050C"), ["doctor.bus", "doctor.channel_factory_keys"]),
        (replace(ON_BUS, lacks_middleware=True), ["doctor.bus", "doctor.middleware_missing", "doctor.channel"]),
        (BusFacts(has_nxp_library=True), ["doctor.channel_plain"]),
        (BusFacts(), []),
    ],
)
def test_who_can_listen_on_the_way_to_an_se050_is_told(seen: BusFacts, told: list[str]) -> None:
    assert codes(seen) == told


def test_a_bus_that_is_not_there_gives_way_to_one_that_is_with_the_chips_address() -> None:
    found = next(i2c_bus_and_scp03.findings(replace(ON_BUS, device=FileFacts("/dev/i2c-1"), devices=("/dev/i2c-7",))))
    assert found.command == "export EX_SSS_BOOT_SSS_PORT=/dev/i2c-7:0x48"


def test_an_address_with_eight_bits_is_written_with_seven() -> None:
    found = next(i2c_bus_and_scp03.findings(replace(ON_BUS, port=replace(PORT, value="/dev/i2c-1:0x90"))))
    assert (found.code, found.command) == ("doctor.bus_address", "export EX_SSS_BOOT_SSS_PORT=/dev/i2c-1:0x48")


def test_microchips_library_takes_eight_bits_and_a_directory_that_is_there() -> None:
    conf = ("/etc/cryptoauthlib/0.conf", "interface = i2c,0x60\ninterface = i2c,0xC0\n")
    address, store = i2c_bus_and_scp03.findings(
        BusFacts(microchip=(conf,), filestore=FileFacts("/var/lib/cryptoauthlib"))
    )
    assert address.command == "sed -i /interface/s/0x60/0xc0/ /etc/cryptoauthlib/0.conf"
    assert store.command == "mkdir -p /var/lib/cryptoauthlib"
