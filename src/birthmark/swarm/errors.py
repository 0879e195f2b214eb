"""What a swarm refuses before it begins. What a target refuses its devices is in the rooms of their protocols."""

from pathlib import Path

from birthmark import atomic_files
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError


class IdentityMissingError(NotFoundError):
    """A device has no key and certificate, and nobody makes them."""

    code = "swarm.identity_missing"
    cause = 'There is no {path}, and `from = "files"` says that keys and certificates are there already.'
    fix = "Let the run make those that are missing: `{again} --from ca`"
    again: str = ""
    path: Path


class DirectoryForeignError(ConflictError):
    """The directory of identities is of another kind."""

    code = "swarm.directory_foreign"
    cause = "{directory} holds identities from {found}, and this run wants them from {wanted}."
    fix = "Move it away: `mv -nT {directory} {aside}`. The run makes another."
    directory: Path
    found: str
    wanted: str

    @property
    def aside(self) -> Path:
        """Where it may go."""
        return atomic_files.aside(self.directory)


class DirectoryOpenError(PolicyError):
    """Others may write to the directory of identities."""

    code = "swarm.directory_open"
    cause = (
        "Others may write to {directory} (mode {mode}, user {owner}): who does decides which keys these devices have."
    )
    fix = (
        "See whether all in it is yours, `ls -l {directory}`, and close it: "
        '`chown -R "$(id -u)" {directory} && chmod go-w {directory}`'
    )
    directory: Path
    mode: str
    owner: int


class DirectoryInUseError(ConflictError):
    """Another run drives these devices."""

    code = "swarm.directory_in_use"
    cause = "Another run has the keys and certificates of {directory}; two would push each other's devices out."
    fix = "Wait for its end, or use others: `{again} --identities {directory}-2`"
    again: str = ""
    directory: Path


class DescriptorsShortError(PolicyError):
    """This process may not hold so many connections."""

    code = "swarm.descriptors_short"
    cause = "{devices} devices need {wanted} open files, and this process may have {allowed}."
    fix = "Run it with a higher limit, as root: `prlimit --nofile={wanted}:{wanted} {again}`"
    again: str = ""
    allowed: int
    devices: int
    wanted: int


class ReportInvalidError(InvalidRequestError):
    """That is no report of a swarm."""

    code = "swarm.report_invalid"
    cause = "{path} is no report of a swarm in JSON: {detail}."
    fix = "Make one: `birthmark swarm run --devices 10 --to local --duration 10s --report run.json`"
    detail: str
    path: Path


class TargetNotNamedError(InvalidRequestError):
    """It is not said where the devices go."""

    code = "swarm.target_not_named"
    cause = "For the target {where}, {what} is not known."
    fix = "Name it with {option}. This tells it: `{command}`"
    command: str
    option: str
    what: str
    where: str
