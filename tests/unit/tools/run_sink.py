"""A run log in memory that knows the contract's rules."""

from collections import Counter
from typing import TypeVar

from parley_server.domain.run_event import EventBody, MessageCompleted, TextDelta, ToolCallFinished, ToolCallStarted

E = TypeVar("E", bound=EventBody)


class RunSink:
    """Keeps events in order with their item ids, and how many of them are durable."""

    def __init__(self) -> None:
        self.events: list[tuple[str, EventBody]] = []
        self.durable = 0

    async def emit(self, body: EventBody, item_id: str = "") -> None:
        self.events.append((item_id, body))

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
