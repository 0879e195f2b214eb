"""Root rollover rules: which step, forward or back, is allowed now. Pure; the inputs are measured.

    A alone  ->  both trusted, A signs  ->  both trusted, B signs  ->  B alone

Clients that trust only A remain connected. While both are trusted, servers and devices present a certificate of B's key
by A (NewWithOld, RFC 4210 section 4.4) together with certificates signed by B. A device that reconnects after the end
needs B installed manually.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from birthmark.errors import ConflictError, NotFoundError, PolicyError
from birthmark.pki.certificates import Thumbprint

STATUS = "List the remaining devices: `birthmark pki rollover status`."


class Phase(StrEnum):
    """Phase of a rollover; before the first one, and after it is undone, there is no rollover."""

    OLD_SIGNS = "both trusted, the old signs"
    NEW_SIGNS = "both trusted, the new signs"
    FINISHED = "the new alone"


@dataclass(frozen=True, slots=True)
class RolloverState:
    """State of a root rollover from `old` to `new`."""

    old: Thumbprint
    new: Thumbprint
    phase: Phase
    started_at: datetime
    changed_at: datetime
    version: int = 0


@dataclass(frozen=True, slots=True)
class RolloverProgress:
    """Measured progress: devices by name with a valid certificate."""

    devices: int
    fetched: int
    """Number of them that fetched both roots since the start over an authenticated connection."""
    below_old: int
    """Number of devices whose latest certificate is under the old root."""
    below_new: int
    last_below_old: datetime | None = None
    """When the last certificate under the old root expires."""
    missing: Sequence[str] = ()
    """Some of the devices that have not fetched both roots."""
    groups: Sequence[str] = ()
    """Enrollment groups of this server with a CA of the old root and none of the new."""

    @property
    def share(self) -> float:
        return self.fetched / self.devices if self.devices else 1.0


class RolloverRunningError(ConflictError):
    """A root CA rollover is in progress."""

    code = "ca.rollover_running"
    cause = "A root CA rollover that started at {started_at} is in progress; its state is '{phase}'."
    fix = (
        "To show the state of the rollover: `birthmark pki rollover status`. To continue with the next step: "
        "`birthmark pki rollover next`. To revert a step, use the subcommand `back` instead."
    )
    phase: str
    started_at: str


class NoRolloverError(NotFoundError):
    """No root CA rollover is in progress."""

    code = "ca.no_rollover"
    cause = "No root CA rollover was started, or the last rollover has ended."
    fix = (
        "To show the required steps: `birthmark pki rollover plan`. To start a rollover: `birthmark pki rollover "
        "start`."
    )


class AnchorsMissingError(PolicyError):
    """Too few devices have the new root."""

    code = "ca.rollover_anchors_missing"
    message = "Too few devices have the new root: {fetched} of {devices}"
    cause = (
        "Only {fetched} of {devices} devices ({share}) have fetched the new root; {wanted} must fetch the new root "
        "before that root signs. Devices without the new root: {missing}."
    )
    fix = (
        f"Wait: a device fetches it at its next renewal. {STATUS} If you accept that these devices are missing: "
        f"`birthmark pki rollover next --share {{within_reach}}`"
    )
    devices: int
    fetched: int
    missing: str
    share: str
    wanted: str
    within_reach: str


class GroupsMissingError(PolicyError):
    """Enrollment groups do not have the new CA."""

    code = "ca.rollover_groups_missing"
    message = "Some enrollment groups do not have the new CA"
    cause = (
        "The enrollment groups {groups} have only the old CA, so devices with certificates from the new CA could not "
        "register."
    )
    fix = "Add the new CA to the groups: `birthmark pki rollover groups`"
    groups: str


class GroupPlacesTakenError(ConflictError):
    """The enrollment group has two CAs already."""

    code = "ca.rollover_group_full"
    cause = "The enrollment group {group} already has two CAs, and its other CA, {ca}, is registered as verified."
    fix = (
        "If no device of that group needs the other CA, delete that CA: `birthmark dps ca rm {ca} --yes`. Then add "
        "the new CA to the group: `birthmark pki rollover groups`"
    )
    ca: str
    group: str


class OldStillUsedError(PolicyError):
    """Devices still use certificates under the old root."""

    code = "ca.rollover_old_used"
    message = "{count} devices still use certificates under the old root"
    cause = "{count} devices still use certificates issued under the old root (latest expiry: {until})."
    fix = (
        f"Wait until they have renewed. {STATUS} To revoke a device's certificates without waiting: `birthmark pki "
        f"revoke --device {{device}}`"
    )
    count: int
    device: str
    until: str


class NewStillUsedError(PolicyError):
    """Devices use certificates under the new root."""

    code = "ca.rollover_new_used"
    message = "{count} devices use certificates under the new root"
    cause = "{count} devices use certificates issued under the new root."
    fix = f"Wait until these devices renew under the old root, which signs now. {STATUS}"
    count: int


def step_forward(rollover: RolloverState, progress: RolloverProgress, share: float, now: datetime) -> RolloverState:
    """Return the next state, or raise the unmet requirement.

    `share` is the fraction of devices that must know both roots.
    """
    if rollover.phase is Phase.FINISHED:
        raise NoRolloverError
    if rollover.phase is Phase.OLD_SIGNS:
        if progress.share < share:
            raise AnchorsMissingError(
                devices=progress.devices,
                fetched=progress.fetched,
                share=f"{progress.share:.1%}",
                wanted=f"{share:.1%}",
                within_reach=f"{int(progress.share * 100)}%",
                missing=", ".join(progress.missing) or "unnamed devices",
            )
        _check_groups(progress)
        return _moved(rollover, Phase.NEW_SIGNS, now)
    _check_groups(progress)  # a group added since
    if progress.below_old:
        until = "an unknown time" if progress.last_below_old is None else progress.last_below_old.isoformat()
        device = progress.missing[0] if progress.missing else "NAME"
        raise OldStillUsedError(count=progress.below_old, until=until, device=device)
    return _moved(rollover, Phase.FINISHED, now)


def _check_groups(progress: RolloverProgress) -> None:
    if progress.groups:
        raise GroupsMissingError(groups=", ".join(progress.groups))


def step_back(rollover: RolloverState, progress: RolloverProgress, now: datetime) -> RolloverState | None:
    """Return the previous state, None if that ends the rollover; or raise why the step cannot be undone."""
    match rollover.phase:
        case Phase.FINISHED:
            return _moved(rollover, Phase.NEW_SIGNS, now)
        case Phase.NEW_SIGNS:
            return _moved(rollover, Phase.OLD_SIGNS, now)
        case Phase.OLD_SIGNS:
            if progress.below_new:
                raise NewStillUsedError(count=progress.below_new)
            return None


def _moved(rollover: RolloverState, phase: Phase, now: datetime) -> RolloverState:
    return replace(rollover, phase=phase, changed_at=now, version=rollover.version + 1)
