"""Bundles of intake stations: trust, and merging several into one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.input_files import FileEncodingError, about, open_file, read_device_certificate, read_file
from birthmark.cli.output.command_output import (
    SOME_ROWS_REFUSED,
    FileExistsAlreadyError,
    emit,
    print_row_error,
    written_as,
)
from birthmark.cli.output.table import format_count
from birthmark.errors import BirthmarkError
from birthmark.text_file_encodings import plain_text, to_lines, to_utf_8, utf_16_of

if TYPE_CHECKING:
    from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
    from birthmark.pki.certificates import Certificate


@dataclass(frozen=True, slots=True)
class StationsOptions:
    """Trusted stations and manufacturers."""

    station: Annotated[list[Path] | None, typer.Option(help="Certificate of an accepted station; may be repeated.")] = (
        None
    )
    trust_root: Annotated[list[Path] | None, typer.Option(help="Accepted root CAs of device certificates, PEM.")] = None

    def trust(self) -> "BundleTrust":
        from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust

        return BundleTrust(tuple(read_device_certificate(path) for path in self.station or ()), tuple(self.roots()))

    def roots(self) -> Iterator["Certificate"]:
        """Yield the CA certificates of every file. Raise `BadParameter` for a device certificate.

        A device certificate as a trust root would accept itself.
        """
        for path in self.trust_root or ():
            with about(path):
                for one in _certificates_in(path):
                    if not one.is_ca and one.version != 1:  # the oldest roots have no CA flag
                        raise typer.BadParameter(
                            f"{path} contains {one.subject_text}, which is not a CA", param_hint="--trust-root"
                        )
                    yield one


def _certificates_in(path: Path) -> "tuple[Certificate, ...]":
    from birthmark.pki.certificates import CertificateKeySwappedError, parse_bundle

    try:
        return parse_bundle(read_file(path))
    except CertificateKeySwappedError as error:
        said = f"{path} is a private key; the certificate of the CA that signed the devices' belongs here"
        raise typer.BadParameter(said, param_hint="--trust-root") from error


def is_bundle(file: Path) -> bool:
    """Return whether a file is an intake bundle, by its first bytes."""
    from birthmark.manifests.bundle import line_format

    if file.is_dir():
        return False
    with open_file(file) as raw:
        begin = raw.readline(2 * line_format.MAX_LINE_BYTES)
    if not line_format.is_bundle(begin) and line_format.is_bundle(plain_text(begin[: len(begin) // 2 * 2])):
        codec = (utf_16_of(begin) or "").upper()
        refusal = FileEncodingError(path=file, command=to_utf_8(file, codec), detail=f"is a bundle in {codec[:6]}")
        refusal.quote(fix=f"Write it as UTF-8, and give that: `{to_utf_8(file, codec)}`.")
        raise refusal
    if line_format.is_bundle(begin) and b"\r" in begin.rstrip(b"\r\n"):
        command = to_lines(file, "\r")
        refusal = FileEncodingError(path=file, command=command, detail="is a bundle whose lines end with CR")
        refusal.quote(fix=f"Convert its line endings to LF, and use that file: `{command}`.")
        raise refusal
    return line_format.is_bundle(begin)


def merge(
    stations: StationsOptions,
    files: Annotated[list[Path], typer.Argument(help="Sealed bundles, each from one station or merged earlier.")],
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="Output file; it must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Merge several intake bundles.

    Every line is verified and kept as its station wrote it.

    A chip or board that is in two bundles is rejected with both locations, and nothing is written.
    """
    from birthmark.manifests.bundle.verifier import BundleVerifier, verify_file

    if out.exists():
        raise FileExistsAlreadyError(path=out)
    for path in files:
        if not is_bundle(path):
            raise typer.BadParameter(f"{path} is not an intake bundle", param_hint="FILES")
    verifier, refused = BundleVerifier(stations.trust()), 0
    try:
        with written_as(out), atomic_files.create_incrementally(out, 0o666) as written:
            for path in files:
                verifier.begin(str(path))
                with open_file(path) as raw:
                    for entry in verify_file(raw, verifier, written):
                        if isinstance(entry, BirthmarkError):
                            refused += 1
                            print_row_error(entry, {"file": str(path)}, as_json=as_json)
            if refused:
                typer.echo(f"{format_count(refused, 'entry')} refused; nothing was written.", err=True)
                raise typer.Exit(SOME_ROWS_REFUSED)
    except FileExistsError as error:  # created in between
        raise FileExistsAlreadyError(path=out) from error
    emit(as_json, {"bundle": str(out), "chips": verifier.place, "merged": len(files)})
