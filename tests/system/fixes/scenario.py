"""How a refusal is provoked, and what preparations are common."""

from collections.abc import Callable
from dataclasses import dataclass

from fixes.applied import Apply
from fixes.scene import Scene

from support.azure.clients import a_file_device


@dataclass(frozen=True)
class Scenario:
    """`prepare` sets the scene; `act` is refused; the fix's command `number` is typed; then `act` passes.

    With `is_instead` the fix is the corrected command itself, or shows what there is to choose from. With `leads_to`
    it shows the server's refusal of that code, whose fix is typed next. `stdin` is what a person types into it;
    with `types_all` every command of the fix is typed in turn. With `apply` the fix is no command: it is done as
    `fixes.applied` has it. With `config` the server is one of its own, with this configuration file.
    With `needs_root` a file is given to another user first.
    """

    act: str
    prepare: Callable[[Scene], None] = lambda _scene: None
    is_instead: bool = False
    leads_to: str | None = None
    number: int = 0
    stdin: str | None = None
    types_all: bool = False
    apply: Apply | None = None
    config: str = ""
    needs_root: bool = False


REGISTER = 'birthmark device register --cert "$X509_CERT_FILE" --key "$X509_KEY_FILE"'


def device(name: str, **options: object) -> Callable[[Scene], None]:
    """Make a device with its files in the environment, and the server's variables."""

    def prepare(scene: Scene) -> None:
        made = a_file_device(scene.directory, name, **options)  # type: ignore[arg-type]  # fields by name
        scene.environment |= {"X509_CERT_FILE": str(made.certificate_file), "X509_KEY_FILE": str(made.key_file)}
        scene.must('eval "$(birthmark env)"')

    return prepare


def after(first: Callable[[Scene], None], *lines: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        first(scene)
        for line in lines:
            scene.must(line)

    return prepare


def typed(*lines: str) -> Callable[[Scene], None]:
    return after(lambda _scene: None, *lines)
