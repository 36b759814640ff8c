"""What the model is told a call came to: `{"ok":true,"result":...}` or `{"ok":false,"error":{...}}`."""

from dataclasses import dataclass

from pydantic import JsonValue

from parley_server.domain.content import storable_text
from parley_server.domain.run_event import ToolCallFinished
from parley_server.domain.tool import ToolCall, ToolCallStatus, ToolResult
from parley_server.tools.errors import DuplicateCallError, FieldProblem, ToolError
from parley_server.tools.json_value import TooLargeError, clean_json, dump_json

MAX_INLINE_BYTES = 32 * 1024
MAX_RESULT_SIZE = 4 * 1024 * 1024
MAX_RESULT_DEPTH = 64
# Together they keep an error's JSON below the inline limit, however its characters are escaped.
MAX_CODE_CHARS = 64
MAX_MESSAGE_CHARS = 1024
MAX_PATH_CHARS = 100
MAX_PROBLEM_CHARS = 200
MAX_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """A tool's result as the text the model is told; `truncated` when the middle had to go."""

    result_json: str
    truncated: bool = False


def answer(value: object) -> Answer:
    """Write a tool's result.

    Raises:
        NotJsonError: it is not JSON.
        ToolError: it is far too large.
    """
    try:
        cleaned = clean_json(value, max_depth=MAX_RESULT_DEPTH, max_size=MAX_RESULT_SIZE)
    except TooLargeError as error:
        hint = "Ask for less at once."
        raise ToolError("result_too_large", "The tool's result is too large.", hint=hint) from error
    text = dump_json({"ok": True, "result": cleaned})
    if _size(text) <= MAX_INLINE_BYTES:
        return Answer(text)
    return Answer(_head_and_tail(dump_json(cleaned)), truncated=True)


def ok_result(call: ToolCall, told: Answer) -> ToolResult:
    """Make the result of a call that worked."""
    return ToolResult(call.call_id, call.name, ToolCallStatus.OK, told.result_json, told.truncated)


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
    )


def _field(problem: FieldProblem) -> JsonValue:
    return {"path": _short(problem.path, MAX_PATH_CHARS), "problem": _short(problem.problem, MAX_PROBLEM_CHARS)}


def _short(text: str, max_chars: int) -> str:
    return storable_text(text[:max_chars])


def _head_and_tail(text: str) -> str:
    """Keep both ends of a result's text, as strings inside valid JSON."""
    keep = MAX_INLINE_BYTES // 2
    while True:
        ends: JsonValue = {"head": text[:keep], "tail": text[-keep:]}
        told = dump_json({"ok": True, "truncated": True, "total_bytes": _size(text), "result": ends})
        if _size(told) <= MAX_INLINE_BYTES:
            return told
        keep = keep * 3 // 4


def _size(text: str) -> int:
    return len(text.encode())
