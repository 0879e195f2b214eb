"""What an earlier release left, opened by this one."""

import contextlib
import fcntl
import io
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from birthmark.est import wire
from birthmark.pki.certificates import parse_pem
from birthmark.store import schema_migration
from support.server.servers import RunningServer, clean_environment

_WITH_PATHS = ("agent/etc", "agent/var", "run.journal", "data/database.json")
_LONG_S = 10**9


def unpacked(version: str, directory: Path) -> Path:
    """Unpack the archive of a release, whose paths are `directory` from then on."""
    archive = Path(__file__).parents[2] / "upgrade" / f"{version}.tar.gz"
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(directory), "--no-same-owner"], check=True)
    (directory / "data").chmod(0o700)
    for place in _WITH_PATHS:
        for path in [directory / place, *(directory / place).rglob("*")]:
            if path.is_file():
                path.write_bytes(path.read_bytes().replace(b"@HERE@", str(directory).encode()))
    return directory


@contextlib.contextmanager
def alone_at(directory: Path) -> Iterator[str]:
    """Wait until nobody else has the address that a release's archive names, and have it."""
    address = str(json.loads((directory / "facts.json").read_text())["address"])
    with (Path(tempfile.gettempdir()) / f"birthmark-test-{address}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield address


def started(directory: Path, data: str = "data") -> RunningServer:
    """Start a server on a data directory of then, at the address of then."""
    address = json.loads((directory / "facts.json").read_text())["address"]
    config = directory / "birthmark.toml"  # the archive is older than the day that messages are kept
    config.write_text(f"[telemetry]\nkeep_s = {_LONG_S}\n")
    return RunningServer(directory / data, address, config).start()


def documents_are_what_they_were(server: RunningServer) -> None:
    """Look at a twin and a shadow of version 0.2.0's archive."""
    (twin,) = server.rows("hub", "twin", "by-group")
    assert (twin["properties"]["desired"]["interval"], twin["tags"]) == (5, {"plant": "north"})
    (shadow,) = server.rows("aws", "shadow", "thing")
    assert shadow["state"]["desired"] == {"interval": 7}


def the_lost_device_stays_out(server: RunningServer, directory: Path) -> None:
    """Have the device of that archive try that was taken back."""
    files = ["--cert", str(directory / "lost.cert.pem"), "--key", str(directory / "lost.key.pem")]
    assert server.attempt("device", "register", *files, **server.environment).returncode != 0
    assert server.why("lost")["code"] == "dps.device_taken_back"


def send(server: RunningServer, directory: Path, name: str) -> None:
    """Have a device of then register again, and send."""
    files = ["--cert", str(directory / f"{name}.cert.pem"), "--key", str(directory / f"{name}.key.pem")]
    server.run("device", "send", "after the upgrade", *files, **server.environment)


def post(server: RunningServer, directory: Path, operation: str, csr: bytes, *more: str) -> int:
    body = directory / "csr.b64"
    body.write_bytes(wire.render_csr(csr))
    command = ["curl", "-sS", "--cacert", str(server.data / "trust.pem"), "-H", "Content-Type: application/pkcs10"]
    command += ["-o", "/dev/null", "-w", "%{http_code}", "--data-binary", f"@{body}", *more]
    done = subprocess.run(
        [*command, f"{server.endpoints['est']['url']}/{operation}"],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(),
    )
    return int(done.stdout)


def renewed(server: RunningServer, directory: Path, name: str) -> int:
    """Renew a certificate of then over EST, with its own key; return the status."""
    pem = "-----BEGIN PKCS7-----\n" + (directory / f"{name}.p7").read_text().strip() + "\n-----END PKCS7-----\n"
    command = ["openssl", "pkcs7", "-print_certs"]
    leaf = subprocess.run(command, input=pem, capture_output=True, text=True, check=True).stdout
    (directory / f"{name}.cert.pem").write_text(parse_pem(leaf[leaf.index("-----BEGIN") :]).pem())
    shown = ["--cert", str(directory / f"{name}.cert.pem"), "--key", str(directory / f"{name}.key.pem")]
    return post(server, directory, "simplereenroll", request_of(directory, name, f"/O=Old/CN={name}"), *shown)


def request_of(directory: Path, name: str, subject: str) -> bytes:
    """Return a request (DER) by a key of then."""
    command = ["openssl", "req", "-new", "-key", str(directory / f"{name}.key.pem"), "-subj", subject]
    return subprocess.run([*command, "-outform", "DER"], capture_output=True, check=True).stdout


def script_of_0_1_0() -> str:
    """Return PostgreSQL's SQL of the first schema, as version 0.1.0 ran it."""
    config = Config()
    for option in ("script_location", "version_locations"):
        config.set_main_option(option, str(Path(schema_migration.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    first = ScriptDirectory.from_config(config).get_revision("0001")
    assert first is not None
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer, "literal_binds": True}
    )
    with Operations.context(context):
        first.module.upgrade()
    version = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
    return f"{version};\n{buffer.getvalue()}\nINSERT INTO alembic_version VALUES ('0001');"
