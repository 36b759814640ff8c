"""What a user says of a call whose outcome the server cannot know."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from parley_server.domain.principal import PrincipalKind


class CallOutcome(StrEnum):
    """What became of the call."""

    HAPPENED = "happened"
    DID_NOT_HAPPEN = "did_not_happen"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What settles a call in doubt, once. `actor_kind` and `actor` are who called the server to say so."""

    outcome: CallOutcome
    note: str
    actor_kind: PrincipalKind
    actor: str
    resolve_time: datetime
