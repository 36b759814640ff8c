"""Between the rows of the audit log and its entries. Whoever verifies reads by the same way as everybody."""

from datetime import datetime

from parley_server.domain.audit import AuditDecision, AuditEntry, RecordedEntry
from parley_server.storage.sql.database import Row, from_micros, to_micros


class UnreadableEntryError(ValueError):
    """A row holds what no entry does: it was not written by this program."""


def row_of_entry(recorded: RecordedEntry) -> dict[str, object]:
    """Return an entry as the columns of its row."""
    entry = recorded.entry
    return {
        "position": recorded.position,
        "time": to_micros(entry.time),
        "action": entry.action,
        "decision": entry.decision.value,
        "actors": " ".join(entry.actors),
        "effective_user": entry.user_id,
        "principal": entry.principal,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "status": entry.status,
        "reason": entry.reason,
        "request_id": entry.request_id,
        "peer": entry.peer,
        "credential_id": entry.credential_id,
        "about": entry.about,
        "left_out": entry.left_out,
        "mac": recorded.mac,
    }


def entry_of_row(row: Row) -> RecordedEntry:
    """Read an entry, such that no two different rows are the same one. Raises UnreadableEntryError."""
    actors = _text(row, "actors")
    entry = AuditEntry(
        time=_time(row),
        action=_text(row, "action"),
        decision=_decision(row),
        actors=tuple(actors.split(" ")) if actors else (),
        user_id=_text(row, "effective_user"),
        principal=_text(row, "principal"),
        object_type=_text(row, "object_type"),
        object_id=_text(row, "object_id"),
        status=_text(row, "status"),
        reason=_text(row, "reason"),
        request_id=_text(row, "request_id"),
        peer=_text(row, "peer"),
        credential_id=_text(row, "credential_id"),
        about=None if row["about"] is None else _number(row, "about"),
        left_out=_number(row, "left_out"),
    )
    mac = row["mac"]
    if not isinstance(mac, bytes):
        raise UnreadableEntryError("mac")
    return RecordedEntry(_number(row, "position"), entry, mac)


def _text(row: Row, name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise UnreadableEntryError(name)
    return value


def _number(row: Row, name: str) -> int:
    value = row[name]
    if not isinstance(value, int):
        raise UnreadableEntryError(name)
    return value


def _time(row: Row) -> datetime:
    try:
        return from_micros(_number(row, "time"))
    except OverflowError:
        raise UnreadableEntryError("time") from None


def _decision(row: Row) -> AuditDecision:
    try:
        return AuditDecision(_text(row, "decision"))
    except ValueError:
        raise UnreadableEntryError("decision") from None
