"""Conversations: the thread a user and an agent talk in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ConversationChanges:
    """What to change of a conversation; None leaves a field as it is."""

    title: str | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One thread. `active_run_id` names the run that is under way, if any; `etag` changes with every update."""

    conversation_id: str
    title: str
    create_time: datetime
    update_time: datetime
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    active_run_id: str = ""
    expire_time: datetime | None = None
