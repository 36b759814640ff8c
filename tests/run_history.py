"""What must hold of any run's events, however they were watched: the one checker of the contract's promises."""

from collections import defaultdict
from collections.abc import Sequence

from parley.v1 import conversation_pb2, run_event_pb2, run_pb2

_ENDS = {
    run_pb2.RUN_STATE_SUCCEEDED: {
        run_pb2.STOP_REASON_ANSWERED,
        run_pb2.STOP_REASON_OUTPUT_LENGTH,
        run_pb2.STOP_REASON_CONTENT_FILTER,
        run_pb2.STOP_REASON_REFUSAL,
    },
    run_pb2.RUN_STATE_FAILED: {
        run_pb2.STOP_REASON_MAX_STEPS,
        run_pb2.STOP_REASON_MAX_TOOL_CALLS,
        run_pb2.STOP_REASON_MAX_OUTPUT_TOKENS,
        run_pb2.STOP_REASON_LOOP_DETECTED,
        run_pb2.STOP_REASON_APPROVAL_NEEDED,
        run_pb2.STOP_REASON_ERROR,
    },
    run_pb2.RUN_STATE_CANCELLED: {
        run_pb2.STOP_REASON_CANCEL_REQUESTED,
        run_pb2.STOP_REASON_INTERRUPTED,
        run_pb2.STOP_REASON_DISCONNECTED,
    },
    run_pb2.RUN_STATE_EXPIRED: {run_pb2.STOP_REASON_DEADLINE},
}


def check_run(events: Sequence[run_event_pb2.RunEvent], *, finished: bool = True) -> None:
    """Assert gapless seqs from 1, one end, attempts that grow, texts that add up, and calls answered once."""
    _check_order(events)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "run_accepted", kinds
    assert kinds.count("run_accepted") == 1
    assert kinds.count("run_finished") == (1 if finished else 0), kinds
    if finished:
        assert kinds[-1] == "run_finished"
        _check_end(events[-1].run_finished)
    _check_attempts(events)
    _check_texts(events, finished=finished)
    _check_calls(events, finished=finished)
    _check_steers(events)
    _check_approvals(events)


def check_added(events: Sequence[run_event_pb2.RunEvent], accepted: Sequence[str]) -> None:
    """Assert that what was added is applied once each, as it was accepted, and that the end names all the rest."""
    told = [event.steer_applied.steer_id for event in events if event.HasField("steer_applied")]
    told += events[-1].run_finished.unapplied_steer_ids
    expected = accepted if events[-1].HasField("run_finished") else accepted[: len(told)]
    assert told == list(expected), f"added {accepted}, told {told}"


def text_of(events: Sequence[run_event_pb2.RunEvent]) -> str:
    """Join the run's text deltas, but for those that a later attempt discarded."""
    discarded = {item_id for event in events for item_id in event.attempt_restarted.discarded_item_ids}
    return "".join(event.text_delta.text for event in events if event.item_id not in discarded)


def check_reading(
    seen: Sequence[run_event_pb2.RunEvent],
    log: Sequence[run_event_pb2.RunEvent],
    after_seq: int = 0,
    *,
    is_whole: bool = False,
) -> None:
    """Assert that what a reader saw after a seq stands in the log, byte for byte; to its end when it saw the whole."""
    expected = log[after_seq:] if is_whole else log[after_seq : after_seq + len(seen)]
    taken_back = [event.seq for event in seen][len(expected) :]
    assert not taken_back, f"seen and not there any more: {taken_back}"
    assert len(seen) == len(expected), f"the stream ended with {len(seen)} of {len(expected)} events"
    for event, stored in zip(seen, expected, strict=True):
        assert _bytes_of(event) == _bytes_of(stored), f"seen as {event}, read again as {stored}"


def check_told(run: run_pb2.Run, events: Sequence[run_event_pb2.RunEvent]) -> None:
    """Assert that a finished run, as it is told, agrees with its log."""
    end = events[-1].run_finished
    assert (run.run_id, run.conversation_id) == (events[0].run_id, events[0].conversation_id)
    # A run that never began has had no attempt; its events bear the number of the first all the same.
    assert (run.last_seq, max(run.attempt, 1)) == (len(events), events[-1].attempt)
    assert (run.state, run.stop_reason, run.usage) == (end.state, end.stop_reason, end.usage)
    assert run.error == end.error
    texts = {event.item_id: event.message_completed.text for event in events if event.HasField("message_completed")}
    assert run.output_text == texts.get(end.output_item_id, "")
    fitting = {event.item_id: event.message_completed.output_json for event in events}
    assert run.output_json == fitting.get(end.output_item_id, "")


def check_messages(
    events: Sequence[run_event_pb2.RunEvent], messages: Sequence[conversation_pb2.Message], *, prompt: str
) -> None:
    """Assert that a finished run's messages are its prompt, and then all it finished or was told, as its log says."""
    told = [_content_of(message) for message in messages]
    asked = (events[0].run_accepted.input_message_id, prompt, False)
    opened = {event.item_id: None for event in events if event.item_id}
    finished = {event.item_id: _finished_content(event) for event in events if _is_end_of_item(event)}
    assert told == [asked, *(finished[item_id] for item_id in opened if item_id in finished)]


def _content_of(message: conversation_pb2.Message) -> tuple[object, ...]:
    match message.WhichOneof("item"):
        case "user":
            return message.message_id, "".join(part.text for part in message.user.parts), message.incomplete
        case "tool_call":
            call = message.tool_call
            return message.message_id, call.call_id, call.name, call.status, call.result_json
        case "summary":
            summary = message.summary
            return message.message_id, summary.text, summary.first_message_id, summary.last_message_id
        case _:
            return message.message_id, message.assistant.text, message.incomplete


