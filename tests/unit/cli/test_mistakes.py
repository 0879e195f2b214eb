"""What people get wrong at the command line: they are told what, where and what to do, and never get a traceback."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from birthmark.ca import ca_directory
from birthmark.cli import app
from birthmark.cli.input_files import file_trouble
from birthmark.cli.options.json_arguments import json_of
from birthmark.cli.output import machine_specific_hints
from birthmark.cli.pki import parse_issued
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.devices.model import DeviceNameUnseenError
from support.pki.pki_builders import a_ca, a_csr, a_device, a_key

FILES = {
    "random.bin": bytes(range(128, 256)) * 8,
    "hello.txt": b"hello\n",
    "latin.toml": b"host = '\xe9'\n",
    "broken.toml": b"[provisioning\n",
    "broken.pem": b"-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n",
    "device.key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "endpoints.json": b"{",
    "device.csr": a_csr("device-1", key=a_key()),
}

MISTAKES = [
    # what was typed, exit code, what the answer must contain
    ("nosuch", 2, "`birthmark --help`"),
    ("hub list", 2, "`birthmark hub ls --help`"),
    ("hub c2d pump hello --feedback all", 2, "'none', 'positive', 'negative', 'full'"),
    ("hub c2d pump/door hello", 2, "`birthmark hub twin pump/door`"),
    ("hub device delete pump", 6, "`birthmark hub device rm pump --yes`"),
    ("device enrol", 2, "`birthmark device enroll --help`"),
    ("serve --port 1", 2, "No such option"),
    ("pki revoke --key-of device.csr", 1, "`birthmark device revoke --help`"),
    ("agent check --config .", 3, "such as config.toml"),
    ('hub twin pump --desired {"a":NaN}', 2, "NaN is not a JSON number"),
    ("hub ls --data nowhere", 5, "birthmark serve --data nowhere"),
    ("hub ls --data .", 5, "endpoints.json is damaged"),
    ("env --data nowhere", 5, "birthmark serve --data nowhere"),
    ("env --data .", 5, "endpoints.json is damaged"),
    ("why x --data nowhere", 5, "operator.server_not_running"),
    ("device ls --data nowhere", 5, "birthmark serve --data nowhere"),
    ("device ls \u2013-json", 2, "Type it: --json"),
    ("device ls \u2014profile=local", 2, "Type it: --profile"),
    ("hub query x --hub=", 2, "'--hub': it is empty"),
    ("device enroll-list hello.txt --policy= --to aws", 2, "'--policy': it is empty"),
    ("hub twin pump/", 2, "one part is empty"),
    ("device enroll", 2, "--cert FILE"),
    ("device enroll --cert nowhere.pem", 3, "nowhere.pem cannot be read"),
    ("device enroll --cert .", 3, "is a directory"),
    ("device enroll --cert random.bin", 1, "random.bin"),
    ("device enroll --cert hello.txt", 1, "hello.txt"),
    ("device enroll --cert broken.pem", 1, "broken.pem"),
    ("device enroll --cert device.key", 1, "pki.certificate_key_swapped"),
    ("device enroll --cert device.pem --profile nope", 1, "profiles.toml"),
    ("device enroll --cert device.pem --to gcp", 2, "'azure', 'aws' or 'local'"),
    ("device enroll --cert device.pem --to aws:", 2, "as 'aws:plant'"),
    ("device enroll --cert device.pem --to local --profile plant", 2, "if --to names no profile"),
    ("device enroll --cert device.pem --to azure:nope", 1, "profiles.toml"),
    ("device ls --profile nope --to aws", 1, "`birthmark device ls --to aws --profile local`"),
    ("device ls --to aws:nope", 1, "`birthmark device ls --to aws:local`"),
    ("device move x.json --from local --to azure:local", 2, "source and destination are the same: --from and --to"),
    ("demo factry", 2, "for 'scenario': 'factry' is not one of"),
    ("device enroll-group line-1", 2, "--ca-name NAME"),
    ("device enroll-group line-1 --cert device.pem", 1, "enroll.not_a_ca"),
    ("manifest verify hello.txt", 1, "manifest.malformed"),
    ("manifest verify random.bin", 1, "manifest.malformed"),
    ("manifest verify hello.txt --signer random.bin", 1, "random.bin"),
    ("manifest verify hello.txt --trust-root device.key", 2, "device.key is a private key; the certificate of the CA"),
    ("ca init --name X --dir hello.txt", 2, "is a file"),
    ("ca show --dir nowhere", 3, "--dir nowhere`"),
    ("ca sign nowhere.csr", 3, "nowhere.csr"),
    ("ca sign device.pem", 1, "not a certificate request"),
    ("ca issue web --cert-profile server --dns b@d", 2, "is not a DNS name"),
    ("ca issue x --lifetime year", 2, "365d"),
    ("device register", 2, '--key "$X509_KEY_FILE"'),
    ("device register --cert device.pem --key nowhere.key", 3, "nowhere.key"),
    ("device register --chip --ca-file nowhere.pem", 3, "--ca-file"),
    ("device register --chip --ca-file hello.txt", 1, "hello.txt"),
    ("device register --chip --transport amqp", 2, "'mqtt', 'https'"),
    ("chip ls --module nowhere.so", 5, "BIRTHMARK_PKCS11_MODULE"),
    ("chip ls --module hello.txt", 5, "cannot be loaded"),
    ("chip ls --pin-file hello.txt", 1, "chmod 0600 hello.txt"),
    ("chip prove --nonce 12345678 --check hello.txt", 1, "is not a proof"),
    ("chip simulate hello.txt", 2, "is a file"),
    ("agent check --root nowhere", 3, "birthmark env --format aziot"),
    ("agent check --config latin.toml", 2, "UTF-8"),
    ("agent check --config broken.toml", 2, "broken.toml:1"),
    ("pki user create x --any-name --password-file hello.txt", 1, "PIN or password"),
    ("pki manufacturer rm 12", 2, "64 hex digits"),
    ("pki revoke pump-1", 2, "`birthmark pki ls pump-1`"),
    ("pki revoke pump-1", 2, "`--device pump-1`"),
    ("pki revoke --device pump-1 --reason nonsense", 2, "'keyCompromise'"),
    (
        "hub configuration create fan --desired {} --rollout 10,100 --stop-percent 5",
        2,
        "the option applies with --stop-if",
    ),
    ("hub configuration set fan", 2, "nothing to change: specify --target"),
    ("hub job create day --desired {} --payload 1", 2, "the option applies with --method"),
    ("hub rm hub-2", 6, "`birthmark hub rm hub-2 --yes`"),
    ("pki revoke --device=", 2, "'--device': it is empty; its variable is not set"),
    ("ca revoke '' --dir ca", 2, "it is empty"),
    ("device revoke '' --yes", 2, "it is empty"),
    ("device move hello.txt --from azure --to aws --dry-run --journal move.journal", 2, "--journal"),
    ("device enroll --cert=", 2, "'--cert': it is empty; its variable is not set"),
    ("device register --cert= --key=", 2, "'--cert' (env var: 'X509_CERT_FILE'): it is empty"),
    ("device register --cert device.pem --key=", 2, "'--key' (env var: 'X509_KEY_FILE'): it is empty"),
    ("device enroll-list hello.txt --journal=", 2, "'--journal': it is empty"),
    ("ca crl --out=", 2, "it is empty"),
    ("manifest verify hello.txt --signer device.pem --signer=", 2, "'--signer': it is empty"),
    ("server audit verify --head=", 2, "'--head': it is empty"),
    ("hub ls --data=", 2, "'--data' (env var: 'BIRTHMARK_DATA'): it is empty"),
    ("serve --config nowhere.toml", 2, "nowhere.toml"),
    ("serve --config latin.toml", 2, "UTF-8"),
    ("serve --database mysql://me:hunter2@db/x", 2, "sqlite:/// or postgresql://"),
]


@pytest.fixture
def birthmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """Run a command line as the program does, in a directory with `FILES`."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o644)
    (tmp_path / "device.pem").write_text(a_device(a_ca()).certificate.pem())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("BIRTHMARK_DATA", "XDG_STATE_HOME", "PROVISIONING_HOST", "SSL_CERT_FILE", "SOFTHSM2_CONF"):
        monkeypatch.delenv(name, raising=False)

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["birthmark", *(word.replace("''", "") for word in line.split())])
        with pytest.raises(SystemExit) as left:
            app.main()
        out, err = capfd.readouterr()
        assert out == "", "an error is no result"
        return int(left.value.code or 0), err

    return run


