"""Suggested next steps for a device, from its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from birthmark.webconsole.event_labels import mark_for_translation

_SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class SuggestedStep:
    """A suggested action: reason and command; `said` and `fix` are texts of a refusal, in its original wording."""

    why: str
    command: str = ""
    fix: str = ""
    kind: str = ""
    place: str = ""
    said: str = ""


def next_steps(
    parts: Sequence[Mapping[str, Any]],
    certificates: Sequence[Mapping[str, Any]],
    refusals: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    quoted: str,
    was_well_at: datetime | None = None,
) -> Sequence[SuggestedStep]:
    """Return the next steps of a device, most urgent first; empty if none are needed.

    A refusal counts if the device was not admitted since (`was_well_at`). A revoked device gets no steps that would
    readmit it.
    """
    found: list[SuggestedStep] = []
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for part in parts:
        by_kind.setdefault(part["what"], []).append(part)
    if any(part["state"] == "shut out" for part in by_kind.get("name", ())):
        told = mark_for_translation("The device is revoked and cannot connect. Release its name for another device:")
        return [SuggestedStep(told, f"birthmark pki release {quoted}", kind="off")]
    if is_refused(refusals, was_well_at):
        last = refusals[0]
        is_wanted = any(
            part["state"] == "disabled" for kind in ("enrollment", "device") for part in by_kind.get(kind, ())
        )
        kind = "off" if is_wanted and last["code"].endswith("disabled") else "bad"
        found.append(
            SuggestedStep(mark_for_translation("Last refusal:"), said=last["message"], fix=last["fix"], kind=kind)
        )
    for part in (*by_kind.get("enrollment", ()), *by_kind.get("device", ())):
        if part["state"] == "disabled":
            at_hub = f"hub device enable {quoted} --hub {part['place'].removeprefix('hub ')}"
            command = f"birthmark {at_hub if part['what'] == 'device' else f'device enable {quoted}'}"
            if not any(f"`{command}`" in one.fix for one in found):  # already in the refusal
                found.append(
                    SuggestedStep(
                        mark_for_translation("The device is disabled in {place}."),
                        command,
                        kind="warn",
                        place=part["place"],
                    )
                )
    alive = [
        one for one in certificates if one["revoked"] is None and one["not_after"] and _time(one["not_after"]) > now
    ]
    ended = [
        one for one in certificates if one["revoked"] is None and one["not_after"] and _time(one["not_after"]) <= now
    ]
    if ended and not alive:
        found.append(
            SuggestedStep(
                mark_for_translation(
                    "The device's last certificate has expired. The device can re-enroll with the key in "
                    "its chip or with a new token."
                ),
                f"birthmark pki token create {quoted}",
                kind="bad",
            )
        )
    elif alive and _expires_soon(max(alive, key=lambda one: _time(one["not_after"])), now):
        found.append(
            SuggestedStep(
                mark_for_translation("The device's certificate expires soon and has not been renewed."),
                f"birthmark pki ls {quoted}",
                kind="warn",
            )
        )
    waits = mark_for_translation("The device's certificate request is pending approval.")
    found += [
        SuggestedStep(waits, f"birthmark pki request approve {part['id']}", kind="warn")
        for part in by_kind.get("request", ())
        if part["state"] == "waits"
    ]
    if by_kind.get("enrollment") and not by_kind.get("registration") and not refusals:
        found.append(
            SuggestedStep(
                mark_for_translation(
                    "The device is enrolled but not yet registered. Turn it on and check its connection to this server."
                ),
                f"birthmark device show {quoted}",
            )
        )
    return found


def is_refused(refusals: Sequence[Mapping[str, Any]], was_well_at: datetime | None) -> bool:
    """Return whether a device's latest event is a refusal."""
    return bool(refusals) and (was_well_at is None or _time(refusals[0]["at"]) > was_well_at)


def _expires_soon(certificate: Mapping[str, Any], now: datetime) -> bool:
    """Return whether a certificate expires within `_SOON`, and is in the last fifth of its lifetime."""
    end = _time(certificate["not_after"])
    return end - now < min(_SOON, (end - _time(certificate["not_before"])) / 5)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
