"""Japanese pages are kept in step: who changes an English text is told which section of which page has to follow."""

# ruff: noqa: RUF001 (the brackets of Japanese are meant)

import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

import birthmark.webconsole
import check_translations as checked

PAGE = """# A gate

It opens in 20 seconds by `gate open` ([more](other.md), [RFC](https://example.com/1)).

![A gate](gate.svg)

```sh
gate open # now
```

## What to see

| who | what |
|---|---|
| ann | `gate ls` |
"""
SAME = """# ゲート

`gate open` で 20 秒後に開きます（[詳細](other.ja.md)、[RFC](https://example.com/1)）。

![ゲート](gate.svg)

```sh
gate open # now
```

## 確かめる

| 人 | 内容 |
|---|---|
| アン（ann） | `gate ls` |
"""
CATALOGUE = Path(birthmark.webconsole.__file__).parent / "locale" / "ja" / "LC_MESSAGES" / "console.po"
TODO = "bring the section up in Japanese, then: python tools/check_translations.py --accept {page}"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for page in ("tutorial/gate.md", "howto/console.md", "reference/glossary.md", "README.md", "tutorial/other.md"):
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text(PAGE)
    (tmp_path / "tutorial" / "other.ja.md").write_text("")
    (tmp_path / "tutorial" / "gate.ja.md").write_text(checked.with_digests(SAME, PAGE, "tutorial/gate.md"))
    return tmp_path


@pytest.mark.parametrize("page", checked.pages())
def test_the_japanese_page_is_in_step(page: str) -> None:
    assert checked.problems(page) == [], TODO.format(page=page)


@pytest.mark.parametrize("page", [page for page in checked.pages() if not page.startswith("reference/")])
def test_a_page_calls_things_as_the_console_does(page: str) -> None:
    """Its words stand in slanted letters in English, in brackets in Japanese; those of the glossary are portals'."""
    with CATALOGUE.open("rb") as file:
        said = {str(one.id).lower(): one.string for one in read_po(file) if one.id}
    prose = [line for section in checked.sections((checked.DOCS / page).read_text()) for line in section.prose]
    words = [word for line in prose for word in re.findall(r"\*([^*]+)\*", re.sub(r"`[^`]*`", "", line))]
    japanese = (checked.DOCS / checked.in_japanese(page)).read_text()
    assert [word for word in words if word.lower() in said and f"「{said[word.lower()]}」" not in japanese] == []


def test_there_is_no_japanese_page_besides() -> None:
    assert checked.unauthenticated() == []


def test_every_tutorial_the_console_the_glossary_and_the_first_page_are_kept(docs: Path) -> None:
    assert checked.pages(docs) == [
        "README.md",
        "tutorial/gate.md",
        "tutorial/other.md",
        "howto/console.md",
        "reference/glossary.md",
    ]


def test_a_page_in_step_has_nothing_to_say(docs: Path) -> None:
    assert checked.problems("tutorial/gate.md", docs) == []


def test_a_page_that_is_missing_is_named(docs: Path) -> None:
    assert checked.problems("howto/console.md", docs) == ["is not there"]
    assert checked.accept("howto/console.md", docs) == ["is not there"]


def test_a_page_without_digests_is_named(docs: Path) -> None:
    (docs / "tutorial" / "gate.ja.md").write_text(SAME)
    assert checked.problems("tutorial/gate.md", docs) == ["has no digests of the English text at its foot"]


def test_a_page_of_no_english_one_is_named(docs: Path) -> None:
    (docs / "howto" / "gone.ja.md").write_text(SAME)
    assert checked.unauthenticated(docs) == ["howto/gone.ja.md"]


@pytest.mark.parametrize(
    ("was", "becomes", "reason"),
    [
        ("It opens", "It shuts", "“A gate” has changed in the English text"),
        ("gate open # now", "gate open # then", "“A gate” has changed in the English text"),
        ("| ann |", "| bob |", "“What to see” has changed in the English text"),
        ("## What to see", "## See", "“See” is new in the English text"),
        ("## What to see", "## See", "“What to see” is gone from the English text"),
    ],
)
def test_the_section_that_changed_is_named(docs: Path, was: str, becomes: str, reason: str) -> None:
    (docs / "tutorial" / "gate.md").write_text(PAGE.replace(was, becomes))
    assert reason in checked.problems("tutorial/gate.md", docs)


