"""Which chips to ask, by options, by variables, and by what lies about."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from birthmark.doctor.facts import ChipAsked
from birthmark.doctor.probe import Question
from birthmark.doctor.settings import Setting
from birthmark.keys.errors import SoftHsmMissingError
from birthmark.keys.library import find_libraries, find_softhsm
from birthmark.text import whole_number

_DEBIAN = Path("/usr/lib/softhsm/libsofthsm2.so")  # named in the finding that there is none
_MADE_FOR_A_CHIP = ("libsss_pkcs11", "libcryptoauth")
_SAID = ("module", "token", "slot", "pin_file", "key")


def chips_asked(
    settings: Mapping[str, Setting], environment: Mapping[str, str], *, has_other: bool
) -> Iterator[tuple[ChipAsked, Question]]:
    """Yield the chip that is named; SoftHSM, unless there is another, where a variable names its settings."""
    said = {name: settings.get(name) for name in _SAID}
    if not any(said.values()) and (has_other or not environment.get("SOFTHSM2_CONF")):
        return
    module = said["module"]
    if module is None:
        try:
            path = find_softhsm()
        except SoftHsmMissingError:
            path = _DEBIAN
    else:
        path = Path(module.value)
    yield _asked(said), _question(said, path)


def not_named(settings: Mapping[str, Setting], environment: Mapping[str, str], root: Path) -> list[Path]:
    """Return the libraries of chips that this machine has, where no library is named at all."""
    if settings.get("module") is not None or environment.get("SOFTHSM2_CONF"):
        return []
    return [path for path in find_libraries(root) if path.name.startswith(_MADE_FOR_A_CHIP)]


def _asked(said: Mapping[str, Setting | None]) -> ChipAsked:
    return ChipAsked(said["module"], said["token"], said["slot"], said["pin_file"], said["key"])


def _question(said: Mapping[str, Setting | None], module: Path) -> Question:
    def value(name: str) -> str | None:
        found = said[name]
        return None if found is None else found.value

    return Question(
        str(module),
        token=value("token"),
        slot=whole_number(value("slot") or ""),
        pin_file=value("pin_file"),
    )
