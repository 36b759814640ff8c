"""What the model is told a call came to: `{"ok":true,"result":...}` or `{"ok":false,"error":{...}}`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from parley_server.domain.content import storable_text
from parley_server.domain.identifiers import new_id
from parley_server.domain.resolution import Resolution
from parley_server.domain.run_event import ToolCallFinished
from parley_server.domain.tool import ToolCall, ToolCallStatus, ToolResult
from parley_server.domain.whole_result import MAX_WHOLE_BYTES
from parley_server.tools.errors import DuplicateCallError, FieldProblem, ResultTooLargeError, ToolError
from parley_server.tools.json_value import TooLargeError, clean_json, dump_json, dump_lines

MAX_INLINE_BYTES = 32 * 1024
# What is left of it when a note goes along.
MAX_ANSWER_BYTES = MAX_INLINE_BYTES - 512
MAX_RESULT_SIZE = 4 * 1024 * 1024
# What takes some milliseconds to write.
MAX_SIZE_AT_ONCE = 64 * 1024
MAX_RESULT_DEPTH = 64
# Together they keep an error's JSON below the inline limit, however its characters are escaped.
MAX_CODE_CHARS = 64
MAX_MESSAGE_CHARS = 1024
MAX_PATH_CHARS = 100
MAX_PROBLEM_CHARS = 200
MAX_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """A tool's result as the text the model is told.

    When its middle had to go, `whole_json` is all of it, to be stored under `result_id`.
    """

    result_json: str
    result_id: str = ""
    whole_json: str = field(default="", repr=False)

    @property
    def truncated(self) -> bool:
        """Whether the middle had to go."""
        return bool(self.result_id)


def answer(value: object, edit: Callable[[str], str] = str) -> Answer:
    """Write a tool's result, all its texts as `edit` returns them.

    Raises:
        NotJsonError: it is not JSON.
        ResultTooLargeError: it is far too large.
    """
    try:
        return _answer(clean_json(value, max_depth=MAX_RESULT_DEPTH, max_size=MAX_RESULT_SIZE, edit=edit))
    except TooLargeError as error:
        raise ResultTooLargeError from error


async def answer_aside(value: object, edit: Callable[[str], str] = str) -> Answer:
    """Do as `answer` does; what takes long in a thread, so that nobody else waits for it."""
    try:
        small = clean_json(value, max_depth=MAX_RESULT_DEPTH, max_size=MAX_SIZE_AT_ONCE, edit=edit)
    except TooLargeError:
        return await asyncio.to_thread(answer, value, edit)
    return _answer(small)


def _answer(cleaned: JsonValue) -> Answer:
    text = dump_json({"ok": True, "result": cleaned})
    if _size(text) <= MAX_ANSWER_BYTES:
        return Answer(text)
    whole = dump_lines(cleaned)
    if _size(whole) > MAX_WHOLE_BYTES:
        raise ResultTooLargeError
    result_id = new_id("result")
    return Answer(_head_and_tail(whole, result_id), result_id, whole)


def result_of(call: ToolCall, told: Answer | ToolError, note: str = "") -> ToolResult:
    """Make the result of a call; a note for the model goes along with either kind."""
    result = failed_result(call, told) if isinstance(told, ToolError) else ok_result(call, told)
    if not note:
        return result
    return replace(result, result_json=f'{result.result_json[:-1]},"note":{dump_json(note)}}}')


def ok_result(call: ToolCall, told: Answer) -> ToolResult:
    """Make the result of a call that worked."""
    return ToolResult(
        call.call_id,
        call.name,
        ToolCallStatus.OK,
        told.result_json,
        told.truncated,
        result_id=told.result_id,
        whole_json=told.whole_json,
    )


def failed_result(call: ToolCall, error: ToolError) -> ToolResult:
    """Make the result of a call that brought an error."""
    code = _short(error.code, MAX_CODE_CHARS)
    message = _short(error.message, MAX_MESSAGE_CHARS)
    told: dict[str, JsonValue] = {"code": code, "message": message, "retryable": error.retryable}
    if error.fields:
        told["fields"] = [_field(problem) for problem in error.fields[:MAX_PROBLEMS]]
    if error.hint:
        told["hint"] = _short(error.hint, MAX_MESSAGE_CHARS)
    return ToolResult(
        call.call_id,
        call.name,
        error.status,
        dump_json({"ok": False, "error": told}),
        error_code=code,
        error_message=message,
        original_call_id=error.original_call_id if isinstance(error, DuplicateCallError) else "",
    )


def finished_event(result: ToolResult) -> ToolCallFinished:
    """Tell a result as an event of the run."""
    return ToolCallFinished(
        call_id=result.call_id,
        name=result.name,
        status=result.status,
        result_json=result.result_json,
        truncated=result.truncated,
        error_code=result.error_code,
        error_message=result.error_message,
        original_call_id=result.original_call_id,
        result_id=result.result_id,
        whole_json=result.whole_json,
    )


def resolved(result_json: str, resolution: Resolution) -> str:
    """Add to what a model was told of a call in doubt what the user has said of it since."""
    said: JsonValue = {"outcome": resolution.outcome.value, "said_by": "user", "note": resolution.note}
    return f'{result_json[:-1]},"resolved":{dump_json(said)}}}'


def _field(problem: FieldProblem) -> JsonValue:
    return {"path": _short(problem.path, MAX_PATH_CHARS), "problem": _short(problem.problem, MAX_PROBLEM_CHARS)}


def _short(text: str, max_chars: int) -> str:
    return storable_text(text[:max_chars])


def _head_and_tail(text: str, result_id: str) -> str:
    """Keep both ends of a result's text, as strings inside valid JSON; offsets are in characters."""
    keep = MAX_ANSWER_BYTES // 2
    while True:
        ends: JsonValue = {"head": text[:keep], "tail": text[-keep:]}
        place: dict[str, JsonValue] = {"result_id": result_id, "next_offset": keep, "total_chars": len(text)}
        told = dump_json({"ok": True, "truncated": True, **place, "result": ends})
        if _size(told) <= MAX_ANSWER_BYTES:
            return told
        keep = keep * 3 // 4


def _size(text: str) -> int:
    return len(text.encode())
