"""What must hold of any run's events, however they were watched: the one checker of the contract's promises."""

from collections import defaultdict
from collections.abc import Sequence

from parley.v1 import run_event_pb2, run_pb2


def check_run(events: Sequence[run_event_pb2.RunEvent], *, finished: bool = True) -> None:
    """Assert gapless seqs from 1, one terminal event at the end, texts that add up, and calls answered once."""
    _check_order(events)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "run_accepted", kinds
    assert kinds.count("run_accepted") == 1
    assert kinds.count("run_finished") == (1 if finished else 0), kinds
    if finished:
        assert kinds[-1] == "run_finished"
        _check_end(events[-1].run_finished)
    _check_texts(events, finished=finished)
    _check_calls(events, finished=finished)


def text_of(events: Sequence[run_event_pb2.RunEvent]) -> str:
    """Join the run's text deltas."""
    return "".join(event.text_delta.text for event in events)


def _check_order(events: Sequence[run_event_pb2.RunEvent]) -> None:
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len({event.run_id for event in events}) == 1
    assert len({event.conversation_id for event in events}) == 1
    times = [event.emit_time.ToNanoseconds() for event in events]
    assert times == sorted(times)


def _check_end(end: run_event_pb2.RunFinished) -> None:

    assert end.HasField("error") == (end.state == run_pb2.RUN_STATE_FAILED)


def _check_texts(events: Sequence[run_event_pb2.RunEvent], *, finished: bool) -> None:
    texts: dict[str, list[str]] = defaultdict(list)
    completed: set[str] = set()
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
    if finished:
        assert set(texts) <= completed, "an item was left open"


def _check_calls(events: Sequence[run_event_pb2.RunEvent], *, finished: bool) -> None:
    open_calls: set[str] = set()
    seen: set[str] = set()
    for event in events:
        match event.WhichOneof("event"):
            case "tool_call_started":
                assert event.tool_call_started.call_id not in seen
                seen.add(event.tool_call_started.call_id)
                open_calls.add(event.tool_call_started.call_id)
            case "tool_call_finished":
                assert event.tool_call_finished.call_id in open_calls, "finished without a start, or twice"
                open_calls.discard(event.tool_call_finished.call_id)
    if finished:
        assert not open_calls, "a call was left without a result"
