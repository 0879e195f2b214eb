"""Column values for claiming, resuming, releasing and freeing a session, and the start of its queue."""

from typing import Any

from birthmark.broker.model import MICROS, NEVER, SessionRecord, Will, encode_will
from birthmark.broker.rules.send_window import SendWindow
from birthmark.net.mqtt_service_interface import CloseReason


def resumed_window(
    record: SessionRecord | None, before: SendWindow | None, window: int, *, goes_on: bool
) -> SendWindow:
    """Return the send window of a resumed queue; the replaced connection's state `before` overrides its row."""
    if record is None:
        return SendWindow(0, 0, window)
    if not goes_on:
        return SendWindow(record.tail, record.tail, window)
    cursor, sent = record.cursor, record.sent
    if before is not None:
        cursor, sent = max(cursor, before.cursor), max(sent, before.sent)
    return SendWindow(cursor, record.tail, window, resent_upto=sent)


def will_is_due(record: SessionRecord, worker: str, *, goes_on: bool) -> bool:
    """Return whether the next connection publishes the previous connection's will.

    This is the case if its worker was killed, or if the will was delayed.
    """
    if record.will is None:
        return False
    return was_lost(record, worker) if record.will_at is None else not goes_on


def was_lost(record: SessionRecord, worker: str) -> bool:
    """Return whether a session's worker ended or does not respond, without having reported the disconnect."""
    return record.owner not in {None, worker}


def claimed_columns(owner: str, will: Will | None, expiry_s: int, now: int) -> dict[str, Any]:
    """Return the columns of a session that a worker claims for a connection."""
    return {
        "owner": owner,
        "expires_at": None,
        "expiry_s": expiry_s,
        "cursor": 0,
        "sent": 0,
        "will": None if will is None else encode_will(will),
        "will_at": None,
        "seen_at": now,
        "gone": None,
    }


def unclaimed_columns(expiry_s: int) -> dict[str, Any]:
    """Return the columns of a session created by its first subscription.

    A single worker does not record ownership.
    """
    return {
        "owner": None,
        "expires_at": None,
        "expiry_s": expiry_s,
        "tail": 0,
        "cursor": 0,
        "sent": 0,
        "will": None,
        "will_at": None,
        "seen_at": None,
        "gone": None,
    }


def released_columns(expiry_s: int, will: Will | None, delay_s: int, reason: CloseReason, now: int) -> dict[str, Any]:
    """Return the columns of a released session; `will` is delayed by `delay_s`."""
    return {
        "owner": None,
        "expires_at": _end(expiry_s, now),
        "expiry_s": expiry_s,
        "cursor": 0,
        "sent": 0,
        "will": None if will is None else encode_will(will),
        "seen_at": now,
        "gone": reason,
        "will_at": None if will is None else now + delay_s * MICROS,
    }


def freed_columns(record: SessionRecord, delay_s: int, now: int) -> dict[str, Any]:
    """Return the columns of a dead worker's session; its will is delayed if `delay_s` is not 0."""
    return {
        "epoch": record.epoch + 1,
        "owner": None,
        "expires_at": _end(record.expiry_s, now),
        "will": record.will if delay_s else None,
        "will_at": now + delay_s * MICROS if delay_s else None,
        "seen_at": now,
        "gone": CloseReason.LOST,
    }


def positions(outgoing: SendWindow) -> dict[str, Any]:
    """Return the position columns of a queue that is being sent to a connection."""
    return {"cursor": outgoing.cursor, "sent": max(outgoing.sent, outgoing.resent_upto)}


def _end(expiry_s: int, now: int) -> int | None:
    return None if expiry_s == NEVER else now + expiry_s * MICROS
