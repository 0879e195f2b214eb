"""Errors that prevent a swarm from starting. Errors of devices are in the packages of their protocols."""

from pathlib import Path

from birthmark import atomic_files
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError


class IdentityMissingError(NotFoundError):
    """A device has no key and certificate."""

    code = "swarm.identity_missing"
    cause = '{path} does not exist, but `from = "files"` requires existing keys and certificates.'
    fix = "Create the missing keys and certificates during the run: `{again} --from ca`"
    again: str = ""
    path: Path


class DirectoryForeignError(ConflictError):
    """The directory contains identities from another source."""

    code = "swarm.directory_foreign"
    cause = "{directory} contains identities from {found}, but this run needs identities from {wanted}."
    fix = "Move the directory: `mv -nT {directory} {aside}`. The run then creates a new directory."
    directory: Path
    found: str
    wanted: str

    @property
    def aside(self) -> Path:
        """Free path to which the directory can be moved."""
        return atomic_files.backup_path(self.directory)


class DirectoryOpenError(PolicyError):
    """Other users can write to the directory of identities."""

    code = "swarm.directory_open"
    cause = "Other users can write to {directory} (mode {mode}, user {owner}) and could replace the devices' keys."
    fix = (
        "Check that all files in the directory are yours: `ls -l {directory}`. Then restrict the permissions: `chown "
        '-R "$(id -u)" {directory} && chmod go-w {directory}`'
    )
    directory: Path
    mode: str
    owner: int


class DirectoryInUseError(ConflictError):
    """Another run uses these devices."""

    code = "swarm.directory_in_use"
    cause = "Another run uses the keys and certificates of {directory}; two runs would disconnect each other's devices."
    fix = "Wait until the other run ends, or use other identities: `{again} --identities {directory}-2`"
    again: str = ""
    directory: Path


class DescriptorsShortError(PolicyError):
    """The limit of open files is too low for the devices."""

    code = "swarm.descriptors_short"
    cause = "{devices} devices need {wanted} open files, but this process can open at most {allowed} files."
    fix = "Run the command as root with a higher limit: `prlimit --nofile={wanted}:{wanted} {again}`"
    again: str = ""
    allowed: int
    devices: int
    wanted: int


class ReportInvalidError(InvalidRequestError):
    """The file is not a swarm report."""

    code = "swarm.report_invalid"
    cause = "{path} is not a swarm report in JSON: {detail}."
    fix = "Create a report: `birthmark swarm run --devices 10 --to local --duration 10s --report run.json`"
    detail: str
    path: Path


class TargetNotNamedError(InvalidRequestError):
    """The target of the devices is not specified."""

    code = "swarm.target_not_named"
    cause = "The target {where} requires {what}, which is not specified."
    fix = "Set the value with {option}. To print the value: `{command}`"
    command: str
    option: str
    what: str
    where: str
