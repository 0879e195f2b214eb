"""A test that fails, as users have it: what the server refused is in its report."""

import pytest


def test_that_fails(azure_device, expired):
    expired(azure_device)
    azure_device.register()


def test_that_fails_without_a_refusal(azure_device):
    assert azure_device.name == "another"


def test_that_passes_by_a_refusal(azure_device, expired):
    expired(azure_device)
    with pytest.raises(Exception):  # noqa: B017 - whatever the SDK makes of it
        azure_device.register()


def test_that_waits_for_no_device(birthmark_cloud):
    birthmark_cloud.messages("nobody", at_least=1, within_s=0.2)