def test_another_order_of_sections_is_told(docs: Path) -> None:
    (docs / "tutorial" / "gate.md").write_text("# B\n\n## A\n")
    (docs / "tutorial" / "gate.ja.md").write_text(checked.with_digests("# い\n\n## ろ\n", "## A\n\n# B\n", "gate.md"))
    assert "the sections have another order in the English text" in checked.problems("tutorial/gate.md", docs)


@pytest.mark.parametrize(
    ("was", "becomes", "reason"),
    [
        ("open # now", "open # 今", "“A gate”: its blocks of code are not those of the English page"),
        ("(gate.svg)", "(gate.png)", "“A gate”: its pictures are not those"),
        ("other.ja.md", "other.md", "“A gate”: its links are ['https://example.com/1', 'other.md'], and should be"),
        ("`gate open` で", "`gate shut` で", "“A gate”: not in `code` in both: `gate open`, `gate shut`"),
        ("20 秒後", "30 秒後", "“A gate”: numbers are missing: 20"),
        ("|---|---|\n", "|---|---|\n| ボブ | |\n", "“What to see”: its tables have other rows"),
        ("アン（ann）", "ann", "“What to see”: is not in Japanese: | ann | `gate ls` |"),
        ("## 確かめる", "## What to see", "“What to see”: is not in Japanese: ## What to see"),
        ("開きます", "it opens when you call ", "“A gate”: is not in Japanese: "),
        ("## 確かめる", "### 確かめる", "2 headings in the place of 2, or of other levels"),
    ],
)
def test_what_must_be_as_in_english_is_compared(docs: Path, was: str, becomes: str, reason: str) -> None:
    path = docs / "tutorial" / "gate.ja.md"
    path.write_text(path.read_text().replace(was, becomes))
    (found,) = checked.problems("tutorial/gate.md", docs)
    assert found.startswith(reason)
    assert checked.accept("tutorial/gate.md", docs) == [found]  # digests are for a page that is in step otherwise


def test_a_page_that_was_brought_up_is_accepted(docs: Path) -> None:
    english, japanese = docs / "tutorial" / "gate.md", docs / "tutorial" / "gate.ja.md"
    english.write_text(PAGE.replace("20", "25"))
    japanese.write_text(japanese.read_text().replace("20 秒", "25 秒"))
    assert checked.accept("tutorial/gate.md", docs) == []
    assert checked.problems("tutorial/gate.md", docs) == []
    assert japanese.read_text().count("<!--") == 1


def test_the_two_languages_pages_lead_to_each_other(docs: Path) -> None:
    english = "# Gate\n\n[日本語](gate.ja.md)\n"
    assert list(checked.differences(english, "# ゲート\n\n[英語](gate.md)\n", "tutorial/gate.md", docs)) == []


def test_a_term_may_stand_in_english_in_brackets() -> None:
    english = "# Limits of a listener, of an engine\n"
    assert list(checked.differences(english, f"# 制限（{english[2:-1]}）\n", "tutorial/azure.md")) == []
    assert list(checked.differences(english, f"# 制限 {english[2:-1]}\n", "tutorial/azure.md")) != []


def test_a_line_of_a_block_is_no_heading() -> None:
    assert [one.title for one in checked.sections("# A\n\n```sh\n# not one\n```\n\n    # nor this\n")] == ["A"]


def test_a_block_by_its_indent_is_one_to_the_byte() -> None:
    (section,) = checked.sections("# A\n\nSo:\n\n    a \\\n      b\n\nAnd so on.\n")
    assert section.blocks == ("    a \\\n      b\n",)
    assert section.prose == ("# A", "So:", "And so on.")


@pytest.mark.parametrize("name", ["azure", "azure.md", "tutorial/azure.md", "docs/tutorial/azure.ja.md"])
def test_a_page_is_named_as_one_likes(name: str) -> None:
    assert checked.meant(name) == "tutorial/azure.md"


def test_the_name_of_no_page_that_is_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="howto/backup"):
        checked.meant("howto/backup")
