"""*Enroll* in a real Chromium: files that are dropped, progress that moves by itself, a file that is far too large."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.fleet.sample_shipment import make_rehearsal
from support.console.consoles import Place
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.system
GIB = 1024**3


def let_fall(page: Page, *files: tuple[str, str]) -> None:
    """Drop files onto the page, as a hand does from the desktop."""
    page.wait_for_function("document.documentElement.classList.contains('js')")
    held = page.evaluate_handle(
        """files => {
            const held = new DataTransfer();
            for (const [name, text] of files) held.items.add(new File([text], name));
            return held;
        }""",
        files,
    )
    for kind in ("dragover", "drop"):
        page.dispatch_event(".dropzone", kind, {"dataTransfer": held})


def test_certificates_that_are_dropped_are_looked_at_and_put_on_record(place: Place) -> None:
    pem = a_device(None, "d-fell", now=SystemClock().now()).certificate.pem()
    with place.operator() as visitor:
        page = visitor.page("/enroll")
        let_fall(page, ("d-fell.pem", pem), ("notes.pem", "nothing"))
        expect(page.locator("#chosen")).to_contain_text("2 files")
        page.get_by_role("button", name="Preview").press("Enter")  # by keyboard
        page.wait_for_url("**/enroll/*")
        expect(page.get_by_text("1 would be enrolled")).to_be_visible()  # without a look again
        expect(page.get_by_text("1 refused")).to_be_visible()
        page.get_by_role("button", name="Enroll 1 device").click()
        expect(page.get_by_text("1 enrolled")).to_be_visible()
        with page.expect_download() as got:
            page.get_by_role("link", name="Report (CSV)").click()
        assert got.value.suggested_filename == "enrollment.csv"
        page.get_by_role("link", name="d-fell").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("d-fell")


def test_progress_moves_by_itself_and_is_there_after_one_left(place: Place, tmp_path: Path) -> None:
    make_rehearsal(tmp_path / "r", 500, SystemClock(), SystemEntropy())
    with place.operator() as visitor:
        page = visitor.page("/enroll")
        page.set_input_files("#files", tmp_path / "r" / "manifest.json")
        page.get_by_text("Trust anchors for manufacturers").click()
        page.set_input_files("[name=signers]", tmp_path / "r" / "signer.pem")
        page.set_input_files("[name=roots]", tmp_path / "r" / "root.pem")
        page.get_by_role("button", name="Preview").click()
        page.get_by_role("button", name="Enroll 500 devices").click()
        expect(page.locator("progress")).to_be_visible(timeout=30_000)
        at = page.url
        visitor.go(page, "/")
        page.goto(at)
        expect(page.get_by_text("500 enrolled")).to_be_visible(timeout=120_000)
        expect(page.locator("progress")).to_have_count(0)


def test_a_file_of_two_gigabytes_is_refused_before_it_is_sent(place: Place, tmp_path: Path) -> None:
    large = tmp_path / "disk.img"
    with large.open("wb") as file:
        file.truncate(2 * GIB)
    with place.operator() as visitor:
        page = visitor.page("/enroll")
        page.set_input_files("#files", large)
        expect(page.locator("#chosen")).to_contain_text("the limit is 64 MiB")
        expect(page.get_by_role("button", name="Preview")).to_be_disabled()
        page.set_input_files("#files", [])
        expect(page.get_by_role("button", name="Preview")).to_be_enabled()


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_nothing_is_wider_than_the_window(place: Place, width: int) -> None:
    long = a_device(None, "x" * 60, now=SystemClock().now()).certificate.pem()
    with place.operator(viewport={"width": width, "height": 800}) as visitor:
        page = visitor.page("/enroll")
        let_fall(page, ("n" * 200 + ".pem", long))
        page.get_by_role("button", name="Preview").click()
        page.wait_for_url("**/enroll/*")
        for path in ("", "/enroll", "/certificates", "/certificates/lists", "/certificates/rollover"):
            if path:
                visitor.go(page, path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
