"""Variables left from another server, and CAs that are not where a variable says."""

from collections.abc import Iterator, Sequence
from functools import partial

from birthmark.doctor.facts import PathFacts, ServerFacts, TrustFacts
from birthmark.doctor.model import DoctorFinding, FindingSeverity, Topic


def of_another_server(server: ServerFacts) -> Iterator[DoctorFinding]:
    """Return that variables do not fit the server that is meant."""
    if not server.foreign:
        return
    told = "; ".join(f"{one.name}{f'={one.value}' if one.value else ''}{one.whose}" for one in server.foreign)
    yield DoctorFinding(
        "doctor.environment_of_another_server",
        Topic.ENVIRONMENT,
        FindingSeverity.FAULT,
        f"{told}; the server meant is that of {server.data}",
        cause="Variables are left from another server: programs ask this one by another's names, secrets or CAs.",
        command=server.env,
        advice="Set them all anew",
    )


def not_set_up(server: ServerFacts) -> Iterator[DoctorFinding]:
    """Return that a server runs here of which this shell knows nothing, as a new terminal."""
    if server.is_served and not server.is_known_to_shell:
        yield DoctorFinding(
            "doctor.shell_not_set_up",
            Topic.ENVIRONMENT,
            FindingSeverity.NOTE,
            f"a server runs on {server.data}, and no variable names it",
            cause="This shell knows nothing of the server of this machine: SDKs and cloud tools ask elsewhere.",
            command=server.env,
            advice="To use that server from here",
        )


def paths(every: Sequence[PathFacts]) -> Iterator[DoctorFinding]:
    """Return which variables name a library, a store or a directory that is not there."""
    for one in every:
        if one.file.exists:
            continue
        yield DoctorFinding(
            "doctor.path_missing",
            Topic.OPENSSL,
            FindingSeverity.FAULT,
            f"{one.setting}: {one.file.reason or 'no such file'}",
            cause=f"{one.setting.name} names what is not there, and programs that read it find nothing.",
            command=one.setting.to(one.instead) if one.instead else one.setting.away(),
            advice="Name one that is there" if one.instead else "Take the program's own default",
        )


def trust(seen: Sequence[TrustFacts], server: ServerFacts | None) -> Iterator[DoctorFinding]:
    """Return which variables name CAs that are not there. Many programs then trust nobody, and do not say why."""
    for one in seen:
        fault = partial(DoctorFinding, topic=Topic.TRUST, severity=FindingSeverity.FAULT)
        by_server = server is not None and server.is_served
        command = server.env if server is not None and by_server else one.setting.away()
        advice = "Set it to the server's own" if by_server else "Trust the system's CAs again"
        if not one.file.exists or one.file.reason:
            yield fault(
                "doctor.trust_missing",
                seen=f"{one.setting}: {one.file.reason or 'no such file'}",
                cause="The CAs to trust cannot be read: no server is believed.",
                command=command,
                advice=advice,
            )
        elif not one.certificates:
            yield fault(
                "doctor.trust_empty",
                seen=f"{one.setting}: it holds no certificate",
                cause="The file of CAs to trust has none: no server is believed.",
                command=command,
                advice=advice,
            )
        else:
            yield DoctorFinding(
                "doctor.trust", Topic.TRUST, FindingSeverity.OK, f"{one.setting}: {one.certificates} certificates"
            )
