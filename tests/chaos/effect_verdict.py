"""What users were told of tool calls, held against what has happened in the world."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.aftermath import Aftermath
from chaos.effects import Effect
from chaos.history import History
from parley.v1.run_event_pb2 import RunEvent
from parley.v1.tool_pb2 import ToolCallStatus, ToolEffect


@dataclass(frozen=True)
class _Call:
    """A call as the log tells it, from when to when."""

    call_id: str
    name: str
    effect: ToolEffect.ValueType
    status: ToolCallStatus.ValueType
    start_ns: int
    finish_ns: int


def wrong_effects(history: History, aftermath: Aftermath, effects: Sequence[Effect]) -> Iterator[str]:
    """Yield what was told of a call and is not what happened in the world."""
    keys: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for effect in effects:
        keys[effect.run_id, effect.call_id].append(effect.key)
    kills = [kill_ns for _, kill_ns in history.kills]
    for run_id, final in aftermath.runs.items():
        for call in _calls_of(final.events):
            happened = keys.pop((run_id, call.call_id), [])
            for fault in _faults(call, happened, kills):
                yield f"{run_id}: {call.name} {call.call_id} {fault}, and happened {len(happened)} times"
    for run_id, call_id in keys:
        yield f"{run_id}: {call_id} has happened, and nobody was told of it"


def _calls_of(events: Sequence[RunEvent]) -> list[_Call]:
    """Return the calls of a run that have finished."""
    started = {event.tool_call_started.call_id: event for event in events if event.HasField("tool_call_started")}
    found = []
    for event in events:
        end = event.tool_call_finished
        if event.HasField("tool_call_finished") and (begin := started.get(end.call_id)):
            times = begin.emit_time.ToNanoseconds(), event.emit_time.ToNanoseconds()
            found.append(_Call(end.call_id, end.name, begin.tool_call_started.effect, end.status, *times))
    return found


def _faults(call: _Call, keys: Sequence[str], kills: Sequence[int]) -> Iterator[str]:
    is_write = call.effect == ToolEffect.TOOL_EFFECT_WRITE
    if is_write and len(keys) > 1:
        yield "is a WRITE"
    if call.effect == ToolEffect.TOOL_EFFECT_IDEMPOTENT and len(set(keys)) > 1:
        yield "had several keys"
    match call.status:
        case ToolCallStatus.TOOL_CALL_STATUS_OK:
            if not keys:
                yield "is told as done"
        case ToolCallStatus.TOOL_CALL_STATUS_CANCELLED:
            if is_write and keys:
                yield "is told as not done"
        case ToolCallStatus.TOOL_CALL_STATUS_UNKNOWN_OUTCOME:
            if not is_write or not any(call.start_ns <= kill_ns <= call.finish_ns for kill_ns in kills):
                yield "is told as unknown without need"
        case _:
            yield f"ended with {ToolCallStatus.Name(call.status)}"
