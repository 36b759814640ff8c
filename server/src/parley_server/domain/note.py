"""A note: something about a user that an agent was asked, or saw fit, to keep from one conversation to the next."""

from dataclasses import dataclass
from datetime import datetime

MAX_NOTE_BYTES = 4096
MAX_NOTES = 10_000


@dataclass(frozen=True, slots=True)
class Note:
    """One note of a user: at most MAX_NOTE_BYTES of text in UTF-8."""

    note_id: str
    text: str
    create_time: datetime


class NotesFullError(Exception):
    """The user has MAX_NOTES notes; one has to go first."""
