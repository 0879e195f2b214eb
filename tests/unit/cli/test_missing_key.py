"""A command without a device's key names the command to repeat."""

import sys
from collections.abc import Mapping

import pytest

from birthmark.cli.options.device_identity import KeyNotNamedError


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({"BIRTHMARK_PKCS11_MODULE": "softhsm.so"}, "birthmark device send hello --chip"),
        ({}, 'birthmark device send hello --key "$X509_KEY_FILE"'),
    ],
    ids=["secure element", "file"],
)
def test_the_fix_repeats_the_command_with_the_key_of_the_environment(
    environment: Mapping[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["birthmark", "device", "send", "hello"])
    assert f"`{command}`" in KeyNotNamedError.in_environment(environment).explain_fix()
