"""Test kits for other languages: their versions are the package's, and the page shows their samples."""

import re
from pathlib import Path

import pytest

import birthmark

TOP = Path(__file__).parents[2]
KITS = TOP / "kits"
PAGE = (TOP / "docs/howto/test-kit-languages.md").read_text()
BLOCK = re.compile(r"^```\w+ file=(?P<name>\S+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = {block["name"]: block["body"] for block in BLOCK.finditer(PAGE)}
VERSIONS = {
    "go/birthmark.go": r'^const Version = "(.+)"$',
    "go/sample/go.mod": r"github.com/birthmark/birthmark/kits/go v(\S+)$",
    "java/pom.xml": r"<artifactId>birthmark-testing</artifactId>\n *<version>(.+)</version>",
    "java/sample/pom.xml": r"<artifactId>birthmark-testing</artifactId>\n *<version>(.+)</version>",
    "java/src/main/java/io/github/birthmark/testing/BirthmarkServer.java": r'String VERSION = "(.+)";',
    "node/package.json": r'^  "version": "(.+)",$',
    "rust/Cargo.toml": r'^version = "(.+)"$',
    "rust/Cargo.lock": r'^name = "birthmark-testing"\nversion = "(.+)"$',
    "rust/sample/Cargo.toml": r'^birthmark-testing = \{ version = "(.+?)"',
    "rust/sample/Cargo.lock": r'^name = "birthmark-testing"\nversion = "(.+)"$',
}
"""Places of the version; the expression finds it."""
SAMPLES = [
    "go/sample/go.mod",
    "go/sample/device.go",
    "go/sample/device_test.go",
    "java/sample/pom.xml",
    "java/sample/src/main/java/example/Device.java",
    "java/sample/src/test/java/example/DeviceTest.java",
    "node/sample/package.json",
    "node/sample/device.cjs",
    "node/sample/device.test.cjs",
    "rust/sample/Cargo.toml",
    "rust/sample/src/lib.rs",
    "rust/sample/tests/device.rs",
]


@pytest.mark.parametrize("place", VERSIONS)
def test_a_kit_has_the_version_of_the_package(place: str) -> None:
    found = re.findall(VERSIONS[place], (KITS / place).read_text(), re.MULTILINE)
    assert found == [birthmark.__version__]


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_page_shows_the_sample(sample: str) -> None:
    assert SHOWN[Path(sample).name] == (KITS / sample).read_text()


def test_the_container_of_the_java_kit_uses_ports_of_the_image() -> None:
    code = (KITS / "java/src/main/java/io/github/birthmark/testing/BirthmarkContainer.java").read_text()
    image = (TOP / "deploy/Containerfile").read_text()
    (exposed,) = re.findall(r"^EXPOSE (.+)$", image, re.MULTILINE)
    ports = re.findall(r"_PORT = (\d+);", code)
    assert len(ports) == len(re.findall(r"_PORT = ", code)) > 0
    assert set(ports) <= set(exposed.split())
    assert "Wait.forHealthcheck()" in code
    assert "HEALTHCHECK " in image
