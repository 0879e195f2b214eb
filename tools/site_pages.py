"""The site's shape, as docs/ says it: what its navigation is, and where links that leave docs/ lead. No IO but reading.

Paths are POSIX, relative to the repository's root (`docs/howto/ci.md`, `SECURITY.md`); a *source* is where a page
stands in the site (`howto/ci.md`, `repository/SECURITY.md`). What docs/ links to and is not below it gets a page of its
own, so that links work alike on a forge, from a disk and from a web server.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ELSEWHERE = "repository"
"""The folder of the site that has what stands outside docs/."""
INDEX = "README.md"
JAPANESE = "README.ja.md"
_LINK = re.compile(r"(?P<open>\]\()(?P<target>[^()\s#]*)(?P<rest>(?:#[^()\s]*)?\))")
_FENCE = re.compile(r"^(?P<fence>```+)[^\n]*\n.*?^(?P=fence)$", re.DOTALL | re.MULTILINE)
_NAMED_FENCE = re.compile(r"^```[ ]?(?P<language>\w+) file=(?P<name>\S+)$", re.MULTILINE)
_HEADING = re.compile(r"^### (?P<title>.+)$")
_MAP = "## All pages"
_LANGUAGES = {".c": "c", ".h": "c", ".ini": "ini", ".json": "json", ".py": "python", ".sh": "sh", ".toml": "toml"}
_LANGUAGES |= {".yaml": "yaml", ".yml": "yaml", ".cfg": "cfg"}
_SHOWN_AS_THEY_ARE = {".svg", ".png", ".webp"}

Nav = list[str | dict[str, "str | Nav"]]


def is_outside(target: str) -> bool:
    """Say whether a link goes to another site, or nowhere by itself."""
    return "://" in target or target.startswith(("mailto:", "#")) or not target


def links_of(text: str) -> Iterator[str]:
    """Return what a page's links name, without their anchors; blocks of code have none."""
    return (found["target"] for found in _LINK.finditer(_FENCE.sub("", text)) if not is_outside(found["target"]))


def nav_of(read: Callable[[str], str]) -> Nav:
    """Return the navigation, from the map in docs/README.md; a README of a folder opens into the pages that it names.

    What there is in Japanese comes last, from the map of the Japanese first page. `read` gives the text of a page
    below docs/.
    """
    nav: Nav = [INDEX]
    for title, below in _sections(read(INDEX)):
        pages: Nav = []
        for page in _pages_in_order(below, ""):
            if posixpath.basename(page) == INDEX:
                text = read(page)
                heading = re.search(r"^# (.+)$", text, re.MULTILINE)
                assert heading is not None, page
                pages.append({heading[1]: [page, *_pages_in_order(text, posixpath.dirname(page))]})
            else:
                pages.append(page)
        nav.append({title: pages})
    translated = [page for page in _pages_in_order(read(JAPANESE), "") if is_japanese(page)]
    return [*nav, {"日本語": [JAPANESE, *translated]}]


def is_japanese(page: str) -> bool:
    return page.endswith(".ja.md")


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Return title and text of each section of the map."""
    _, found, after = text.partition(f"\n{_MAP}\n")
    assert found, f"{INDEX} has no {_MAP}"
    title, lines = "", list[str]()
    for line in [*after.splitlines(), "### "]:
        if line.startswith("### "):
            if title:
                yield title, "\n".join(lines)
            heading = _HEADING.match(line)
            title, lines = heading["title"] if heading else "", []
        else:
            lines.append(line)


def _pages_in_order(text: str, folder: str) -> list[str]:
    """Return the pages below docs/ that lists name, each once."""
    items = "\n".join(line for line in text.splitlines() if line.startswith(("- ", "  ")))
    found = (posixpath.normpath(posixpath.join(folder, target)) for target in links_of(items))
    return list(dict.fromkeys(page for page in found if page.endswith(".md") and not page.startswith("../")))


def pages_of(nav: Nav) -> Iterator[str]:
    for item in nav:
        if isinstance(item, str):
            yield item
        else:
            for below in item.values():
                yield from pages_of([below] if isinstance(below, str) else below)


def source_of(path: str, root: Path) -> str:
    """Return where a path of the repository stands in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (root / path).is_dir():
        return f"{ELSEWHERE}/{path}/{INDEX}"
    suffix = posixpath.splitext(path)[1]
    return f"{ELSEWHERE}/{path}" if suffix in {".md", *_SHOWN_AS_THEY_ARE} else f"{ELSEWHERE}/{path}.md"


