"""The header for C programs."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from birthmark.server.device_endpoint_files import as_c_header

ROOTS = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
ALL: dict[str, Any] = {
    "dps": {"host": "dps.example", "https_port": 443, "id_scope": "0ne00ABC"},
    "iothub": {"host": "hub.example", "https_port": 443, "service_connection_string": "SharedAccessKey=secret"},
    "aws": {"data_endpoint": "aws.example", "region": "us-east-1", "secret_access_key": "secret"},
    "est": {"password": "secret"},
}
NONE = dict.fromkeys(ALL)


def test_the_header_names_host_scope_topics_and_root() -> None:
    text = as_c_header(ALL, ROOTS, "gateway-7")
    assert '#define BIRTHMARK_DPS_HOST "dps.example"\n' in text
    assert '#define BIRTHMARK_DPS_USERNAME_FORMAT "0ne00ABC/registrations/%s/api-version=2019-03-31"\n' in text
    assert '#define BIRTHMARK_REGISTRATION_ID "gateway-7"\n' in text
    assert '    "-----BEGIN CERTIFICATE-----\\n"\n    "AAAA\\n"\n' in text


def test_it_holds_no_secret() -> None:
    assert "secret" not in as_c_header(ALL, ROOTS).replace("without secrets", "")


def test_what_is_not_served_is_left_out() -> None:
    text = as_c_header(NONE, ROOTS)
    assert "DPS" not in text
    assert "HUB" not in text
    assert "AWS" not in text
    assert "BIRTHMARK_ROOT_CA" in text


@given(st.text())
def test_no_registration_id_ends_its_string(name: str) -> None:
    (line,) = [line for line in as_c_header(NONE, ROOTS, name).splitlines() if "REGISTRATION_ID" in line]
    inside = line.removeprefix('#define BIRTHMARK_REGISTRATION_ID "').removesuffix('"')
    assert '"' not in inside
    assert "??" not in inside
    assert inside.replace(r"\n", r"\012").encode().decode("unicode_escape").encode("latin-1") == name.encode()
