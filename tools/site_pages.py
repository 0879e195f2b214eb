"""The site's shape, as docs/ says it: what its navigation is, and where links that leave docs/ lead. No IO but reading.

Paths are POSIX, relative to the repository's root (`docs/howto/ci.md`, `SECURITY.md`); a *source* is where a page
stands in the site (`howto/ci.md`, `repository/SECURITY.md`). What docs/ links to and is not below it gets a page of its
own, so that links work alike on a forge, from a disk and from a web server.

A page in Japanese is the file beside it, `NAME.ja.md`. Those pages are a site of their own below `ja/`, with the map of
README.ja.md; what leads from one language to the other goes by an address of no host, which the hook makes relative.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ELSEWHERE = "repository"
"""The folder of the site that has what stands outside docs/."""
INDEX = "README.md"
JAPANESE = ".ja.md"
ACROSS = "https://across.invalid/"
"""What stands for the top of a version, in links from one language to the other."""
_LINK = re.compile(r"(?P<open>\]\()(?P<target>[^()\s#]*)(?P<rest>(?:#[^()\s]*)?\))")
_FENCE = re.compile(r"^(?P<fence>```+)[^\n]*\n.*?^(?P=fence)$", re.DOTALL | re.MULTILINE)
_NAMED_FENCE = re.compile(r"^```[ ]?(?P<language>\w+) file=(?P<name>\S+)$", re.MULTILINE)
_HEADING = re.compile(r"^### (?P<title>.+)$")
_MAPS = {INDEX: "## All pages", f"README{JAPANESE}": "## すべてのページ"}
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


def nav_of(read: Callable[[str], str], index: str = INDEX) -> Nav:
    """Return the navigation, from the map in docs/README.md; a README of a folder opens into the pages that it names.

    `read` gives the text of a page below docs/. With README.ja.md for `index`: of the pages in Japanese, by the names
    that they have in their own site.
    """
    nav: Nav = [INDEX]
    for title, below in _sections(read(index), _MAPS[index]):
        pages: Nav = []
        if is_japanese(index):
            pages.extend(in_its_language(page) for page in _pages_in_order(below, "") if is_japanese(page))
            nav.append({title: pages})
            continue
        for page in _pages_in_order(below, ""):
            if posixpath.basename(page) == INDEX:
                text = read(page)
                heading = re.search(r"^# (.+)$", text, re.MULTILINE)
                assert heading is not None, page
                pages.append({heading[1]: [page, *_pages_in_order(text, posixpath.dirname(page))]})
            else:
                pages.append(page)
        nav.append({title: pages})
    return nav


def is_japanese(path: str) -> bool:
    return path.endswith(JAPANESE)


def in_its_language(path: str) -> str:
    """Return the name of a page in the site of its language."""
    return path.removesuffix(JAPANESE) + ".md" if is_japanese(path) else path


def _sections(text: str, heading_of_map: str) -> Iterator[tuple[str, str]]:
    """Return title and text of each section of the map."""
    _, found, after = text.partition(f"\n{heading_of_map}\n")
    assert found, f"{INDEX} has no {heading_of_map}"
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


def html_of(source: str) -> str:
    """Return the file that a page becomes; what is no page stays."""
    return (
        re.sub(r"(^|/)README\.md$", r"\1index.md", source).removesuffix(".md") + ".html" if is_page(source) else source
    )


def across_to(path: str, root: Path) -> str:
    """Return where a file of the repository stands below a version, for pages of another language."""
    below = "ja/" if is_japanese(path) else ""
    return f"{ACROSS}{below}{html_of(in_its_language(source_of(path, root)))}"


def without_hosts(html: str, url: str, *, japanese: bool) -> str:
    """Return a page's HTML with its links across languages as they are for a page at `url` of its site."""
    up = url.count("/") + japanese
    return html.replace(f'"{ACROSS}', '"' + "../" * up)


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
        if not (root / meant).exists():
            return found[0]  # the build's to refuse
        if is_japanese(meant) != is_japanese(path):
            return f"{found['open']}{across_to(meant, root)}{found['rest']}"
        if meant.startswith("docs/") and path.startswith("docs/"):
            return f"{found['open']}{in_its_language(target)}{found['rest']}"
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
