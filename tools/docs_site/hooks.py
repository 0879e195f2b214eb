"""What mkdocs is told while it builds the site: its navigation, what stands outside docs/, and to ask nobody."""

import sys
from pathlib import Path
from typing import Any

from markdown.extensions import toc
from mkdocs.config.defaults import MkDocsConfig
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


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = site_pages.nav_of(lambda page: (ROOT / "docs" / page).read_text())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in site_pages.elsewhere(ROOT).items():
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


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    language = "ja" if site_pages.is_japanese(page.file.src_uri) else "en"
    return output.replace('<html lang="en"', f'<html lang="{language}"', 1)


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