@pytest.mark.parametrize("level", ["loud", "10"])
def test_a_level_of_logs_that_there_is_not_is_told(
    birthmark: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setenv("BIRTHMARK_LOG", level)
    code, told = birthmark("hub ls --data nowhere")
    assert (code, "BIRTHMARK_LOG is not a level: " in told, "`unset BIRTHMARK_LOG`" in told) == (2, True, True)


@pytest.mark.parametrize("level", ["", " ", "info ", "Debug"])
def test_a_level_of_logs_may_be_empty_and_in_any_case(
    birthmark: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setenv("BIRTHMARK_LOG", level)
    assert birthmark("hub ls --data nowhere")[0] == 5
    assert os.environ.get("BIRTHMARK_LOG", "") == level.strip().upper()


@pytest.mark.parametrize(("line", "code", "told"), MISTAKES, ids=[line for line, *_ in MISTAKES])
def test_a_mistake_is_explained(birthmark: Callable[[str], tuple[int, str]], line: str, code: int, told: str) -> None:
    exit_code, text = birthmark(line)
    assert exit_code == code, text
    assert told in text
    assert "Traceback" not in text
    assert "hunter2" not in text
    assert ".." not in text.replace("...", "")
    if exit_code != 2:
        assert {"Why:", "Fix:", "Code:"}.issubset(text.split())


def test_a_file_of_several_lines_is_no_password(birthmark: Callable[[str], tuple[int, str]]) -> None:
    for name in ("device.key", "device.pem", "broken.toml"):
        Path(name).write_text(f"{Path(name).read_text()}\nanother line\n")
        Path(name).chmod(0o600)
        for option in ("--password-file", "--current-file x --password-file", "--password-file x --current-file"):
            Path("x").write_text("four words by chance\n")
            Path("x").chmod(0o600)
            code, text = birthmark(f"user password otto {option} {name} --yes")
            assert (code, "keys.pin_file" in text, "more than one line" in text) == (1, True, True), text


def test_variables_are_swapped_only_where_the_file_came_from_one(
    birthmark: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ("device enroll --cert", "hub ca create k", "dps ca create k", "manifest verify hello.txt --signer")
    for line in (*lines, "login https://host.example --roots"):
        text = birthmark(f"{line} device.key")[1]
        assert "Fix: Give the certificate's file in the place of device.key." in text
        assert "X509" not in text
    monkeypatch.setenv("X509_CERT_FILE", "device.key")
    assert "export X509_CERT_FILE=" in birthmark("device enroll --cert device.key")[1]


def test_a_name_that_is_mended_leaves_the_rest_of_the_command_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["device", "revoke", "win-5\u00a0", "--to", "local", "--dry-run"]
    monkeypatch.setattr("sys.argv", ["birthmark", *words])
    found = machine_specific_hints.hint(DeviceNameUnseenError(name="win-5\u00a0"))
    assert found == "Without them: `birthmark device revoke win-5 --to local --dry-run`"


def test_programs_get_the_same_as_json(birthmark: Callable[[str], tuple[int, str]]) -> None:
    code, text = birthmark("device enroll --cert hello.txt --json")
    assert code == 1
    assert set(json.loads(text)) == {"error", "message", "cause", "fix"}


def test_a_place_that_cannot_be_written_is_named(birthmark: Callable[[str], tuple[int, str]]) -> None:
    ca_directory.create(Path("ca"), "X", now=SystemClock().now(), entropy=SystemEntropy())
    code, text = birthmark("ca crl --dir ca --out hello.txt/crl.pem")
    assert code == 1, text
    assert "hello.txt" in text
    assert "cli.file_unusable" in text


def test_a_home_that_cannot_be_written_hides_no_error(
    birthmark: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "hello.txt"))
    assert birthmark("ca show --dir nowhere")[0] == 3
    monkeypatch.delenv("HOME")
    assert birthmark("ca show --dir nowhere")[0] == 3


def test_trouble_that_is_no_file_s_is_not_hidden() -> None:
    assert file_trouble(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert file_trouble(BrokenPipeError(errno.EPIPE, "closed")) is None
    full = file_trouble(OSError(errno.ENOSPC, "No space left on device"))
    assert full is not None
    assert full.explain_cause() == "standard output cannot be used: no space left on device."


NOT_APPLICABLE = [
    "ca issue device-1 --dns device.example",
    "ca sign hello.txt --dns device.example",
    "device send hi --cert device.pem --key hello.txt --interval 1",
    "device register --chip --layout howto",
    "device connect --chip --replace-data",
    "chip show --object memory --layout howto",
    "chip simulate chip --chip generic --variant A",
    "chip write hello.txt --replace-data",
    "chip prove --nonce 12345678 --check hello.txt --pin-file hello.txt",
    "chip prove 0xF0000100 --nonce 12345678 --check hello.txt",
    "chip show 0xF0000100 --object memory",
    "chip write hello.txt --object memory --label x",
    "device enroll --cert device.pem --edge --to aws",
    "device enroll --cert device.pem --policy p",
    "device ls --profile cloud --data x",
    "env --registration-id x",
    "pki user create x --any-name --ask --password-file hello.txt",
    "agent stop --config hello.txt",
]


@pytest.mark.parametrize("line", NOT_APPLICABLE)
def test_an_option_that_does_not_apply_is_wrong_usage(birthmark: Callable[[str], tuple[int, str]], line: str) -> None:
    code, text = birthmark(line)
    assert (code, "cli.option_not_applicable" in text) == (2, True), text


def test_a_mistake_of_usage_is_json_for_programs_too(birthmark: Callable[[str], tuple[int, str]]) -> None:
    code, text = birthmark("hub ls --nosuch --json")
    assert code == 2
    assert json.loads(text)["error"] == "cli.command_line"


@pytest.mark.parametrize("line", ["-h", "enroll -h", "device enroll -h"])
def test_h_is_help(line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["birthmark", *(word.replace("''", "") for word in line.split())])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == 0
    assert "Usage:" in capfd.readouterr().out


def test_a_mark_before_json_that_the_shell_put_there_is_none_of_it() -> None:
    assert json_of('\ufeff{"speed": 1}', "--desired") == {"speed": 1}


def test_a_typographic_quotation_mark_in_json_is_named() -> None:
    with pytest.raises(typer.BadParameter, match=r"U\+201C \(left double quotation mark\) at character 2"):
        json_of("{\u201cspeed\u201d: 1}", "--desired")


def test_a_key_that_an_object_has_twice_is_named() -> None:
    for text in ('{"Effect": "Deny", "Effect": "Allow"}', '[{"a": {"Effect": 1, "b": 2, "Effect": 1}}]'):
        with pytest.raises(typer.BadParameter, match='an object has the key "Effect" twice'):
            json_of(text, "--policy")


def test_a_template_is_measured_before_it_is_sent(birthmark: Callable[[str], tuple[int, str]]) -> None:
    Path("big.json").write_text(json.dumps({"Parameters": {}, "x": "y" * 3_000_000}))
    code, text = birthmark("aws template create TB big.json")
    assert (code, "it has more than 10240 characters" in text) == (1, True), text
    Path("twice.json").write_text('{"Parameters": {}, "Parameters": {}}')
    assert 'the key "Parameters" twice' in birthmark("aws template create TB twice.json")[1]


@pytest.mark.parametrize("wrap", ["\u200e{}", "{} ", "{}\n", "\ufeff{}"])
def test_a_thumbprint_is_taken_as_windows_copies_it(wrap: str) -> None:
    pairs = " ".join(["AB"] * 32)
    assert parse_issued(wrap.format(pairs)) == "ab" * 32


def test_what_is_no_thumbprint_is_told_as_before() -> None:
    with pytest.raises(typer.BadParameter, match="64 hex digits"):
        parse_issued("device-1")


def test_a_setting_that_ends_as_a_line_of_windows_is_told_and_makes_no_other_directory(
    birthmark: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BIRTHMARK_DATA", f"{tmp_path}/data\r")
    code, text = birthmark("hub ls")
    assert (code, "BIRTHMARK_DATA ends with CR" in text) == (2, True)
    assert 'export BIRTHMARK_DATA="${BIRTHMARK_DATA%?}"' in text


@pytest.mark.parametrize("number", ["1e400", "-1e999", "Infinity"])
def test_a_number_that_no_program_reads_is_told_in_its_file(number: str) -> None:
    with pytest.raises(
        typer.BadParameter, match=r"the content of x\.json is not JSON: (the number |.* is not a JSON number)"
    ):
        json_of(f'{{"a": {number}}}', "the content of x.json")
