"""What pages say of foreign text, whatever is in it."""

import pytest

from birthmark.webconsole.i18n import PageLocale, reader
from birthmark.webconsole.templates_and_static_files import TemplateRenderer
from support.fakes import FakeClock, SeededEntropy


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("since 2026-01-02 03:04 UTC", '<bdi>since </bdi><time datetime="2026-01-02T03:04:00+00:00"'),
        ("since 2026-13-45 99:99 UTC", "<bdi>since </bdi><bdi>2026-13-45 99:99 UTC</bdi>"),
        ("0000-00-00 00:00:00 UTC", "<bdi>0000-00-00 00:00:00 UTC</bdi>"),
        ("<b>9999-12-31 23:59:59 UTC", "<bdi>&lt;b&gt;</bdi><time"),
    ],
)
def test_times_in_foreign_text_are_times_where_they_are(text: str, written: str) -> None:
    token = reader.set(PageLocale())
    try:
        assert written in TemplateRenderer(FakeClock(), SeededEntropy(0))._timed(text)
    finally:
        reader.reset(token)
