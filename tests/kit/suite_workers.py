"""Workers of pytest-xdist have a cloud each; every test writes down whose it had."""

import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(16))
def test_each_worker_has_a_cloud_of_its_own(birthmark_cloud, azure_device, number):
    worker = os.environ["PYTEST_XDIST_WORKER"]
    Path(f"{worker}-{number}.host").write_text(birthmark_cloud.host)
    assert azure_device.name == "device-1"
    assert azure_device.register().status == "assigned"
