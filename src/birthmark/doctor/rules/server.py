"""A server's data directory: whether it is served, and whether others can read what is private."""

import shlex
from collections.abc import Iterator

from birthmark.doctor.facts import ServerSeen
from birthmark.doctor.model import Finding, Severity, Topic


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
            cause="The server's database does not answer: nobody registers, and the state of no device is known.",
            advice="Start the database again; the server goes on by itself as soon as it answers",
            for_a_person="another server has to be put right",
        )
    elif seen.is_served:
        yield Finding("doctor.server", Topic.SERVER, Severity.OK, f"a server runs on {seen.data}")
    elif seen.setting is not None:
        yield _not_served(seen)


def _not_served(seen: ServerSeen) -> Finding:
    where = "no server runs on it" if seen.has_run else "no server has run on it"
    start = f"birthmark serve --data {shlex.quote(seen.data)} &"
    other = seen.setting.to(seen.others[0]) if seen.others and seen.setting is not None else ""
    return Finding(
        "operator.server_not_running",
        Topic.SERVER,
        Severity.FAULT,
        f"{seen.setting}: {where}",
        cause=f"No Birthmark server answers for the data directory {seen.data}.",
        command=other or start,
        advice=f"A server runs for another directory; to start one here, `{start}`. Use that" if other else "Start it",
    )
