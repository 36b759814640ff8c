"""The newest durable events of a live run, in memory: all that its archive does not have yet, and the page before."""

from collections.abc import Iterable

from parley_server.domain.run_event import StoredEvent

# When a page of a live run's log is due. Two of them are what a run keeps in memory.
PAGE_BYTES = 64 * 1024
# What an event takes in memory beside its payload.
_EVENT_BYTES = 150


class Tail:
    """The end of a log, which watchers share. What is older they read from the archive."""

    def __init__(self) -> None:
        self.last_seq = 0
        self.journal_ids: list[int] = []
        self._events: list[StoredEvent] = []
        self._archived = 0
        self._loose_bytes = 0

    @property
    def first_seq(self) -> int:
        """The seq of the oldest event in memory; that of the next event if there is none."""
        return self.last_seq - len(self._events) + 1

    @property
    def page(self) -> tuple[StoredEvent, ...]:
        """The events the archive does not have, once they are enough for a page of it; empty before."""
        return self.loose if self._loose_bytes >= PAGE_BYTES else ()

    @property
    def loose(self) -> tuple[StoredEvent, ...]:
        """The events the archive does not have; `journal_ids` are the rows that hold them."""
        return tuple(self._events[self._archived :])

    def begin_after(self, seq: int) -> None:
        """Start behind a seq up to which the archive has everything."""
        self.last_seq = seq

    def extend(self, events: Iterable[StoredEvent], journal_ids: Iterable[int]) -> None:
        """Take in the next events, which are durable in these rows of the journal."""
        for event in events:
            self._events.append(event)
            self._loose_bytes += len(event.payload) + _EVENT_BYTES
            self.last_seq = event.seq
        self.journal_ids += journal_ids

    def turn_page(self) -> list[int]:
        """Note that the archive has all there is now, and forget what it had before.

        Returns:
            The rows of the journal that nobody needs any more.
        """
        del self._events[: self._archived]
        self._archived = len(self._events)
        self._loose_bytes = 0
        obsolete, self.journal_ids = self.journal_ids, []
        return obsolete

    def after(self, seq: int, limit: int) -> tuple[StoredEvent, ...]:
        """Return up to `limit` events above a seq that is not older than `first_seq - 1`."""
        start = seq + 1 - self.first_seq
        return tuple(self._events[start : start + limit])

    def release(self) -> None:
        """Forget every event: the archive has them."""
        self._events.clear()
        self._archived = 0
