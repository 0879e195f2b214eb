"""The documentation as a site: built strictly, whole, the same as on a forge, and asking nobody outside."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Page

import make_site
import site_pages
from support.breadth import variants
from support.console.consoles import a_chromium

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
ALL = sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
DOCS = [page for page in ALL if not site_pages.is_japanese(page)]
WIDTHS = {"narrow": (360, 740), "wide": (1440, 900)}
TOO_WIDE = """() => [...document.querySelectorAll("article *")].filter((one) => {
    if (one.closest("svg, pre, .md-typeset__scrollwrap, [hidden]")) return false;
    if (getComputedStyle(one).overflowX !== "visible") return false;
    return one.clientWidth && one.scrollWidth > one.clientWidth + 8; // code's own padding
}).map((one) => one.outerHTML.slice(0, 160))"""


html_of = site_pages.html_of


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a version beside an older one."""
    out = tmp_path_factory.mktemp("site")
    done = built(ROOT, "--out", str(out), "--version", "0.10.0")
    assert (done.returncode, done.stderr) == (0, "")
    shutil.copytree(out / "0.10.0", out / "0.1.0")
    make_site.write_versions(out)
    return out


def built(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(root / "tools" / "make_site.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def a_copy(place: Path) -> Path:
    """Make a repository whose pages may be changed."""
    for name in ("docs", "tools"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.ja.md"))
    for name in ("mkdocs.yml", "pyproject.toml", "README.md", "SECURITY.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, place / name)
    for name in ("src", "deploy", "examples", "benchmarks", "scripts", "tests"):
        (place / name).symlink_to(ROOT / name)
    return place


@pytest.fixture(scope="module")
def site(out: Path) -> Path:
    return out / "0.10.0"


@pytest.fixture(scope="module")
def url(out: Path) -> Iterator[str]:
    """Serve it as any web server does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(out))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield context.new_page()
    context.close()


def test_the_navigation_has_every_page_of_docs_once() -> None:
    nav = site_pages.nav_of(lambda page: (ROOT / "docs" / page).read_text())
    assert sorted(site_pages.pages_of(nav)) == DOCS


def test_the_index_for_search_has_every_page(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert {html_of(page) for page in DOCS} <= {one["location"].partition("#")[0] for one in index["docs"]}


def test_the_site_in_japanese_has_every_page_that_is_in_japanese(site: Path) -> None:
    index = json.loads((site / "ja" / "search" / "search_index.json").read_text())
    wanted = {html_of(site_pages.in_its_language(page)) for page in ALL if site_pages.is_japanese(page)}
    assert {one["location"].partition("#")[0] for one in index["docs"]} == wanted


class Shape(HTMLParser):
    """How many lists, cells, blocks and the like there are, and the words."""

    KINDS = frozenset({"li", "tr", "td", "pre", "ol", "ul", "h2", "h3", "h4", "blockquote", "em", "strong", "img"})

    def __init__(self, text: str, *, is_whole: bool) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self._words: list[str] = []
        self._is_inside, self._is_title = is_whole, False
        self.feed(text)

    @property
    def words(self) -> str:
        return re.sub(r"[\s¶]+", "", "".join(self._words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_inside |= tag == "article"
        self._is_title = ("class", "filename") in attrs
        if self._is_inside and tag in self.KINDS:
            self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        self._is_inside &= tag != "article"
        self._is_title = False

    def handle_data(self, data: str) -> None:
        if self._is_inside and not self._is_title:
            self._words.append(data)


@pytest.mark.parametrize("name", DOCS)
def test_a_page_reads_as_it_does_on_a_forge(site: Path, name: str) -> None:
    """Forges read CommonMark, the site's builder an older Markdown: lists, tables and braces are where they part."""
    forge = Shape(
        MarkdownIt("commonmark", {"html": True}).enable("table").render((ROOT / "docs" / name).read_text()),
        is_whole=True,
    )
    here = Shape((site / html_of(name)).read_text(), is_whole=False)
    assert here.counts == forge.counts
    assert here.words == forge.words


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"<(?:link|script|img|iframe|source|video|object)\b[^>]*\b(?:src|href|data)=[\"']?(?:https?:)?//[^>]*"
    )
    wrong = {
        str(page.relative_to(site)): found
        for page in site.rglob("*.html")
        if (found := [one for one in loads.findall(page.read_text()) if 'rel="canonical"' not in one])
    }
    styles = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]*")
    wrong |= {style.name: found for style in site.rglob("*.css") if (found := styles.findall(style.read_text()))}
    assert wrong == {}


def test_every_page_tells_the_browser_to_ask_nobody_else(site: Path) -> None:
    policy = "Content-Security-Policy\" content=\"default-src 'none';"
    assert [page.name for page in site.rglob("*.html") if policy not in page.read_text()] == []


def test_the_scripts_name_no_address_to_load_from(site: Path) -> None:
    comments = re.compile(r"/\*.*?\*/|^\s*//[^\n]*|//# sourceMappingURL=\S*", re.DOTALL | re.MULTILINE)
    named = {
        address
        for script in site.rglob("*.js")
        if script.name != "search_index.js"
        for address in re.findall(r"[\"'`](?:https?:|wss?:)?//[\w.$]+[^\"'`\s]*", comments.sub("", script.read_text()))
    }
    # A namespace of XML, and what a forge's own interface would be asked for were a repository named, which none is.
    assert {one for one in named if "www.w3.org" not in one and "/api/v4/projects/" not in one} == set()


@pytest.mark.parametrize("way", ["server", "disk"])
def test_a_browser_asks_nobody_else_and_finds_by_search(out: Path, url: str, page: Page, way: str) -> None:
    base = url if way == "server" else out.as_uri()
    asked, wrong = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)

    page.goto(f"{base}/index.html")  # the door leads to the newest
    page.wait_for_url(f"{base}/0.10.0/index.html")
    page.locator("input[name=query]").focus()
    page.keyboard.type("thumbprint mismatch")
    page.locator(".md-search-result__item a").first.wait_for()
    page.locator(".md-search-result__item a").first.click()
    page.locator("article h1").wait_for()

    assert [one for one in asked if not one.startswith((base, "data:", "blob:"))] == []
    assert wrong == []


@pytest.mark.parametrize("way", ["server", "disk"])
def test_the_selector_leads_to_the_same_page_of_another_version(out: Path, url: str, page: Page, way: str) -> None:
    base = url if way == "server" else out.as_uri()
    page.goto(f"{base}/0.10.0/howto/ci.html")
    page.locator(".bm-versions select").wait_for()
    assert page.locator(".bm-versions option").all_inner_texts() == ["0.10.0", "0.1.0"]
    page.locator(".bm-versions select").select_option("0.1.0")
    page.wait_for_url(f"{base}/0.1.0/howto/ci.html")


def test_a_version_is_a_name_and_leads_nowhere_else(tmp_path: Path) -> None:
    done = built(ROOT, "--out", str(tmp_path / "site"), "--version", "../elsewhere")
    assert done.returncode == 2
    assert "'../elsewhere' cannot be the name of a version" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_versions_are_listed_for_programs(out: Path) -> None:
    listed = json.loads((out / "versions.json").read_text())
    assert [(one["version"], one["aliases"]) for one in listed] == [("0.10.0", ["latest"]), ("0.1.0", [])]


@pytest.mark.parametrize(
    ("scheme", "width"), variants(product(["light", "dark"], WIDTHS), [("light", "narrow"), ("dark", "wide")])
)
def test_no_page_is_wider_than_its_window(site: Path, browser: Browser, width: str, scheme: str) -> None:
    across, down = WIDTHS[width]
    context = browser.new_context(viewport={"width": across, "height": down}, color_scheme=scheme)  # type: ignore[arg-type]
    page, wrong = context.new_page(), {}
    names = DOCS if (width, scheme) == ("narrow", "light") else ["README.md", *DOCS[::8]]
    for name in names:
        page.goto((site / html_of(name)).as_uri(), wait_until="domcontentloaded")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = page.evaluate(TOO_WIDE)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"the page: {page.evaluate('document.documentElement.scrollWidth')}")
        if found:
            wrong[name] = found[:3]
        colors = page.locator("body").get_attribute("data-md-color-scheme")
        assert colors == {"light": "default", "dark": "slate"}[scheme]
    context.close()
    assert wrong == {}


