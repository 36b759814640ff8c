"""One execution of a tool: whatever it does, the server gets one event that answers the call."""

import asyncio
import logging
from typing import TypeVar

from parley.v1 import tool_host_service_pb2 as pb
from pydantic import BaseModel, ValidationError

from parley_client.tool_host.call import ToolContext, ToolError
from parley_client.tool_host.definition import DefinedTool
from parley_client.tool_host.wire_text import wire_text

MAX_RESULT_BYTES = 4 * 1024 * 1024
_MAX_CODE_CHARS = 64
_MAX_TEXT_CHARS = 1024
_MAX_PATH_CHARS = 100
_MAX_PROBLEM_CHARS = 200
_MAX_PROBLEMS = 10

A = TypeVar("A", bound=BaseModel)

_log = logging.getLogger("parley_client.tool_host")


async def execute(tool: DefinedTool[A], context: ToolContext, arguments_json: str) -> pb.CallToolResponse:
    """Run a tool until `context.deadline` at most; return its result or what went wrong, never an exception's text."""
    try:
        arguments = tool.arguments_model.model_validate_json(arguments_json)
    except ValidationError as error:
        return pb.CallToolResponse(error=_invalid_arguments(error))
    try:
        async with asyncio.timeout_at(context.deadline):
            result = await tool.function(context, arguments)
        return _result(result)
    except ToolError as error:
        return _failed(error)
    except TimeoutError:
        if asyncio.get_running_loop().time() < context.deadline:
            return _broken(context)
        return _failed(ToolError("timeout", "The tool did not finish in time."))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody has cancelled the call: the tool says it of itself, and the server would wait for its answer.
        return _broken(context)
    except (Exception, SystemExit):  # noqa: BLE001  # whatever a tool raises ends its call, not the host
        return _broken(context)


def _result(result: BaseModel) -> pb.CallToolResponse:
    text = result.model_dump_json()
    if len(text.encode()) > MAX_RESULT_BYTES:
        return _failed(ToolError("result_too_large", "The result is too large.", hint="Ask for less at once."))
    return pb.CallToolResponse(result=pb.HostedToolResult(result_json=text))


def _broken(context: ToolContext) -> pb.CallToolResponse:
    """Log the exception that is being handled, and tell nothing of it."""
    _log.exception("tool %s failed in run %s, call %s", context.tool_name, context.run_id, context.call_id)
    return _failed(ToolError("internal", "The tool failed."))


def _failed(error: ToolError) -> pb.CallToolResponse:
    told = pb.HostedToolError(
        code=wire_text(error.code, _MAX_CODE_CHARS),
        message=wire_text(error.message, _MAX_TEXT_CHARS),
        hint=wire_text(error.hint, _MAX_TEXT_CHARS),
        retryable=error.retryable,
    )
    return pb.CallToolResponse(error=told)


def _invalid_arguments(error: ValidationError) -> pb.HostedToolError:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return pb.HostedToolError(
        code="invalid_arguments",
        message="The arguments do not fit the tool.",
        fields=[
            pb.HostedToolFieldProblem(
                path=wire_text(_path(problem["loc"]), _MAX_PATH_CHARS),
                problem=wire_text(problem["msg"], _MAX_PROBLEM_CHARS),
            )
            for problem in problems[:_MAX_PROBLEMS]
        ],
    )


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
