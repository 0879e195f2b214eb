"""A server's data directory: whether it is served, and whether others can read what is private."""

import shlex
from collections.abc import Iterator

from birthmark.doctor.facts import ServerSeen
from birthmark.doctor.model import Finding, Severity, Topic

_SOON_DAYS = 14


def findings(seen: ServerSeen) -> Iterator[Finding]:
    """Return what is wrong with the server of a data directory."""
    for file in seen.exposed:
        yield Finding(
            "doctor.private_file_exposed",
            Topic.SERVER,
            Severity.WARNING,
            f"{file.path}: mode {file.mode:04o}",
            cause="Others can read a key or a token of the server.",
            command=shlex.join(["chmod", "0600", file.path]),
            advice="Close it",
            about=file.path,
        )
    if seen.has_database is False:
        yield Finding(
            "doctor.database_away",
            Topic.SERVER,
            Severity.FAULT,
            f"a server runs on {seen.data}, and says that its database is away",
            cause="The server's database takes no reads or no writes: nobody registers, and no telemetry is taken.",
            advice="Start the database again, or make room on its disk (`df -h`); the server goes on by itself then",
            for_a_person="another server has to be put right",
        )
    elif seen.certificate_trouble:
        yield _of_certificate(
            seen,
            "doctor.server_certificate_not_taken",
            Severity.FAULT,
            f"what is configured now is not served: {seen.certificate_trouble}",
            "New connections get the one before, and the server would not start again",
        )
    elif seen.certificate_days is not None and seen.certificate_days < _SOON_DAYS:
        yield _of_certificate(
            seen,
            "doctor.server_certificate_ends",
            Severity.FAULT if seen.certificate_days < 0 else Severity.WARNING,
            f"it ends {seen.certificate_until}",
            "No device connects any more when it has ended",
        )
    elif seen.as_owner:
        yield Finding(
            "operator.data_directory_closed",
            Topic.SERVER,
            Severity.FAULT,
            f"{seen.data} is closed to this user",
            cause=f"This user may not read the data directory {seen.data}.",
            command=seen.as_owner,
            advice="Do it as its owner",
        )
    elif seen.is_served:
        yield Finding("doctor.server", Topic.SERVER, Severity.OK, f"a server runs on {seen.data}")
    elif seen.setting is not None:
        yield _not_served(seen)


def _of_certificate(seen: ServerSeen, code: str, severity: Severity, what: str, cause: str) -> Finding:
    return Finding(
        code,
        Topic.SERVER,
        severity,
        f"the certificate of the server on {seen.data}: {what}",
        cause=f"{cause}.",
        advice="Put a certificate for its names, and its key, into the two files of `[server]`: the server takes them",
        for_a_person="a certificate has to be got from its CA",
    )


def _not_served(seen: ServerSeen) -> Finding:
    where = "no server runs on it" if seen.has_run else "no server has run on it"
    other = seen.setting.to(seen.others[0]) if seen.others and seen.setting is not None else ""
    return Finding(
        "operator.server_not_running",
        Topic.SERVER,
        Severity.FAULT,
        f"{seen.setting}: {where}",
        cause=f"No Birthmark server answers for the data directory {seen.data}.",
        command=other or seen.start,
        advice=f"A server runs for another directory; to start one here, `{seen.start}`. Use that"
        if other
        else "Start it",
    )
