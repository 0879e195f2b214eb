"""A server's data directory: whether it is served, and whether others can read what is private."""

import shlex
from collections.abc import Iterator

from birthmark.doctor.facts import ServerFacts
from birthmark.doctor.model import DoctorFinding, FindingSeverity, Topic

_SOON_DAYS = 14


def findings(seen: ServerFacts) -> Iterator[DoctorFinding]:
    """Return what is wrong with the server of a data directory."""
    for file in seen.exposed:
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
    if seen.has_database is False:
        yield DoctorFinding(
            "doctor.database_away",
            Topic.SERVER,
            FindingSeverity.FAULT,
            f"a server runs on {seen.data} and reports that its database is not available",
            cause=(
                "Reads or writes of the server's database fail: devices cannot register, and telemetry is rejected."
            ),
            advice="Start the database, or free space on its disk (`df -h`); the server then continues automatically",
            for_a_person="the database server has to be fixed",
        )
    elif seen.certificate_trouble:
        yield _of_certificate(
            seen,
            "doctor.server_certificate_not_taken",
            FindingSeverity.FAULT,
            f"the configured certificate is not in use: {seen.certificate_trouble}",
            "New connections get the earlier certificate, and the server could not restart",
        )
    elif seen.certificate_days is not None and seen.certificate_days < _SOON_DAYS:
        yield _of_certificate(
            seen,
            "doctor.server_certificate_ends",
            FindingSeverity.FAULT if seen.certificate_days < 0 else FindingSeverity.WARNING,
            f"it expires {seen.certificate_until}",
            "Devices cannot connect after it has expired",
        )
    elif seen.as_owner:
        yield DoctorFinding(
            "operator.data_directory_closed",
            Topic.SERVER,
            FindingSeverity.FAULT,
            f"this user cannot read {seen.data}",
            cause=f"This user does not have permission to read the data directory {seen.data}.",
            command=seen.as_owner,
            advice="Run the command as its owner",
        )
    elif seen.is_served:
        yield DoctorFinding("doctor.server", Topic.SERVER, FindingSeverity.OK, f"a server runs on {seen.data}")
    elif seen.setting is not None:
        yield _not_served(seen)


def _of_certificate(seen: ServerFacts, code: str, severity: FindingSeverity, what: str, cause: str) -> DoctorFinding:
    return DoctorFinding(
        code,
        Topic.SERVER,
        severity,
        f"the certificate of the server on {seen.data}: {what}",
        cause=f"{cause}.",
        advice=(
            "Write a certificate for its names, and its key, to the two files of `[server]`; the server reloads them"
        ),
        for_a_person="its CA has to issue a certificate",
    )


def _not_served(seen: ServerFacts) -> DoctorFinding:
    where = "no server runs on it" if seen.has_run else "no server has run on it"
    other = seen.setting.to(seen.others[0]) if seen.others and seen.setting is not None else ""
    return DoctorFinding(
        "operator.server_not_running",
        Topic.SERVER,
        FindingSeverity.FAULT,
        f"{seen.setting}: {where}",
        cause=f"No Birthmark server responds for the data directory {seen.data}.",
        command=other or seen.start,
        advice=f"A server runs for another directory; to start one here, `{seen.start}`. Use the running server"
        if other
        else "Start it",
    )
