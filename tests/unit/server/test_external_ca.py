"""The CAs of whoever signs for this server: what could not be written is written by a later look."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.device_transports.ports import HttpResponse
from birthmark.est.upstream import EstUpstream
from birthmark.est.wire import render_certs_only
from birthmark.keys.errors import PinFileError
from birthmark.pki.certificates import Certificate
from birthmark.server.aws_private_ca import PrivateCa
from birthmark.server.data_dir import DataDirectory
from birthmark.server.external_ca import upstream_of
from birthmark.server.settings import read_settings
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import a_ca

CA = a_ca().certificate
CLOCK, ENTROPY = FakeClock(), SeededEntropy()


class Disk:
    """Where they are kept; it is full at first."""

    def __init__(self) -> None:
        self.is_full, self.kept = True, list[tuple[Certificate, ...]]()

    async def keep(self, found: tuple[Certificate, ...]) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.kept.append(found)


class Above:
    """The server above, as EST's client and AWS Private CA's see it."""

    async def request(self, *_: object, **__: object) -> HttpResponse:
        return HttpResponse(200, {}, render_certs_only([CA]))

    def describe_certificate_authority(self, **_: object) -> dict[str, Any]:
        return {"CertificateAuthority": {"CertificateAuthorityConfiguration": {"SigningAlgorithm": "SHA256WITHECDSA"}}}

    def get_certificate_authority_certificate(self, **_: object) -> dict[str, Any]:
        return {"Certificate": CA.pem()}


def by_est(disk: Disk) -> EstUpstream:
    return EstUpstream("https://above.test/.well-known/est", Above, keep=disk.keep)


def by_private_ca(disk: Disk) -> PrivateCa:
    return PrivateCa("arn:aws:acm-pca:x", Above(), FakeClock(), SeededEntropy(), disk.keep)


@pytest.mark.parametrize("made", [by_est, by_private_ca])
async def test_cas_that_could_not_be_kept_are_kept_by_a_later_look_and_then_no_more(made: Any) -> None:
    disk = Disk()
    upstream = made(disk)
    with pytest.raises(OSError, match="No space"):
        await upstream.refresh()
    assert upstream.certificates() == (CA,)  # which needs no disk
    disk.is_full = False
    for _ in range(3):
        await upstream.refresh()
    assert disk.kept == [(CA,)] == [upstream.certificates()]


def test_white_space_around_the_password_is_told_at_the_start(tmp_path: Path) -> None:
    (file := tmp_path / "password").touch(0o600)
    file.write_text("secret\u00a0\n")
    (config := tmp_path / "server.toml").write_text(
        f'[est.upstream]\nurl = "https://above.test/.well-known/est"\nusername = "u"\npassword_file = "{file}"\n'
    )
    with pytest.raises(PinFileError) as refused:
        upstream_of(read_settings(config, {}), DataDirectory(tmp_path, CLOCK, ENTROPY), CLOCK, ENTROPY)
    assert "white space" in refused.value.explain_cause()
