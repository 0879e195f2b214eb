"""OpenSSL's configuration, as text of anybody's."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.doctor.facts import FileFacts, OpensslFacts
from birthmark.doctor.rules import openssl_config
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting

CONF = SourcedSetting(SettingSource.VARIABLE, "OPENSSL_CONF", "/openssl.cnf")
ENGINE = "openssl_conf = a\n[a]\nengines = b\n[b]\ne4sss = c\n[c]\ndynamic_path = /usr/lib/libsss_engine.so # NXP's\n"


def found_in(text: str, *missing: str) -> list[str]:
    seen = OpensslFacts(CONF, FileFacts("/openssl.cnf", exists=True, mode=0o600), openssl_config.parse(text), missing)
    return [one.code for one in openssl_config.findings(seen)]


def test_an_engine_that_is_there_is_right() -> None:
    assert found_in(ENGINE) == ["doctor.openssl_conf"]


def test_an_engine_that_is_not_there_is_told() -> None:
    (path,) = openssl_config.paths_in(openssl_config.parse(ENGINE))
    assert found_in(ENGINE, path) == ["doctor.openssl_module_missing"]


def test_providers_without_default_leave_openssl_without_algorithms() -> None:
    text = "openssl_conf = a\n[a]\nproviders = b\n[b]\nnxp = c\n[c]\nactivate = 1\n"
    assert found_in(text) == ["doctor.provider_default_missing"]


def test_no_providers_at_all_are_right() -> None:
    assert found_in("[a]\nb = c\n") == ["doctor.openssl_conf"]


def test_a_configuration_that_is_not_there_is_named_no_more() -> None:
    (found,) = openssl_config.findings(OpensslFacts(CONF, FileFacts("/openssl.cnf")))
    assert (found.code, found.command) == ("doctor.openssl_conf_missing", "unset OPENSSL_CONF")


PROVIDERS = "openssl_conf = a\n[a]\nproviders = b\n[b]\ndefault = d\npkcs11 = p\n"
MODULE = "[p]\npkcs11-module-path = /lib.so\n"


def test_a_provider_that_shares_its_keys_is_told_and_default_stays_active_beside_it() -> None:
    active = "[d]\nactivate = 1\n"
    assert found_in(PROVIDERS + active + MODULE) == ["doctor.provider_caches_keys"]
    assert found_in(PROVIDERS + active + MODULE + "pkcs11-module-cache-keys = false\n") == ["doctor.openssl_conf"]
    assert found_in(PROVIDERS + "[d]\nactivate = 0\n") == ["doctor.provider_default_missing"]


@given(st.text(max_size=2000))
def test_any_text_is_understood_somehow(text: str) -> None:
    found_in(text, *openssl_config.paths_in(openssl_config.parse(text)))
