"""Rules for a server of this machine: its state, database and certificate, and private files that others can read."""

import shlex
from collections.abc import Iterator

from birthmark.doctor.facts import ServerFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic

_SOON_DAYS = 14


def findings(facts: ServerFacts) -> Iterator[DoctorFinding]:
    """Yield the problems of the server of a data directory."""
    for file in facts.exposed:
        yield DoctorFinding(
            "doctor.private_file_exposed",
            Topic.SERVER,
            FindingSeverity.WARNING,
            f"{file.path}: mode {file.mode:04o}",
            cause="Other users can read a key or a token of the server.",
            command=shlex.join(["chmod", "0600", file.path]),
            advice="Close it",
            about=file.path,
        )
    if facts.has_database is False:
        yield DoctorFinding(
            "doctor.database_away",
            Topic.SERVER,
            FindingSeverity.FAULT,
            f"a server runs on {facts.data} and reports that its database is not available",
            cause=(
                "Reads or writes of the server's database fail: devices cannot register, and telemetry is rejected."
            ),
            advice="Start the database, or free space on its disk (`df -h`); the server then continues automatically",
            for_a_person="the database server has to be fixed",
        )
    elif facts.certificate_trouble:
        yield _of_certificate(
            facts,
            "doctor.server_certificate_not_taken",
            FindingSeverity.FAULT,
            f"the configured certificate is not in use: {facts.certificate_trouble}",
            "New connections get the earlier certificate, and the server could not restart",
        )
    elif facts.certificate_days is not None and facts.certificate_days < _SOON_DAYS:
        yield _of_certificate(
            facts,
            "doctor.server_certificate_ends",
            FindingSeverity.FAULT if facts.certificate_days < 0 else FindingSeverity.WARNING,
            f"it expires {facts.certificate_until}",
            "Devices cannot connect after it has expired",
        )
    elif facts.as_owner:
        yield DoctorFinding(
            "operator.data_directory_closed",
            Topic.SERVER,
            FindingSeverity.FAULT,
            f"this user cannot read {facts.data}",
            cause=f"This user does not have permission to read the data directory {facts.data}.",
            command=facts.as_owner,
            advice="Run the command as its owner",
        )
    elif facts.is_served:
        yield DoctorFinding("doctor.server", Topic.SERVER, FindingSeverity.OK, f"a server runs on {facts.data}")
    elif facts.setting is not None:
        yield _not_served(facts)


def _of_certificate(
    facts: ServerFacts, code: str, severity: FindingSeverity, message: str, cause: str
) -> DoctorFinding:
    return DoctorFinding(
        code,
        Topic.SERVER,
        severity,
        f"the certificate of the server on {facts.data}: {message}",
        cause=f"{cause}.",
        advice=(
            "Write a certificate for its names, and its key, to the two files of `[server]`; the server reloads them"
        ),
        for_a_person="its CA has to issue a certificate",
    )


def _not_served(facts: ServerFacts) -> DoctorFinding:
    where = "no server runs on it" if facts.has_run else "no server has run on it"
    other = facts.setting.set_command(facts.others[0]) if facts.others and facts.setting is not None else ""
    return DoctorFinding(
        "operator.server_not_running",
        Topic.SERVER,
        FindingSeverity.FAULT,
        f"{facts.setting}: {where}",
        cause=f"No Birthmark server responds for the data directory {facts.data}.",
        command=other or facts.start,
        advice=f"A server runs for another directory; to start one here, `{facts.start}`. Use the running server"
        if other
        else "Start it",
    )
