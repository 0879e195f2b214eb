"""Build the documentation's site: this version beside those that are there, with a door to the newest.

python tools/make_site.py [--out DIR] [--version NAME] [--links]

The site needs no server: build/site/index.html opens from a disk. `--links` builds nothing: it tries every address
outside that docs/ names, a request each, and says which cannot be reached. That depends on the network of this machine,
so it is no part of CI.
"""

import argparse
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mkdocs.commands.build import build as mkdocs_build
from mkdocs.config import load_config

ROOT = Path(__file__).parent.parent
OUT = ROOT / "build" / "site"
DOOR = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Birthmark</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={version}/index.html">
<p><a href="{version}/index.html">Birthmark {version}</a></p>
</html>
"""
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINKED = re.compile(r"\]\((https?://[^)\s]+)\)|<(https?://[^>\s]+)>")
_PATIENCE_S = 20.0


def version_here() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def build(out: Path, version: str) -> None:
    """Build `out`/`version` strictly, and write what names the versions. What was there before stays if it fails."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as place:
        new = Path(place) / "site"
        os.environ["NO_MKDOCS_2_WARNING"] = "1"  # its theme ends in 2027, and says so at each start
        for language, place_of_it in {"en": new, "ja": new / "ja"}.items():
            if language == "en" or (ROOT / "docs" / f"README.{language}.md").exists():
                os.environ["BIRTHMARK_SITE_LANGUAGE"] = language
                config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(place_of_it))
                config.plugins.on_startup(command="build", dirty=False)
                mkdocs_build(config)
                config.plugins.on_shutdown()
        for page in new.rglob("404.html"):  # its addresses begin at a web server's root, where the site need not be
            page.unlink()
        if (out / version).exists():
            shutil.rmtree(out / version)
        new.rename(out / version)
    write_versions(out)


def write_versions(out: Path) -> None:
    """Write the list of versions, for programs and for pages of a disk, and the door to the newest."""
    versions = sorted((one.parent.name for one in out.glob("*/index.html")), key=_age)
    listed = [{"version": one, "title": one, "aliases": ["latest"] if one == versions[0] else []} for one in versions]
    (out / "versions.json").write_text(json.dumps(listed, indent=1) + "\n")
    for one in listed:
        below = out / str(one["version"])
        one["pages"] = sorted(str(page.relative_to(below)) for page in below.rglob("*.html"))
    (out / "versions.js").write_text(f"window.birthmarkVersions = {json.dumps(listed)};\n")
    (out / "index.html").write_text(DOOR.format(version=versions[0]))


def _age(version: str) -> tuple[int, tuple[int, ...], str]:
    """Order versions: the highest number first, then names."""
    numbers = re.fullmatch(r"\d+(\.\d+)*", version)
    return (0, tuple(-int(one) for one in version.split(".")), "") if numbers else (1, (), version)


def addresses(pages: Iterable[Path]) -> dict[str, list[str]]:
    """Return every address outside that pages link to, each with the pages that do."""
    found: dict[str, list[str]] = {}
    for page in pages:
        for linked in _LINKED.findall(_FENCE.sub("", page.read_text())):
            address = next(filter(None, linked)).partition("#")[0]
            found.setdefault(address, []).append(str(page.relative_to(ROOT)))
    return dict(sorted(found.items()))


def why_not(address: str) -> str:
    """Return why an address cannot be reached, or nothing."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (birthmark scripts/docs --links)"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S):
            return ""
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def links() -> int:
    """Try each address; print a line for each, and a sum."""
    found = addresses([*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "SECURITY.md"])
    lost = 0
    with ThreadPoolExecutor(8) as pool:
        for (address, pages), reason in zip(found.items(), pool.map(why_not, found), strict=True):
            lost += bool(reason)
            print(f"{'not reached' if reason else 'reached':11}  {address}  ({', '.join(sorted(set(pages)))})", reason)
    print(f"{len(found)} addresses, {lost} not reached from this machine.", file=sys.stderr)
    return 1 if lost else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="where the versions stand beside each other (build/site)")
    parser.add_argument("--version", default=version_here(), help="the name of this one (the project's version)")
    parser.add_argument("--links", action="store_true", help="try the addresses outside, and build nothing")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if not re.fullmatch(r"[\w][\w.+-]*", chosen.version):
        parser.error(f"{chosen.version!r} cannot be the name of a version: letters, digits, points and dashes")
    if chosen.links:
        return links()
    build(chosen.out.resolve(), chosen.version)
    print(chosen.out / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
