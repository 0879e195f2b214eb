"""Say which Japanese pages of docs/ are behind the English ones, and in which sections.

python tools/check_translations.py [--list]          what is behind, or differs; exit code 1 if anything does
python tools/check_translations.py --accept NAME …   after a page was brought up: keep the English text's digests in it

NAME is the English page: `tutorial/azure.md`, or `azure` alone.
"""

import argparse
import hashlib
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
FIRST = "README.md"
_FOOT = re.compile(r"\n<!--\n(?P<lines>(?:[^-]|-(?!->))*)-->\n\Z")
"""At the page's foot: the site takes a page's title from what stands first."""
_KEPT = re.compile(r"^(?P<digest>[0-9a-f]{64}) (?P<title>.+)$", re.MULTILINE)
_HEADING = re.compile(r"^(?P<level>#+) (?P<title>.+)$")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+)")
_CODE = re.compile(r"`[^`]+`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^()\s]+)\)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_TERM = re.compile(r"\uff08[^\uff08\uff09\u3002]*\uff09")
"""In the brackets of Japanese stands what a term is in English."""
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]{2,}")
_SENTENCE = re.compile(r"(?:[A-Za-z']+[ ,]+){4,}[a-z]+")
"""Five words in a row, the last of them no name."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands below it, down to the next heading: prose and blocks of code, in order."""

    level: int
    title: str
    text: str
    """As it is in the page, heading included; the last newlines left out."""
    prose: tuple[str, ...]
    """Paragraphs, items of lists and rows of tables, each as one line. The heading is the first."""
    blocks: tuple[str, ...]
    """To the byte, with their fences."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def pages(docs: Path = DOCS) -> list[str]:
    """Return the English pages that are kept in Japanese too, as paths below docs/."""
    tutorials = sorted(path.name for path in (docs / "tutorial").glob("*.md") if not is_japanese(path.name))
    return [FIRST, *(f"tutorial/{name}" for name in tutorials), "howto/console.md", "reference/glossary.md"]


def is_japanese(page: str) -> bool:
    return page.endswith(".ja.md")


def in_japanese(page: str) -> str:
    """Return the path of an English page's Japanese one."""
    return f"{page.removesuffix('.md')}.ja.md"


def sections(text: str) -> list[Section]:
    """Return the sections of a page, without the digests at its foot."""
    parts: list[list[str]] = []
    fence = ""
    for line in _FOOT.sub("", text).splitlines():
        found = _FENCE.match(line)
        if found and not fence:
            fence = found["fence"]
        elif found and line.strip() == fence:
            fence = ""
        if not parts or (not fence and _HEADING.match(line)):
            parts.append([])
        parts[-1].append(line)
    return [_section(part) for part in parts]


def _section(lines: list[str]) -> Section:
    heading = _HEADING.match(lines[0])
    prose, blocks = [""], list[str]()
    fence, is_apart = "", True
    for line in lines:
        found = _FENCE.match(line)
        if fence:
            blocks[-1] += f"{line}\n"
            fence = "" if line.strip() == fence else fence
        elif found:
            fence = found["fence"]
            blocks.append(f"{line}\n")
        elif is_apart and line.startswith("    "):  # a block by its indent; it goes on as long as the indent does
            blocks.append(f"{line}\n")
            is_apart = False
        elif line.startswith("    ") and blocks and blocks[-1].startswith("    ") and not prose[-1]:
            blocks[-1] += f"{line}\n"
        elif not line.strip() or line.startswith(("|", "- ", "#")):
            prose.append(line)
            prose.extend([""] if line.startswith(("|", "#")) else [])
        else:
            prose[-1] = f"{prose[-1]} {line.strip()}".strip()
        is_apart = not line.strip() or (is_apart and bool(found))
    level, title = (len(heading["level"]), heading["title"]) if heading else (0, "(before the first heading)")
    return Section(level, title, "\n".join(lines).rstrip(), tuple(filter(None, prose)), tuple(blocks))


def kept(japanese: str) -> list[tuple[str, str]]:
    """Return title and digest of each English section as they were when the page was translated."""
    foot = _FOOT.search(japanese)
    return [(one["title"], one["digest"]) for one in _KEPT.finditer(foot["lines"])] if foot else []


def with_digests(japanese: str, english: str, name: str) -> str:
    """Return a Japanese page with the digests of this English text at its foot."""
    told = [
        f"Translated from {posixpath.basename(name)}. The SHA-256 of each section of the English text as it was then;",
        "tools/check_translations.py says what has changed since.",
        *(f"{one.digest} {one.title}" for one in sections(english)),
    ]
    return "\n".join([_FOOT.sub("", japanese), "<!--", *told, "-->", ""])


def behind(english: str, japanese: str) -> Iterator[str]:
    """Say which sections of the English text are not as they were when the page was translated."""
    was, now = kept(japanese), [(one.title, one.digest) for one in sections(english)]
    if not was:
        yield "has no digests of the English text at its foot"
        return
    digests = dict(was)
    for title, digest in now:
        if title not in digests:
            yield f"“{title}” is new in the English text"
        elif digests[title] != digest:
            yield f"“{title}” has changed in the English text"
    for title in digests:
        if title not in dict(now):
            yield f"“{title}” is gone from the English text"
    titles = [title for title, _ in was if title in dict(now)]
    if titles != [title for title, _ in now if title in digests]:
        yield "the sections have another order in the English text"


