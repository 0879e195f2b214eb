"""The test kit as somebody has it: a directory of their own, the plugin that is installed, and nothing of ours."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
SUITES = Path(__file__).parents[1] / "kit"
VENDORS_WARN = ("-W", "ignore::DeprecationWarning")
"""azure-iot-device names a constant of ssl that is to go."""


def in_a_directory_of_their_own(
    directory: Path, *suites: str, options: tuple[str, ...] = (), before: tuple[str, ...] = (), **more: str
) -> "subprocess.CompletedProcess[str]":
    for suite in suites:
        shutil.copy(SUITES / f"suite_{suite}.py", directory / f"test_{suite}.py")
    foreign = ("PYTEST_", "BIRTHMARK_", "AWS_", "SSL_CERT", "REQUESTS_CA", "CURL_CA", "COV_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        [*before, sys.executable, "-m", "pytest", "-q", *VENDORS_WARN, *options],
        cwd=directory,
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def passed(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_a_suite_passes_in_one_process_where_each_test_has_a_cloud_as_new(tmp_path: Path) -> None:
    passed(in_a_directory_of_their_own(tmp_path, "azure"))


def test_every_suite_passes_with_eight_workers_at_a_time(tmp_path: Path) -> None:
    suites = ("azure", "aws", "chips", "faults", "workers")
    passed(in_a_directory_of_their_own(tmp_path, *suites, options=("-n", "8")))
    hosts: dict[str, set[str]] = {}
    for file in tmp_path.glob("*.host"):
        hosts.setdefault(file.name.partition("-")[0], set()).add(file.read_text())
    assert all(len(of_worker) == 1 for of_worker in hosts.values())
    assert len(set.union(*hosts.values())) == len(hosts) > 1


def test_a_test_that_ends_badly_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    passed(in_a_directory_of_their_own(tmp_path, "rude"))


CONFIG = """
import pytest

@pytest.fixture(scope="session")
def birthmark_config():
    return 'nonsense = 1'

def test_it(birthmark_cloud):
    pass
"""


def test_tests_configure_their_cloud(tmp_path: Path) -> None:
    passed(in_a_directory_of_their_own(tmp_path, "configured"))


def test_who_configures_it_wrongly_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(CONFIG)
    done = in_a_directory_of_their_own(tmp_path)
    assert done.returncode == 1
    assert "nonsense is not known" in done.stdout


def test_a_configuration_that_is_no_text_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(CONFIG.replace("'nonsense = 1'", "{'outbound': {}}"))
    done = in_a_directory_of_their_own(tmp_path)
    assert done.returncode == 1
    assert "birthmark_config must return TOML as text, not {'outbound': {}}" in done.stdout


def test_a_proxy_of_the_machine_is_not_asked_for_the_cloud_of_a_test(tmp_path: Path) -> None:
    none = "http://127.0.0.1:9"
    bypassed = "localhost,127.0.0.1"
    passed(in_a_directory_of_their_own(tmp_path, "proxied", https_proxy=none, http_proxy=none, NO_PROXY=bypassed))


THING = """
def test_a_thing_connects(aws_thing):
    assert aws_thing.cloud.endpoints["dps"]["https_port"] != 443
    connection = aws_thing.connection()
    connection.connect().result(10)
    connection.disconnect().result(10)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do without a right")
def test_a_thing_connects_where_nobody_may_bind_443(tmp_path: Path) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 443:
        pytest.skip("everybody may bind 443 here")
    (tmp_path / "test_it.py").write_text(THING)
    without = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    passed(in_a_directory_of_their_own(tmp_path, before=without))


def test_nothing_is_loaded_or_started_where_nobody_asks_for_it(tmp_path: Path) -> None:
    """The plugin is there in every run of pytest on the machine."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n    loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'cryptography', 'sqlalchemy', 'azure', 'awscrt', 'boto3', 'msgspec'}\n"
    )
    passed(in_a_directory_of_their_own(tmp_path))


def test_a_test_says_which_package_is_missing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['msgspec'] = None\n")
    (tmp_path / "test_it.py").write_text("def test_it(birthmark_cloud):\n    pass\n")
    done = in_a_directory_of_their_own(tmp_path)
    assert done.returncode == 1
    assert "pip install 'birthmark[pytest]'" in done.stdout
    assert "msgspec is missing" in done.stdout


def test_the_samples_that_ship_inside_the_vendors_packages_run_unmodified(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    for name in ("paho-mqtt", "AWSIoTPythonSDK"):
        wanted = f"{name}=={version(name)}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", wanted]
        if subprocess.run([*command, "-d", samples], capture_output=True, check=False).returncode != 0:
            pytest.skip(f"the source package of {name} is not to be had here")
    for package in samples.glob("*.tar.gz"):
        subprocess.run(["tar", "-xzf", str(package), "-C", str(samples), "--no-same-owner"], check=True)
    programs = str(SUITES.parent / "node" / "node_modules" / ".bin")
    passed(in_a_directory_of_their_own(tmp_path, "samples", SAMPLES=str(samples), NODE_PROGRAMS=programs))


def test_the_report_of_a_failed_test_has_what_the_server_refused(tmp_path: Path) -> None:
    told = in_a_directory_of_their_own(tmp_path, "reports").stdout
    before, section, *others = told.split("Birthmark refused")
    assert others == []  # the tests without a refusal, and the one that passed, have no such section
    assert "test_that_fails " in before
    assert all(word in section.partition("____")[0] for word in ("pki.certificate_expired", "Why:", "Fix:", "Facts:"))


def test_a_wait_for_messages_of_a_device_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert "device nobody does not exist" in in_a_directory_of_their_own(tmp_path, "reports").stdout