def _finished_content(event: run_event_pb2.RunEvent) -> tuple[object, ...]:
    if event.HasField("message_completed"):
        return event.item_id, event.message_completed.text, event.message_completed.incomplete
    if event.HasField("steer_applied"):
        return event.steer_applied.message_id, "".join(part.text for part in event.steer_applied.input), False
    if event.HasField("history_compacted"):
        compacted = event.history_compacted
        return event.item_id, compacted.summary_text, compacted.first_message_id, compacted.last_message_id
    call = event.tool_call_finished
    return event.item_id, call.call_id, call.name, call.status, call.result_json


def _is_end_of_item(event: run_event_pb2.RunEvent) -> bool:
    ends = ("message_completed", "tool_call_finished", "steer_applied", "history_compacted")
    return event.WhichOneof("event") in ends


def _bytes_of(event: run_event_pb2.RunEvent) -> bytes:
    return event.SerializeToString(deterministic=True)


def _check_order(events: Sequence[run_event_pb2.RunEvent]) -> None:
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len({event.run_id for event in events}) == 1
    assert len({event.conversation_id for event in events}) == 1
    times = [event.emit_time.ToNanoseconds() for event in events]
    assert times == sorted(times)


def _check_attempts(events: Sequence[run_event_pb2.RunEvent]) -> None:
    """Attempts count from 1, and only `attempt_restarted` begins the next; an item is discarded while it is open."""
    attempt = 1
    opened: set[str] = set()
    completed: set[str] = set()
    discarded: set[str] = set()
    for event in events:
        if event.HasField("attempt_restarted"):
            attempt += 1
            assert event.attempt_restarted.attempt == attempt
            assert event.attempt_restarted.reason
            dropped = set(event.attempt_restarted.discarded_item_ids)
            assert dropped == opened - completed - discarded, "not the unfinished items, or not all of them"
            discarded |= dropped
        elif event.HasField("message_completed"):
            completed.add(event.item_id)
        elif event.HasField("text_delta") or event.HasField("reasoning_delta"):
            opened.add(event.item_id)
        assert event.attempt == attempt
        assert not event.item_id or event.item_id not in discarded, "an event of a discarded item"


def _check_end(end: run_event_pb2.RunFinished) -> None:
    assert end.stop_reason in _ENDS.get(end.state, ()), (end.state, end.stop_reason)
    assert end.HasField("error") == (end.state == run_pb2.RUN_STATE_FAILED)
    assert not (end.unapplied_steer_ids and end.state == run_pb2.RUN_STATE_SUCCEEDED), (
        "it ended before it had heard all"
    )


def _check_texts(events: Sequence[run_event_pb2.RunEvent], *, finished: bool) -> None:
    texts: dict[str, list[str]] = defaultdict(list)
    completed: set[str] = set()
    discarded: set[str] = set()
    for event in events:
        match event.WhichOneof("event"):
            case "text_delta":
                assert event.item_id
                assert event.item_id not in completed, "a delta after its item was completed"
                texts[event.item_id].append(event.text_delta.text)
            case "message_completed":
                assert event.item_id not in completed, "completed twice"
                completed.add(event.item_id)
                assert "".join(texts[event.item_id]) == event.message_completed.text
            case "attempt_restarted":
                discarded.update(event.attempt_restarted.discarded_item_ids)
    assert not completed & discarded, "a discarded item was completed"
    if finished:
        assert set(texts) <= completed | discarded, "an item was left open"


def _check_calls(events: Sequence[run_event_pb2.RunEvent], *, finished: bool) -> None:
    open_calls: set[str] = set()
    seen: set[str] = set()
    for event in events:
        match event.WhichOneof("event"):
            case "tool_call_started":
                assert event.tool_call_started.call_id not in seen
                seen.add(event.tool_call_started.call_id)
                open_calls.add(event.tool_call_started.call_id)
            case "tool_call_progress":
                assert event.tool_call_progress.call_id in open_calls, "told before its start, or after its end"
            case "tool_call_finished":
                assert event.tool_call_finished.call_id in open_calls, "finished without a start, or twice"
                open_calls.discard(event.tool_call_finished.call_id)
    if finished:
        assert not open_calls, "a call was left without a result"


def _check_steers(events: Sequence[run_event_pb2.RunEvent]) -> None:
    applied = [event.steer_applied for event in events if event.HasField("steer_applied")]
    ids = [steer.steer_id for steer in applied] + list(events[-1].run_finished.unapplied_steer_ids)
    assert len(ids) == len(set(ids)), "applied twice, or applied and not applied"
    assert all(steer.message_id and steer.input for steer in applied)
    if events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED:
        assert not events[-1].run_finished.unapplied_steer_ids, "it succeeded without what was added to it"


def _check_approvals(events: Sequence[run_event_pb2.RunEvent]) -> None:
    """Assert that each approval is resolved once, that a run waits for all of them, and does nothing meanwhile."""
    pending: dict[str, str] = {}
    is_waiting = False
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "approval_requested":
            pending[event.approval_requested.approval_id] = event.approval_requested.call_id
        elif kind == "approval_resolved":
            assert pending.pop(event.approval_resolved.approval_id) == event.approval_resolved.call_id
        elif kind == "run_waiting":
            assert list(event.run_waiting.approval_ids) == list(pending), "it waits for others than it has asked"
            is_waiting = True
        elif kind == "run_resumed":
            assert is_waiting, "it goes on and has not waited"
            assert not pending, "it goes on without an answer"
            is_waiting = False
        elif kind == "tool_call_finished":
            assert event.tool_call_finished.call_id not in pending.values(), "it is answered before the user has"
        elif is_waiting:
            assert kind == "run_finished", f"{kind} while it waits"
    assert not (events[-1].HasField("run_finished") and pending), "an approval is left open"
