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
