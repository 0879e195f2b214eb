"""What a release is made of: a CycloneDX 1.6 bill of materials (JSON) of the wheel and all that its extras bring.

In:   the wheel, pyproject.toml, requirements.lock (versions and digests), and the environment that was installed from
      it (licences, who needs whom). What tests alone need is not in it; what others wrote and the wheel has in it, is.
Out:  the same bytes for the same wheel and lock: no clock and no chance, but the time of the commit.
"""

import hashlib
import re
import tomllib
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOT_SHIPPED = {"dev"}
_LONGEST_NAME = 80
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)")


@dataclass(frozen=True, slots=True)
class Brought:
    """A package of npm of which files are in the wheel, as its makers built them."""

    name: str
    version: str
    license: str
    files: tuple[str, ...]


_FILES = "birthmark/webconsole/files/"
BROUGHT = (
    Brought("htmx.org", "4.0.1", "0BSD", ("htmx.min.js", "hx-csp.min.js")),
    Brought("uplot", "1.6.32", "MIT", ("uplot.min.css", "uplot.min.js")),
)


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of the lock."""

    version: str
    digests: tuple[str, ...]
    """SHA-256, hex: one for each file of it that may be installed."""


def locked(text: str) -> Mapping[str, Locked]:
    """Return what requirements.lock says, by canonical name."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in text.splitlines():
        if (pinned := _PINNED.match(line)) is not None:
            name = canonicalize_name(pinned["name"])
            found[name] = (pinned["version"], [])
        elif "--hash=sha256:" in line and name:
            found[name][1].append(line.split("sha256:")[1].strip(" \\"))
    return {name: Locked(version, tuple(sorted(digests))) for name, (version, digests) in found.items()}


def _needs(requirements: list[Requirement], extras: frozenset[str]) -> Iterator[Requirement]:
    for one in requirements:
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield one


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None  # its marker names another machine


def graph(project: Mapping[str, object]) -> tuple[Mapping[str, set[str]], Mapping[str, set[str]]]:
    """Return who needs whom, by canonical name, and by which extras of ours each is reached ("" is the base)."""
    own = canonicalize_name(str(project["name"]))
    optional = {name: of for name, of in project["optional-dependencies"].items() if name not in NOT_SHIPPED}  # type: ignore[attr-defined]
    edges: dict[str, set[str]] = {own: set()}
    reached: dict[str, set[str]] = {}
    for extra, given in {"": project["dependencies"], **optional}.items():
        todo = [(own, Requirement(one)) for one in given]  # type: ignore[attr-defined]
        done: set[tuple[str, str, frozenset[str]]] = set()
        while todo:
            parent, wanted = todo.pop()
            name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
            if wanted.marker is not None and not any(wanted.marker.evaluate({"extra": one}) for one in extras | {""}):
                continue
            if name == own:  # an extra that brings another
                todo += [(own, Requirement(one)) for other in wanted.extras for one in optional[other]]
                continue
            edges.setdefault(parent, set()).add(name)
            if (parent, name, extras) in done or (found := _installed(name)) is None:
                continue
            done.add((parent, name, extras))
            edges.setdefault(name, set())
            reached.setdefault(name, set()).add(extra)
            more = [Requirement(one) for one in found.requires or ()]
            todo += [(name, Requirement(str(one).partition(";")[0])) for one in _needs(more, extras)]
    return edges, reached


def sbom(wheel: Path, pyproject: str, lock: str, at: int) -> bytes:
    """Return the bill of materials of `wheel`; `at` is the time of its commit (seconds since 1970)."""
    project = tomllib.loads(pyproject)["project"]
    edges, reached = graph(project)
    pinned = locked(lock)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    subject = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        description=project["description"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
        purl=PackageURL("pypi", name=project["name"], version=project["version"]),
        bom_ref=project["name"],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    components = {canonicalize_name(project["name"]): subject}
    for name, extras in sorted(reached.items()):
        components[name] = _component(name, pinned[name], extras)
    with zipfile.ZipFile(wheel) as archive:
        components |= {one.name: _brought(one, archive) for one in BROUGHT}
    whole = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{digest}"),
        metadata=BomMetaData(component=subject, timestamp=datetime.fromtimestamp(at, UTC)),
        components=[one for one in components.values() if one is not subject],
    )
    own = canonicalize_name(project["name"])
    for name, needed in {**edges, own: edges[own] | {one.name for one in BROUGHT}}.items():
        whole.register_dependency(components[name], [components[one] for one in sorted(needed) if one in components])
    return JsonV1Dot6(whole).output_as_string(indent=2).encode() + b"\n"


def _component(name: str, pinned: Locked, extras: set[str]) -> Component:
    about = distribution(name).metadata
    said = about.get("License-Expression") or _short(about.get("License")) or _classified(about.get_all("Classifier"))
    declared = LicenseAcknowledgement.DECLARED
    licenses = [LicenseFactory().make_from_string(said, license_acknowledgement=declared)] if said else []
    index = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(f"https://pypi.org/project/{name}/{pinned.version}/"),
        # Which file is installed is for the machine: the digests of all that may be are here, not in `hashes`.
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in pinned.digests],
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=pinned.version,
        licenses=licenses,
        purl=PackageURL("pypi", name=name, version=pinned.version),
        bom_ref=f"{name}=={pinned.version}",
        scope=ComponentScope.REQUIRED if "" in extras else ComponentScope.OPTIONAL,
        external_references=[index],
        properties=[Property(name="birthmark:extra", value=extra or "base") for extra in sorted(extras)],
    )


def _brought(package: Brought, archive: zipfile.ZipFile) -> Component:
    parts = [
        Component(
            type=ComponentType.FILE,
            name=_FILES + name,
            bom_ref=_FILES + name,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
        for name in package.files
        for digest in (hashlib.sha256(archive.read(_FILES + name)).hexdigest(),)
    ]
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        licenses=[LicenseFactory().make_from_string(package.license)],
        purl=PackageURL("npm", name=package.name, version=package.version),
        bom_ref=f"{package.name}@{package.version}",
        scope=ComponentScope.OPTIONAL,
        components=parts,
        properties=[Property(name="birthmark:extra", value="server")],
    )


def _short(text: str | None) -> str | None:
    """Return a licence's name; some packages have the whole text in its place."""
    return text if text and "\n" not in text and len(text) <= _LONGEST_NAME and text != "UNKNOWN" else None


def _classified(classifiers: list[str] | None) -> str | None:
    names = [one.rpartition(" :: ")[2] for one in classifiers or () if one.startswith("License :: OSI Approved :: ")]
    return names[0] if names else None
