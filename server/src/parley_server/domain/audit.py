"""What the audit log says: who did what for whom, and whether he was let. Never what was said or sent."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# What the server itself does, as the action of an entry. A call's is the method's full name, a command's its words.
ACT_AS = "act_as"
DROP = "audit drop"
START = "server start"
STOP = "server stop"
TRUNCATE = "audit truncate"
# The principal of what nobody asked for.
SERVER = "server"

_MAC_BYTES = 32


class AuditDecision(StrEnum):
    """Whether the action was let happen."""

    ALLOWED = "allowed"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done, tried, or became of what an earlier entry tells.

    `principal` is who proved himself, such as `user:ann` or `operator:root`, empty where nobody did; `actors` are those
    who act in another's name; `user_id` is for whom. `object_type` and `object_id` say what it was done to. `status`
    and `reason` are those of an error, or `OK`; empty where the end is not known yet. `about` is the position of the
    entry that this one goes on with, of a truncation that of the last entry it took away. `left_out` is how many
    entries this one stands for that were not written one by one.
    """

    time: datetime
    action: str
    decision: AuditDecision = AuditDecision.ALLOWED
    principal: str = ""
    actors: tuple[str, ...] = ()
    user_id: str = ""
    object_type: str = ""
    object_id: str = ""
    status: str = ""
    reason: str = ""
    request_id: str = ""
    peer: str = ""
    credential_id: str = ""
    about: int | None = None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class AuditHead:
    """An entry's place and its MAC, which binds all entries up to it; written `12:` and 64 hexadecimal digits."""

    position: int
    mac: bytes

    def __str__(self) -> str:
        return f"{self.position}:{self.mac.hex()}"

    @classmethod
    def parse(cls, text: str) -> "AuditHead":
        """Read what `str` wrote. Raises ValueError on anything else."""
        position, _, digits = text.partition(":")
        head = cls(int(position), bytes.fromhex(digits))
        if str(head) != text or head.position < 1 or len(head.mac) != _MAC_BYTES:
            raise ValueError("not an audit head")
        return head


@dataclass(frozen=True, slots=True)
class RecordedEntry:
    """An entry with its place in the log: 1, 2, 3 without a gap."""

    position: int
    entry: AuditEntry
    mac: bytes

    @property
    def head(self) -> AuditHead:
        """What to keep elsewhere to prove later that this entry, and all before it, are still there."""
        return AuditHead(self.position, self.mac)


@dataclass(frozen=True, slots=True)
class AuditProblem:
    """The first entry that is not as it was written, or is not there."""

    position: int
    description: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What verifying came to: how many entries are as they were written, from when to when, and what is wrong next."""

    count: int
    first_time: datetime | None
    last_time: datetime | None
    head: AuditHead | None
    problem: AuditProblem | None
