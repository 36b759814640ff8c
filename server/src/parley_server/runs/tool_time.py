"""How long the tools of a run were at work, read off its log."""

from collections.abc import Iterable
from itertools import pairwise

from parley_server.domain.run_event import (
    ApprovalResolved,
    AttemptRestarted,
    RunEvent,
    RunResumed,
    ToolCallFinished,
    ToolCallStarted,
)


def tool_time_s(events: Iterable[RunEvent]) -> float:
    """Return the seconds in which calls were under way, but for those in which nobody was at work on the run."""
    under_way: set[str] = set()
    total_s = 0.0
    for before, event in pairwise(events):
        if isinstance(before.body, ToolCallStarted):
            under_way.add(before.body.call_id)
        elif isinstance(before.body, ToolCallFinished):
            under_way.discard(before.body.call_id)
        if under_way and not isinstance(event.body, AttemptRestarted | RunResumed | ApprovalResolved):
            total_s += max((event.emit_time - before.emit_time).total_seconds(), 0)
    return total_s
