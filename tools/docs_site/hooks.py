"""What mkdocs is told while it builds the site: its navigation, what stands outside docs/, and to ask nobody."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from markdown.extensions import toc
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[1]))
import site_pages

toc.unique = lambda anchor, taken, *_: site_pages.with_a_number(anchor, taken)  # it has no setting for this

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parent / "assets"
_FETCHED = ("https://unpkg.com/", "https://api.github.com/")
"""What the theme's script would load for what no page of ours has: diagrams, old browsers, a repository's stars."""

_LANGUAGES = {"tinyseg.js", "lunr.ja.min.js", "lunr.multi.min.js", "lunr.stemmer.support.min.js"}
"""How words of Japanese are found; the theme brings those of thirty languages."""


def is_japanese() -> bool:
    """Say which of the two sites is built: mkdocs loads this file once for both."""
    return os.environ.get("BIRTHMARK_SITE_LANGUAGE") == "ja"


@event_priority(100)  # before the search asks for its language
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    index = f"README{site_pages.JAPANESE}" if is_japanese() else site_pages.INDEX
    config.nav = site_pages.nav_of(lambda page: (ROOT / "docs" / page).read_text(), index)
    config.theme["language"] = "ja" if is_japanese() else "en"
    if (ROOT / "docs" / f"README{site_pages.JAPANESE}").exists():
        config.extra["alternate"] = [
            {"name": "English", "link": "../index.html" if is_japanese() else "index.html", "lang": "en"},
            {"name": "日本語", "link": "index.html" if is_japanese() else "ja/index.html", "lang": "ja"},
        ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    below = [one for one in files if one.abs_src_path and Path(one.abs_src_path).is_relative_to(ROOT / "docs")]
    translated = [one for one in below if site_pages.is_japanese(one.src_uri)]
    for file in below if is_japanese() else translated:
        files.remove(file)
    for file in translated if is_japanese() else ():
        page = File.generated(config, site_pages.in_its_language(file.src_uri), content=file.content_string)
        page.birthmark_path = f"docs/{file.src_uri}"  # type: ignore[attr-defined]
        files.append(page)
    for path, text in ({} if is_japanese() else site_pages.elsewhere(ROOT)).items():
        source = site_pages.source_of(path, ROOT)
        content = {"content": text} if site_pages.is_page(source) else {"abs_src_path": str(ROOT / path)}
        file = File.generated(config, source, **content)
        file.inclusion = file.inclusion.NOT_IN_NAV
        file.birthmark_path = path  # type: ignore[attr-defined]
        files.append(file)
    for asset in sorted(ASSETS.iterdir()):
        files.append(File.generated(config, f"assets/{asset.name}", abs_src_path=str(asset)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    path = getattr(page.file, "birthmark_path", f"docs/{page.file.src_uri}")
    linked = site_pages.with_links_of_the_site(markdown, path, ROOT)
    return site_pages.with_bars_in_code(site_pages.with_titled_blocks(linked))


def on_page_context(context: Any, *, page: Page, config: MkDocsConfig, **_: Any) -> Any:
    """Lead from a page to the same one in the other language, where it is; else to its first."""
    if "alternate" in config.extra:
        translated = ROOT / "docs" / f"{page.file.src_uri.removesuffix('.md')}{site_pages.JAPANESE}"
        here, there = page.url, f"ja/{page.url if translated.exists() else 'index.html'}"
        english, japanese = (f"{site_pages.ACROSS}{here}", here) if is_japanese() else (here, there)
        for alternate, link in zip(config.extra["alternate"], (english, japanese), strict=True):
            alternate["link"] = link
    return context


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Take out what makes the theme's script ask for the other site's list of pages; a disk has no answer to that."""
    without = re.sub(r'\s*<link rel="alternate"[^>]*>', "", output)
    return site_pages.without_hosts(without, page.url, japanese=is_japanese())


def on_page_content(html: str, *, page: Page, **_: Any) -> str:
    return site_pages.without_hosts(html, page.url, japanese=is_japanese())


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    scripts = Path(config.site_dir, "assets", "javascripts")
    for language in [*scripts.glob("lunr/*.js"), *scripts.glob("lunr/min/*.js")]:
        if language.name not in _LANGUAGES:
            language.unlink()
    for script in scripts.glob("bundle.*.js"):
        text = script.read_text()
        for address in _FETCHED:
            text = text.replace(address, "data:,")
        script.write_text(text)