def differences(english: str, japanese: str, page: str, docs: Path = DOCS) -> Iterator[str]:
    """Say what a Japanese page does not have as the English one has it, by the title of the English section."""
    theirs, ours = sections(english), sections(japanese)
    if [one.level for one in theirs] != [one.level for one in ours]:
        yield f"{len(ours)} headings in the place of {len(theirs)}, or of other levels"
        return
    for there, here in zip(theirs, ours, strict=True):
        wanted = sorted(_in_japan(target, page, docs) for target in _links(there))
        for reason in [*_different(there, here, wanted), *_not_japanese(here)]:
            yield f"“{there.title}”: {reason}"


def _different(there: Section, here: Section, links: list[str]) -> Iterator[str]:
    if there.blocks != here.blocks:
        yield "its blocks of code are not those of the English page, to the byte and in their order"
    if _images(there) != _images(here):
        yield "its pictures are not those of the English page"
    if links != sorted(_links(here)):
        yield f"its links are {sorted(_links(here))}, and should be {links}"
    if _codes(there) != _codes(here):
        yield f"not in `code` in both: {', '.join(sorted(_codes(there) ^ _codes(here)))}"
    if lost := _numbers(there) - _numbers(here):
        yield f"numbers are missing: {', '.join(sorted(lost))}"
    if _cells(there) != _cells(here):
        yield "its tables have other rows or columns"


def _not_japanese(section: Section) -> Iterator[str]:
    for line in section.prose:
        words = _LINK.sub("]", _CODE.sub("", line)).replace("Birthmark", "")
        if (_LATIN.search(words) and not _JAPANESE.search(words)) or _SENTENCE.search(_TERM.sub("", words)):
            yield f"is not in Japanese: {line}"


def _images(section: Section) -> list[str]:
    return _IMAGE.findall(" ".join(section.prose))


def _links(section: Section) -> list[str]:
    return _LINK.findall(_IMAGE.sub("", _CODE.sub("`", " ".join(section.prose))))


def _codes(section: Section) -> set[str]:
    return set(_CODE.findall(" ".join(section.prose)))


def _numbers(section: Section) -> set[str]:
    return set(_NUMBER.findall(_LINK.sub("]", _CODE.sub("", " ".join(section.prose)))))


def _cells(section: Section) -> list[int]:
    return [_CODE.sub("`", line).count("|") for line in section.prose if line.startswith("|")]


def _in_japan(target: str, page: str, docs: Path) -> str:
    """Return where a link of the English page leads in the Japanese one; the languages' pages lead to each other."""
    path, hash_sign, anchor = target.partition("#")
    own = posixpath.basename(page)
    if path == in_japanese(own):
        return own
    if "://" in path or not path.endswith(".md") or not (docs / posixpath.dirname(page) / in_japanese(path)).is_file():
        return target
    return f"{in_japanese(path)}{hash_sign}{anchor}"


def problems(page: str, docs: Path = DOCS) -> list[str]:
    """Say what is wrong with the Japanese page of an English one."""
    english, there = (docs / page).read_text(), docs / in_japanese(page)
    if not there.is_file():
        return ["is not there"]
    japanese = there.read_text()
    return [*behind(english, japanese), *differences(english, japanese, page, docs)]


def unauthenticated(docs: Path = DOCS) -> list[str]:
    """Return the Japanese pages of no English one, or of one that is not to be kept in step."""
    wanted = {in_japanese(page) for page in pages(docs)}
    return sorted({path.relative_to(docs).as_posix() for path in docs.rglob("*.ja.md")} - wanted)


def accept(page: str, docs: Path = DOCS) -> list[str]:
    """Keep the digests of the English text in the Japanese page; say why not, if they differ in more than language."""
    english, there = (docs / page).read_text(), docs / in_japanese(page)
    if not there.is_file():
        return ["is not there"]
    found = list(differences(english, there.read_text(), page, docs))
    if not found:
        there.write_text(with_digests(there.read_text(), english, page))
    return found


def meant(name: str, docs: Path = DOCS) -> str:
    """Return the English page of a name; raise `ValueError` if no such page is kept in Japanese."""
    named = name.removeprefix("docs/").removesuffix(".md").removesuffix(".ja")
    found = [page for page in pages(docs) if named in {page.removesuffix(".md"), posixpath.basename(page)[:-3]}]
    if len(found) != 1:
        raise ValueError(name)
    return found[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="say what is behind, and where (this is also the default)")
    parser.add_argument("--accept", nargs="+", metavar="NAME", default=[], help="write a page's digests")
    chosen = parser.parse_args()
    try:
        accepted = [meant(name) for name in chosen.accept]
    except ValueError as error:
        parser.error(f"{error}: no such page is kept in Japanese. There are: {', '.join(pages())}")
    found = {page: accept(page) for page in accepted} if accepted else {page: problems(page) for page in pages()}
    found |= {page: ["is the translation of no page that is kept in Japanese"] for page in unauthenticated()}
    for page, reasons in found.items():
        for reason in reasons:
            print(f"docs/{in_japanese(page) if not is_japanese(page) else page}: {reason}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
