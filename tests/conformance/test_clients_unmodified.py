"""The vendors' clients are the ones of the lock file, byte for byte.

pip installs them by the hashes of requirements.lock; here every installed file is compared with the hash that its
wheel's RECORD gave it.
"""

import base64
import hashlib
import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[2] / "requirements.lock"
CLIENTS = [
    "azure-iot-device",
    "azure-iot-hub",
    "azure-iothub-provisioningserviceclient",
    "awscli",
    "boto3",
    "botocore",
    "awsiotsdk",
    "awscrt",
]


@pytest.mark.parametrize("name", CLIENTS)
def test_the_installed_client_is_the_locked_one_unmodified(name: str) -> None:
    locked = re.search(rf"^{re.escape(name)}==(\S+) \\\n    --hash=sha256:", LOCK.read_text(), re.MULTILINE)
    assert locked is not None
    installed = distribution(name)
    assert installed.version == locked[1]
    checked = 0
    for file in installed.files or ():
        if file.hash is None or file.suffix == ".pyc":
            continue
        digest = hashlib.new(file.hash.mode, Path(str(file.locate())).read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file
        checked += 1
    assert checked > 3
