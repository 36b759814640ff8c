"""The chain that binds the audit log: each entry's MAC covers the entry and the MAC before it.

Whoever has the database and not the key can neither change, nor take away, nor move, nor add an entry unnoticed; only
the newest ones can be cut off, which is seen by whoever has kept a later head.
"""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

from parley_server.domain.audit import AuditEntry, AuditHead, AuditProblem, AuditReport, RecordedEntry

BEFORE_ALL = AuditHead(0, bytes(32))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of how the bytes below are made.
_VERSION = b"\x01"


class AuditChain:
    """Makes MACs with a key derived from the installation's hash key."""

    def __init__(self, hash_key: bytes) -> None:
        self._key = hmac.digest(hash_key, b"parley audit chain", "sha256")

    def follow(self, previous: AuditHead, entry: AuditEntry) -> RecordedEntry:
        """Put an entry behind `previous`."""
        position = previous.position + 1
        return RecordedEntry(position, entry, self._mac(previous.mac, position, entry))

    def follows(self, previous: AuditHead, recorded: RecordedEntry) -> bool:
        """Tell whether an entry is the one that was put behind `previous`."""
        return hmac.compare_digest(self.follow(previous, recorded.entry).mac, recorded.mac)

    def _mac(self, previous: bytes, position: int, entry: AuditEntry) -> bytes:
        return hmac.digest(self._key, previous + _canonical(position, entry), hashlib.sha256)


class ChainCheck:
    """Takes entries in their order behind `start`, and stops at the first that does not belong there.

    `expected` is a head that was kept elsewhere.
    """

    def __init__(self, chain: AuditChain, start: AuditHead, expected: AuditHead | None) -> None:
        self._chain = chain
        self._start = start
        self._expected = expected
        self._head = start
        self._first_time: datetime | None = None
        self._last_time: datetime | None = None
        self._problem: AuditProblem | None = None
        if expected is not None and expected.position == start.position:
            self._compare(start)

    def take(self, recorded: RecordedEntry) -> bool:
        """Take the next entry; tell whether it and all before it are right."""
        following = self._head.position + 1
        if recorded.position != following:
            self.fail(following, "is missing")
        elif not self._chain.follows(self._head, recorded):
            self.fail(following, "is not what was written: it was changed, moved or put in, or one before it was")
        else:
            self._head = recorded.head
            self._first_time = self._first_time or recorded.entry.time
            self._last_time = recorded.entry.time
            if self._expected is not None and self._expected.position == following:
                self._compare(recorded.head)
        return self._problem is None

    def fail(self, position: int, description: str) -> None:
        """Note what is wrong, unless something was before."""
        self._problem = self._problem or AuditProblem(position, description)

    def report(self) -> AuditReport:
        """Say what it came to, once there are no more entries."""
        if self._expected is not None and self._expected.position > self._head.position:
            self.fail(self._head.position + 1, f"is missing, and all up to {self._expected.position}: the end is gone")
        if self._expected is not None and self._expected.position < self._start.position:
            self.fail(self._expected.position, "is the expected head and older than what is looked at")
        count = self._head.position - self._start.position
        head = self._head if self._head.position else None
        return AuditReport(count, self._first_time, self._last_time, head, self._problem)

    def _compare(self, head: AuditHead) -> None:
        if self._expected != head:
            self.fail(head.position, "is not the expected head: another log is in this one's place")


def _canonical(position: int, entry: AuditEntry) -> bytes:
    """Write an entry so that no two different ones are the same bytes: each field behind its kind and length."""
    fields: tuple[str | int | None, ...] = (
        position,
        (entry.time - _EPOCH) // timedelta(microseconds=1),
        entry.action,
        entry.decision.value,
        entry.principal,
        " ".join(entry.actors),
        entry.user_id,
        entry.object_type,
        entry.object_id,
        entry.status,
        entry.reason,
        entry.request_id,
        entry.peer,
        entry.credential_id,
        entry.about,
        entry.left_out,
    )
    return _VERSION + b"".join(map(_field, fields))


def _field(value: str | int | None) -> bytes:
    if value is None:
        return b"n"
    if isinstance(value, int):
        return b"i" + value.to_bytes(8, "big", signed=True)
    encoded = value.encode()
    return b"s" + len(encoded).to_bytes(8, "big") + encoded