def test_every_page_is_reached_from_the_navigation_of_the_first(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri())
    reached, waiting = set[str](), ["index.html"]
    while waiting:
        page.goto((site / waiting.pop()).as_uri(), wait_until="domcontentloaded")
        links = page.eval_on_selector_all("nav a[href]", "(all) => all.map((one) => one.href.replace(/#.*/, ''))")
        found = {one.removeprefix(f"{site.as_uri()}/") for one in links if one.startswith(site.as_uri())}
        waiting += sorted(one for one in found - reached if one.count("/") == 0 or "index" in one)
        reached |= found
    assert {html_of(name) for name in DOCS} <= reached


def dead_links(site: Path) -> dict[str, list[str]]:
    """Return the links of each page that lead to no file, or to no place on a page."""
    pages = {page: page.read_text() for page in site.rglob("*.html")}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    wrong: dict[str, list[str]] = {}
    for page, text in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", link):
                continue
            path, anchor = urldefrag(unquote(link))
            target = (page.parent / path).resolve() if path else page
            is_there = target.exists() and (not anchor or target not in anchors or anchor in anchors[target])
            if not is_there and not anchor.startswith("__"):
                wrong.setdefault(str(page.relative_to(site)), []).append(link)
    return wrong


def test_every_link_leads_to_a_page_and_a_place_that_are_there(site: Path) -> None:
    assert dead_links(site) == {}


