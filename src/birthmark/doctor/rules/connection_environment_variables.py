"""Rules for variables of another server, and for CA files that do not exist."""

from collections.abc import Iterator, Sequence
from functools import partial

from birthmark.doctor.facts import PathFacts, ServerFacts, TrustFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic


def of_another_server(server: ServerFacts) -> Iterator[DoctorFinding]:
    """Yield findings about variables that do not match the server in use."""
    if not server.foreign:
        return
    told = "; ".join(f"{one.name}{f'={one.value}' if one.value else ''}{one.whose}" for one in server.foreign)
    yield DoctorFinding(
        "doctor.environment_of_another_server",
        Topic.ENVIRONMENT,
        FindingSeverity.FAULT,
        f"{told}; the intended server uses {server.data}",
        cause="Some variables belong to another server, so that programs use the wrong names, secrets or CAs.",
        command=server.env,
        advice="Set all variables again",
    )


def not_set_up(server: ServerFacts) -> Iterator[DoctorFinding]:
    """Yield the finding that this shell has no variables for a server that runs here, as in a new terminal."""
    if server.is_served and not server.is_known_to_shell:
        yield DoctorFinding(
            "doctor.shell_not_set_up",
            Topic.ENVIRONMENT,
            FindingSeverity.NOTE,
            f"a server runs on {server.data}, and no variable refers to it",
            cause="This shell has no settings for this machine's server: SDKs and cloud tools use other endpoints.",
            command=server.env,
            advice="To use that server in this shell",
        )


def paths(every: Sequence[PathFacts]) -> Iterator[DoctorFinding]:
    """Yield findings about variables that name a missing library, store or directory."""
    for one in every:
        if one.file.exists:
            continue
        yield DoctorFinding(
            "doctor.path_missing",
            Topic.OPENSSL,
            FindingSeverity.FAULT,
            f"{one.setting}: {one.file.reason or 'no such file'}",
            cause=f"{one.setting.name} refers to a missing file, and programs that read it fail.",
            command=one.setting.set_command(one.instead) if one.instead else one.setting.unset_command(),
            advice="Use an existing file" if one.instead else "Use the program's default",
        )


def trust(facts: Sequence[TrustFacts], server: ServerFacts | None) -> Iterator[DoctorFinding]:
    """Yield findings about variables that name missing CAs. Many programs then trust no server, without an error."""
    for one in facts:
        fault = partial(DoctorFinding, topic=Topic.TRUST, severity=FindingSeverity.FAULT)
        by_server = server is not None and server.is_served
        command = server.env if server is not None and by_server else one.setting.unset_command()
        advice = "Use the server's file" if by_server else "Trust the system's CAs again"
        if not one.file.exists or one.file.reason:
            yield fault(
                "doctor.trust_missing",
                seen=f"{one.setting}: {one.file.reason or 'no such file'}",
                cause="The trusted CAs cannot be read: no server is trusted.",
                command=command,
                advice=advice,
            )
        elif not one.certificates:
            yield fault(
                "doctor.trust_empty",
                seen=f"{one.setting}: no certificate in the file",
                cause="The trusted CA file contains no certificate: no server is trusted.",
                command=command,
                advice=advice,
            )
        else:
            yield DoctorFinding(
                "doctor.trust", Topic.TRUST, FindingSeverity.OK, f"{one.setting}: {one.certificates} certificates"
            )
