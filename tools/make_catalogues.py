"""Write what the console says into the catalogue of each language, and keep what is translated.

python tools/make_catalogues.py    exit 1 where a language lacks a text
"""

import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

WEB = Path(__file__).parents[1] / "src" / "birthmark" / "webconsole"
METHODS = [("**.py", "python"), ("**.html", "jinja2")]
KEYWORDS = {"translate": None, "mark_for_translation": None, "count_of": (1, 2), "_": None, "ngettext": (1, 2)}
WIDTH = 120


def said() -> Catalog:
    """Return every text of templates and pages, with where it is."""
    found = Catalog(charset="utf-8")
    options = {"**.html": {"trimmed": "true"}}
    for name, line, message, comments, _ in extract_from_dir(str(WEB), METHODS, options, KEYWORDS, ("i18n:",)):
        found.add(message, locations=[(name, line)], auto_comments=comments)
    return found


def of(path: Path) -> Catalog:
    """Return the catalogue of a language with every text there is now, translated as far as it was."""
    language = path.parts[-3]
    known = read_po(io.BytesIO(path.read_bytes()), locale=language) if path.exists() else Catalog(locale=language)
    known.update(said(), no_fuzzy_matching=True)
    known.obsolete.clear()
    return known


def written(catalogue: Catalog) -> bytes:
    """Return a catalogue as its file has it."""
    file = io.BytesIO()
    write_po(file, catalogue, width=WIDTH, no_location=True, omit_header=True, sort_output=True)
    head = (
        'msgid ""\nmsgstr ""\n"Language: {}\\n"\n"MIME-Version: 1.0\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n'
        '"Content-Transfer-Encoding: 8bit\\n"\n"Plural-Forms: {}\\n"\n\n'
    )
    return head.format(catalogue.locale, catalogue.plural_forms).encode() + file.getvalue()


def is_translated(message: Message) -> bool:
    """Say whether a language has a text, in each of its forms."""
    forms = (message.string,) if isinstance(message.string, str) else message.string or ("",)
    return all(forms)


def main() -> int:
    lacking = 0
    for path in sorted(WEB.glob("locale/*/LC_MESSAGES/console.po")):
        catalogue = of(path)
        path.write_bytes(written(catalogue))
        missing = sum(1 for one in catalogue if one.id and not is_translated(one))
        lacking += missing
        print(f"{path.parts[-3]}: {len(catalogue)} texts, {missing} not translated")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
