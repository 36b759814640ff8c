"""A run log in memory that knows the contract's rules."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from parley_server.domain.run_event import (
    EventBody,
    ItemEvent,
    MessageCompleted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from parley_server.domain.tool import CallRecord, CallState

E = TypeVar("E", bound=EventBody)


class RunSink:
    """Keeps events in order with their item ids, how many of them are durable, and the journal of effects."""

    def __init__(self) -> None:
        self.events: list[tuple[str, EventBody]] = []
        self.durable = 0
        self.journal: dict[str, CallRecord] = {}
        self.commits: list[list[EventBody]] = []
        self._dispatched: set[str] = set()

    async def emit(self, body: EventBody, item_id: str = "") -> None:
        await self.emit_all([(body, item_id)])

    async def emit_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
        self.events += [(item_id, body) for body, item_id in events]
        self.commits.append([body for body, _ in events])
        for call in calls:
            assert call.call_id not in self.journal
            self.journal[call.call_id] = call
            if call.state is CallState.DISPATCHED:
                self._dispatched.add(call.call_id)

    async def dispatched(self, call_ids: Sequence[str]) -> None:
        await self.flush()
        self._dispatched.update(call_ids)

    async def withdrawn(self, call_ids: Sequence[str]) -> None:
        self._dispatched.difference_update(call_ids)

    def is_dispatched(self, call_id: str) -> bool:
        """Tell whether the journal knows, durably, that the call happens."""
        return call_id in self._dispatched and self.durable > 0

    async def flush(self) -> None:
        self.durable = len(self.events)

    def bodies(self, kind: type[E]) -> list[E]:
        return [body for _, body in self.events if isinstance(body, kind)]

    def finished(self) -> dict[str, ToolCallFinished]:
        return {body.call_id: body for body in self.bodies(ToolCallFinished)}

    def check_calls(self) -> None:
        """Every call is told once, then answered once, on the same item; all starts come before all answers."""
        started = {body.call_id: (place, item) for place, item, body in self._calls(ToolCallStarted)}
        finished = {body.call_id: (place, item) for place, item, body in self._calls(ToolCallFinished)}
        assert started.keys() == finished.keys()
        assert Counter(type(body) for _, body in self.events)[ToolCallStarted] == len(started)
        assert Counter(type(body) for _, body in self.events)[ToolCallFinished] == len(finished)
        for call_id, (place, item_id) in started.items():
            assert finished[call_id][0] > place
            assert finished[call_id][1] == item_id
        items = [item_id for _, item_id in started.values()]
        assert all(items)
        assert len(set(items)) == len(items)

    def check_text(self) -> None:
        """The deltas of every completed item concatenate to its text."""
        for item_id, body in self.events:
            if isinstance(body, MessageCompleted):
                deltas = [b.text for i, b in self.events if i == item_id and isinstance(b, TextDelta)]
                assert "".join(deltas) == body.text

    def _calls(self, kind: type[E]) -> list[tuple[int, str, E]]:
        return [(place, item, body) for place, (item, body) in enumerate(self.events) if isinstance(body, kind)]
