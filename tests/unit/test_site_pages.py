"""What the site makes of docs/: its navigation, links that leave docs/, what its Markdown has otherwise than forges."""

from pathlib import Path

import pytest

import site_pages

FIRST = """# First

[Elsewhere](howto/not-listed.md)

## All pages

### Learn

Not a list: [here](tutorial/x.md)

- [One](tutorial/one.md), [two](tutorial/two.md#part)
- [One again](tutorial/one.md)
  and [three](tutorial/three.md), [outside](../SECURITY.md), [a site](https://example.com/a.md)

### Understand

- [Decisions](adr/README.md)
"""
DECISIONS = "# Why\n\n- 1 · [First](0001-first.md)\n- 2 · [Second](0002-second.md)\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "howto").mkdir(parents=True)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "docs" / "howto" / "a.md").write_text("[b](b.md) [src](../../app.py) [deploy](../../deploy) [me](#x)\n")
    (tmp_path / "docs" / "howto" / "b.md").write_text("# b\n")
    (tmp_path / "app.py").write_text("print(1)\n")
    (tmp_path / "deploy" / "server.toml").write_text("workers = 2\n")
    return tmp_path


def test_the_navigation_is_the_lists_of_the_map_in_their_order_each_page_once() -> None:
    nav = site_pages.nav_of({"README.md": FIRST, "adr/README.md": DECISIONS}.__getitem__)
    assert nav == [
        "README.md",
        {"Learn": ["tutorial/one.md", "tutorial/two.md", "tutorial/three.md"]},
        {"Understand": [{"Why": ["adr/README.md", "adr/0001-first.md", "adr/0002-second.md"]}]},
    ]


def test_a_link_out_of_docs_leads_to_a_page_that_shows_what_is_there(root: Path) -> None:
    text = (root / "docs" / "howto" / "a.md").read_text()
    shown = site_pages.with_links_of_the_site(text, "docs/howto/a.md", root)
    assert shown == "[b](b.md) [src](../repository/app.py.md) [deploy](../repository/deploy/README.md) [me](#x)\n"
    assert site_pages.elsewhere(root) == {
        "app.py": "# app.py\n\n````python\nprint(1)\n````\n",
        "deploy": "# deploy\n\n- [server.toml](server.toml)\n",
        "deploy/server.toml": "# deploy/server.toml\n\n````toml\nworkers = 2\n````\n",
    }


def test_what_is_not_there_is_left_for_the_strict_build_to_refuse(root: Path) -> None:
    text = "[gone](../../gone.py)"
    assert site_pages.with_links_of_the_site(text, "docs/howto/a.md", root) == text


def test_links_in_blocks_of_code_are_none(root: Path) -> None:
    text = "```sh\necho '[a](../../app.py)'\n```\n"
    assert site_pages.with_links_of_the_site(text, "docs/howto/a.md", root) == text
    assert list(site_pages.links_of(text)) == []


def test_a_block_that_is_a_file_has_its_name_above_it() -> None:
    assert site_pages.with_titled_blocks("```toml file=a.toml\n") == '```toml title="a.toml"\n'


def test_bars_in_the_code_of_a_table_lose_the_backslash_that_forges_need() -> None:
    text = "| `a \\| b` | c \\| d |\n`x \\| y`\n"
    assert site_pages.with_bars_in_code(text) == "| `a | b` | c \\| d |\n`x \\| y`\n"


def test_headings_that_come_again_are_numbered_as_on_forges() -> None:
    taken: set[str] = set()
    assert [site_pages.with_a_number("jobs", taken) for _ in range(3)] == ["jobs", "jobs-1", "jobs-2"]
