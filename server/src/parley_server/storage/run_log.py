"""The run log's pen: what the one owner of a run may write. Readers use `RunRepository.watch`."""

from dataclasses import dataclass
from typing import Protocol

from parley_server.domain.message import Item
from parley_server.domain.run import RunEnd
from parley_server.domain.run_event import EventBody, RunStarted
from parley_server.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class FinishedItem:
    """A finished item that becomes a message of the conversation."""

    message_id: str
    item: Item
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class RunConclusion:
    """All that the last transaction of a run writes, the terminal event with it."""

    end: RunEnd
    usage: Usage
    items: tuple[FinishedItem, ...]
    output_item_id: str = ""
    output_text: str = ""


class OwnershipLostError(Exception):
    """Another process has taken the run over; whoever gets this may write nothing more of it."""


class RunAppender(Protocol):
    """Appends to one run's log. Events become durable in the order of the calls, text of one item merged."""

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    async def append(self, body: EventBody, item_id: str = "") -> None:
        """Hand over one event; returns at once unless far more is waiting than the store takes.

        Raises:
            OwnershipLostError: this process no longer owns the run.
        """
        ...

    async def flush(self) -> None:
        """Return when all that was appended is durable. Raises OwnershipLostError."""
        ...

    async def begin(self, body: RunStarted) -> None:
        """Append `run_started` and set the run RUNNING in the same transaction; does not wait for it."""
        ...

    async def mark_cancelling(self) -> None:
        """Set the run CANCELLING, durably."""
        ...

    async def finish(self, conclusion: RunConclusion) -> str:
        """End the run in one transaction: messages, usage, state, terminal event.

        Returns:
            The id of the conversation's next waiting run, which is now its active one; empty if none waits.
        """
        ...
