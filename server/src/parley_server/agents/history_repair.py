"""Mends what a model's server would refuse for as long as it is sent: calls without results, results without calls."""

from collections.abc import Iterable, Iterator, Sequence

from parley_server.domain.tool import ToolCall
from parley_server.llm.model_service import AssistantMessage, ModelMessage, ToolMessage
from parley_server.tools.errors import ResultLostError
from parley_server.tools.results import result_of


def repaired(messages: Iterable[ModelMessage]) -> tuple[list[ModelMessage], bool]:
    """Return the messages with exactly one result behind every call, in the order of the calls; and whether any lacked.

    A call without a result is answered so that the model takes it neither for done nor for undone. A result without a
    call is left out.
    """
    mended: list[ModelMessage] = []
    is_whole = True
    for message, results in _steps(messages):
        calls = message.tool_calls if isinstance(message, AssistantMessage) else ()
        answers = _answers(calls, results)
        is_whole = is_whole and answers == results
        mended += [] if message is None else [message, *answers]
    return mended, not is_whole


def _steps(messages: Iterable[ModelMessage]) -> Iterator[tuple[ModelMessage | None, list[ModelMessage]]]:
    """Yield every message with the results that follow it; None before results that follow nothing."""
    step: tuple[ModelMessage | None, list[ModelMessage]] = (None, [])
    for message in messages:
        if isinstance(message, ToolMessage):
            step[1].append(message)
            continue
        yield step
        step = (message, [])
    yield step


def _answers(calls: Sequence[ToolCall], results: Sequence[ModelMessage]) -> list[ModelMessage]:
    left = list(results)
    answers = []
    for call in calls:
        answer = next((each for each in left if isinstance(each, ToolMessage) and each.call_id == call.call_id), None)
        if answer is None:
            answer = ToolMessage(call.call_id, result_of(call, ResultLostError()).result_json)
        else:
            left.remove(answer)
        answers.append(answer)
    return [*answers]
