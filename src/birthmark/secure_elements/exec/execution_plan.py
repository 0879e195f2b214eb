"""Execution plan: command and environment.

It is prepared while the element is open and executed after it is closed.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri import Pkcs11Uri
from birthmark.keys.pkcs11_uri_files import render_uri_pem
from birthmark.keys.se050_labels import object_id_of
from birthmark.secure_elements.backends import check_tls
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.exec import loopback_tls_proxy
from birthmark.secure_elements.exec.host_capabilities import HostCapabilities, detect_capabilities
from birthmark.secure_elements.exec.key_access_strategy import KeyAccess, KeyAccessChoice, choose
from birthmark.secure_elements.exec.program_arguments import by_proxy, in_memory, with_engine, with_uri_files
from birthmark.secure_elements.exec.program_detection import Program, detect_program

# `default` comes first and active, or TLS has no algorithms. Keys are not cached between loads, because a reconnecting
# program would hold one of a closed session. The provider does not shut SoftHSM down, because programs crashed at exit.
_CONFIGURATION = """\
openssl_conf = birthmark
[birthmark]
providers = providers
[providers]
default = default_provider
pkcs11 = pkcs11_provider
[default_provider]
activate = 1
[pkcs11_provider]
module = {provider}
pkcs11-module-path = {module}
pkcs11-module-cache-keys = false
pkcs11-module-quirks = no-deinit
{pin}activate = 1
"""


def configuration(provider: Path, module: Path, pin: Path | None) -> str:
    """Return the content of the OPENSSL_CONF file; `pin` is the PIN file, without a line ending."""
    line = "" if pin is None else f"pkcs11-module-token-pin = file:{pin}\n"
    return _CONFIGURATION.format(provider=provider, module=module, pin=line)


def without_query(uri: Pkcs11Uri) -> Pkcs11Uri:
    """Return the URI without its query, for use in a file; the configuration has the access data."""
    return Pkcs11Uri(token=uri.token, object=uri.object, id=uri.id, serial=uri.serial, type="private")


HOOK = Path(__file__).parents[1] / "hook"
_NODE_HOOK = HOOK / "birthmark.cjs"


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """Command to run, and its additional environment variables."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    choice: KeyAccessChoice
    seen: tuple[str, ...] = ()
    upstream: loopback_tls_proxy.ProxyUpstream | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    """Non-secret content of the memory files."""

    def explain(self) -> str:
        """Return a description of the detected program, the choice and the settings."""
        lines = [*self.seen, f"chosen: {self.choice.reason}"]
        if self.upstream is not None:
            lines.append(self.upstream.explain())
        lines += [f"{name}={value}" for name, value in sorted(self.environment.items())]
        for path, text in self.texts.items():
            lines += [f"in memory as {path}:", *(f"  {line}" for line in text.splitlines())]
        return "\n".join([*lines, f"run: {self.program} {' '.join(self.arguments)}".rstrip()])


def plan(
    command: Sequence[str],
    element: Element,
    *,
    pin: Pin | None,
    environment: Mapping[str, str],
    explain: bool = False,
    how: KeyAccess | None = None,
    to: Sequence[str] = (),
    key: str | None = None,
) -> ExecutionPlan:
    """Return the execution plan. The open element verifies token and PIN and provides the key labels.

    `how` forces a method. `to` names the proxy's targets, each HOST:PORT. `key` is for a program that names none, by
    default the element's identity. With `explain` the hooks report their mappings. Raise `ProgramMissingError`,
    `ProgramUnsupportedError`, or `EngineMissingError`.
    """
    check_tls(element)
    program, machine = detect_program(command, environment), detect_capabilities()
    choice = choose(program, machine, command, KeyAccess.PROXY if to and how is None else how)
    told = _PlanInputs(element, pin, program, machine)
    # If the provider loads the key, a hook must not intercept it.
    hooks = {} if choice.way is KeyAccess.PROVIDER else told.hooks(environment)
    arguments, settings = tuple(command[1:]), told.settings() | hooks
    upstream, texts = None, dict[str, str]()
    match choice.way:
        case KeyAccess.ENGINE:
            arguments = with_engine(program.kind, arguments, element, told.engine_uri, key)
        case KeyAccess.PROVIDER:
            arguments, texts = told.by_provider(arguments, environment, settings)
        case KeyAccess.PROXY:
            arguments, targets, trust = by_proxy(program.kind, arguments)
            trust = trust or environment.get("SSL_CERT_FILE") or None
            upstream = loopback_tls_proxy.ProxyUpstream.of(element, settings, trust, to or targets, key)
        case KeyAccess.HOOK:
            pass  # set for every method, for child processes
    if explain:
        settings["BIRTHMARK_EXEC_EXPLAIN"] = "1"
    has = f"OpenSSL's PKCS#11 engine {machine.engine or 'none'}, pkcs11-provider {machine.provider or 'none'}"
    seen = (f"program: {program.evidence}", f"machine: {has}")
    return ExecutionPlan(program.path, arguments, settings, choice, seen, upstream, texts)