def is_page(source: str) -> bool:
    return source.endswith(".md")


def with_links_of_the_site(text: str, path: str, root: Path) -> str:
    """Return a page's text with links as they are in the site."""
    here = posixpath.dirname(source_of(path, root))
    below = path if (root / path).is_dir() else posixpath.dirname(path)
    blocks = [found.span() for found in _FENCE.finditer(text)]

    def of_the_site(found: re.Match[str]) -> str:
        target = found["target"]
        if is_outside(target) or any(start <= found.start() < end for start, end in blocks):
            return found[0]
        meant = posixpath.normpath(posixpath.join(below, target))
        if not (root / meant).exists() or (meant.startswith("docs/") and path.startswith("docs/")):
            return found[0]  # as it stands: what is not there is the build's to refuse
        return f"{found['open']}{posixpath.relpath(source_of(meant, root), here)}{found['rest']}"

    return _LINK.sub(of_the_site, text)


def with_titled_blocks(text: str) -> str:
    """Return a page's text with the file's name over each block that is a file."""
    return _NAMED_FENCE.sub(r'```\g<language> title="\g<name>"', text)


def with_bars_in_code(text: str) -> str:
    """Return a page's text with bars in the code of tables as they are: the site's Markdown ends no cell there."""

    def row(found: re.Match[str]) -> str:
        return re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), found[0])

    return re.sub(r"^\|.*$", row, text, flags=re.MULTILINE)


def page_of_a_file(path: str, text: str) -> str:
    """Return a page that shows a file of the repository."""
    language = _LANGUAGES.get(posixpath.splitext(path)[1], "text")
    return f"# {path}\n\n````{language}\n{text.rstrip()}\n````\n"


def with_a_number(anchor: str, taken: set[str]) -> str:
    """Return the anchor of a heading as forges number those that come again: `jobs`, `jobs-1`."""
    free, number = anchor, 0
    while free in taken:
        number += 1
        free = f"{anchor}-{number}"
    taken.add(free)
    return free


def page_of_a_folder(path: str, names: list[str]) -> str:
    return f"# {path}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)


def elsewhere(root: Path) -> dict[str, str]:
    """Return what docs/ leads to outside itself: path of each file or folder, and its text (none for a picture)."""
    found: dict[str, str] = {}
    waiting = [str(page.relative_to(root)) for page in sorted((root / "docs").rglob("*.md"))]
    while waiting:
        path = waiting.pop()
        text = found[path] if path in found else (root / path).read_text()
        if not path.endswith(".md") and not (root / path).is_dir():
            continue
        below = path if (root / path).is_dir() else posixpath.dirname(path)
        for target in links_of(text):
            meant = posixpath.normpath(posixpath.join(below, target))
            if meant.startswith(("docs/", "../")) or meant in found or not (root / meant).exists():
                continue
            found[meant] = _text_of(meant, root)
            waiting.append(meant)
    return found


def _text_of(path: str, root: Path) -> str:
    where = root / path
    if where.is_dir():
        names = sorted(one.name for one in where.iterdir() if not one.name.startswith((".", "_")))
        return page_of_a_folder(path, names)
    if posixpath.splitext(path)[1] in _SHOWN_AS_THEY_ARE:
        return ""
    text = where.read_text()
    return text if path.endswith(".md") else page_of_a_file(path, text)