def test_a_link_that_leads_nowhere_ends_the_build_and_leaves_the_site_as_it_was(tmp_path: Path) -> None:
    root = a_copy(tmp_path)
    (out := root / "build" / "site" / "1.0").mkdir(parents=True)
    (out / "index.html").write_text("as it was")
    (root / "docs" / "plan.md").write_text("# Open\n\n[there](howto/ci.md#no-such-place)\n")
    done = built(root, "--version", "1.0")
    assert done.returncode == 1
    assert "'plan.md' contains a link 'howto/ci.md#no-such-place'" in done.stderr
    assert [one.read_text() for one in (root / "build" / "site").rglob("*.html")] == ["as it was"]


def test_a_page_leads_to_the_same_one_in_the_other_language(site: Path, page: Page) -> None:
    page.goto((site / "tutorial" / "azure.html").as_uri())
    for name, ends in (("日本語", "/ja/tutorial/azure.html"), ("English", "/0.10.0/tutorial/azure.html")):
        link = page.locator(".md-select__link", has_text=name)
        link.evaluate("(one) => one.click()")
        page.wait_for_url(f"**{ends}")
    page.goto((site / "howto" / "ci.html").as_uri())  # which is not there in Japanese
    page.locator(".md-select__link", has_text="日本語").evaluate("(one) => one.click()")
    page.wait_for_url("**/ja/index.html")


def test_pages_in_japanese_are_a_site_below_with_ways_to_and_fro(tmp_path: Path, page: Page) -> None:
    root = a_copy(tmp_path)
    (root / "docs" / "README.ja.md").write_text(
        "# はじめに\n\n[英語](README.md#quick-start) [用語集](reference/glossary.md) ![図](images/overview.svg)\n\n"
        "## すべてのページ\n\n### 学ぶ\n\n- [証明書の更新](tutorial/est.ja.md)\n"
    )
    (root / "docs" / "tutorial" / "est.ja.md").write_text("# 証明書の更新\n\n[はじめに](../README.ja.md)\n")

    done = built(root, "--version", "1.0")
    assert (done.returncode, done.stderr) == (0, "")
    site = root / "build" / "site" / "1.0"
    assert dead_links(site) == {}
    assert {one.name for one in (site / "ja").rglob("*.html")} == {"index.html", "est.html"}

    page.goto((site / "index.html").as_uri())
    page.locator("article").get_by_role("link", name="日本語").click()
    page.wait_for_url("**/1.0/ja/index.html")
    assert page.locator("html").get_attribute("lang") == "ja"
    assert page.locator(".bm-versions option").all_inner_texts() == ["1.0"]
    page.locator("input[name=query]").focus()
    page.keyboard.type("更新")
    page.keyboard.press("End")  # what comes without keys, as by an input method, is read with the next of them
    page.locator(".md-search-result__item a").first.wait_for()


def test_addresses_outside_are_tried_and_said_with_what_became_of_them(url: str) -> None:
    assert make_site.why_not(f"{url}/index.html") == ""
    assert make_site.why_not(f"{url}/gone.html") == "404 File not found"
    assert make_site.why_not("http://127.0.0.1:1/") == "[Errno 111] Connection refused"
    assert make_site.why_not("https://no-such-name.invalid/") != ""


def test_every_address_outside_that_a_page_links_to_is_among_those_tried() -> None:
    found = make_site.addresses([ROOT / "docs" / "you-asked.md", ROOT / "docs" / "explanation" / "comparison.md"])
    assert "https://github.com/Azure/azure-iot-sdk-c/issues/138" in found
    assert found["https://github.com/Azure/azure-iot-sdk-c/issues/138"] == [
        "docs/you-asked.md",
        "docs/explanation/comparison.md",
    ]