def run(planned: ExecutionPlan, environment: Mapping[str, str]) -> None:
    """Replace this process with the program, or run it with the proxy and exit with its status.

    Close the element before.
    """
    command = [planned.program, *planned.arguments]
    whole = {**environment, **planned.environment}
    if planned.upstream is not None:
        raise SystemExit(loopback_tls_proxy.run_with_proxy(planned.upstream, command, whole))
    os.execve(planned.program, command, whole)  # noqa: S606 (intended)


@dataclass(frozen=True, slots=True)
class _PlanInputs:
    """Element, program and host, from which the settings are derived."""

    element: Element
    pin: Pin | None
    program: Program
    machine: HostCapabilities

    def settings(self) -> dict[str, str]:
        """Return the settings of all methods: the location of the token."""
        module = str(self.element.token.module.absolute())
        settings = {"BIRTHMARK_EXEC_TOKEN": self.element.info.label, "PKCS11_MODULE_PATH": module}
        if self.pin is not None:
            settings["BIRTHMARK_EXEC_PIN_FILE"] = str(self.pin.path or self._pin_in_memory())
        return settings

    def hooks(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that load and configure the hooks; child processes inherit them."""
        labels = [item.label for item in self.element.objects() if item.kind == "private key"]
        known = [f"{object_id:08X}={label}" for label in labels if (object_id := object_id_of(label)) is not None]
        return {
            "BIRTHMARK_EXEC_MODULE": str(self.element.token.module.absolute()),
            "BIRTHMARK_EXEC_ENGINE": str(self.machine.engine),
            "BIRTHMARK_EXEC_KEYS": ",".join(known),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HOOK), environment.get("PYTHONPATH", "")])),
            "NODE_OPTIONS": " ".join(filter(None, [f'--require "{_NODE_HOOK}"', environment.get("NODE_OPTIONS", "")])),
        }

    def engine_uri(self, uri: Pkcs11Uri) -> str:
        """Return the URI for the engine, with the PIN's location; the engine uses every byte of that file."""
        return str(replace(uri, pin_source=None if self.pin is None else self._pin_in_memory()))

    def by_provider(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], settings: dict[str, str]
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the arguments, and add the configuration and key file variables to `settings`."""
        pin = None if self.pin is None else self._pin_in_memory()
        text = configuration(Path(str(self.machine.provider)), self.element.token.module.absolute(), pin)
        conf = in_memory(text.encode(), "openssl.cnf")
        settings["OPENSSL_CONF"] = str(conf)
        names = [name for name in environment if name not in settings]
        values = with_uri_files([environment[name] for name in names], self.element, _uri_file)
        settings.update({name: value for name, value in zip(names, values, strict=True) if value != environment[name]})
        return with_uri_files(arguments, self.element, _uri_file), {str(conf): text}

    def _pin_in_memory(self) -> Path:
        return in_memory(b"" if self.pin is None else self.pin.reveal().encode(), "pin")


def _uri_file(uri: Pkcs11Uri) -> Path:
    return in_memory(render_uri_pem(without_query(uri)).encode(), "key-uri")
