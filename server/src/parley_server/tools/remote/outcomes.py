"""What a call of a host's tool came to: a result, or an error in words for the model; never the host's own status text.

Once a call is sent it may have taken effect, so that a WRITE which brings no proper answer is of unknown outcome. Only
the statuses that the contract calls refusals say, before any event, that nothing has happened.
"""

import asyncio
import json
import re
from typing import NoReturn

import grpc
from parley.v1 import tool_host_service_pb2 as pb
from pydantic import JsonValue

from parley_server.domain.tool import ToolEffect, ToolSpec
from parley_server.tools.errors import (
    FieldProblem,
    InvalidArgumentsError,
    ToolError,
    ToolGoneError,
    ToolTimedOutError,
    UnknownOutcomeError,
)
from parley_server.tools.json_value import NotJsonError, TooLargeError, clean_json
from parley_server.tools.results import MAX_RESULT_DEPTH, MAX_RESULT_SIZE

_Code = grpc.StatusCode

CHANGED = _Code.FAILED_PRECONDITION
# They say that the host has another tool by now, or none.
OUTDATED = frozenset({CHANGED, _Code.NOT_FOUND, _Code.UNIMPLEMENTED})
REFUSALS = OUTDATED | {_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED, _Code.INVALID_ARGUMENT}
# What takes some milliseconds to read.
MAX_BYTES_AT_ONCE = 64 * 1024
_ERROR_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FAULTS = frozenset({_Code.INTERNAL, _Code.UNKNOWN, _Code.DATA_LOSS})


class HostFaultError(Exception):
    """The host's answer is not what the contract promises; the message says what is wrong, for the log."""


def not_reached() -> ToolError:
    """Return the error of a call that was not sent, so that it certainly had no effect."""
    hint = "Try again later."
    return ToolError("unavailable", "The tool's host cannot be reached.", hint=hint, retryable=True)


def refused(code: grpc.StatusCode) -> ToolError:
    """Return the error of a call that the host has refused, before any event, with one of the REFUSALS."""
    if code is CHANGED:
        hint = "Look at its description again before you call it anew."
        return ToolError("tool_changed", "Not run: the tool has changed meanwhile.", hint=hint)
    if code is _Code.INVALID_ARGUMENT:
        return InvalidArgumentsError([FieldProblem("", "refused by the tool's host")])
    if code in OUTDATED:
        return ToolGoneError()
    return ToolError("unavailable", "The tool's host does not let this server in.")


def broken(code: grpc.StatusCode, spec: ToolSpec, *, is_too_large: bool) -> ToolError:
    """Return the error of a call that was sent and ended without an answer."""
    if code is _Code.DEADLINE_EXCEEDED:
        return ToolTimedOutError(spec.timeout_s, spec.effect)
    if spec.effect is ToolEffect.WRITE:
        return UnknownOutcomeError("The tool's host was lost while the tool was at work")
    if is_too_large:
        return ToolError("result_too_large", "The tool's result is too large.", hint="Ask for less at once.")
    if code in _FAULTS:
        return ToolError("internal", "The tool's host failed.")
    return ToolError("unavailable", "The tool's host was lost.", hint="Try again later.", retryable=True)


def unusable(spec: ToolSpec) -> ToolError:
    """Return the error of a call whose answer cannot be used."""
    if spec.effect is ToolEffect.WRITE:
        return UnknownOutcomeError("The tool's host gave an answer that cannot be read")
    return ToolError("internal", "The tool's host gave an answer that cannot be read.")


async def result_aside(event: pb.CallToolResponse) -> JsonValue:
    """Do as `result_of` does; what takes long in a thread, so that nobody else waits for it."""
    if event.ByteSize() <= MAX_BYTES_AT_ONCE:
        return result_of(event)
    return await asyncio.to_thread(result_of, event)


def result_of(event: pb.CallToolResponse) -> JsonValue:
    """Return the result of a call that ended well.

    Raises:
        ToolError: it ended with an error, or the result is far too large.
        HostFaultError: it is no JSON.
    """
    if event.HasField("error"):
        raise _error(event.error)
    try:
        parsed: object = json.loads(event.result.result_json, parse_constant=_refuse_constant)
        return clean_json(parsed, max_depth=MAX_RESULT_DEPTH, max_size=MAX_RESULT_SIZE)
    except TooLargeError as error:
        raise ToolError("result_too_large", "The tool's result is too large.", hint="Ask for less at once.") from error
    except (ValueError, RecursionError) as error:
        raise HostFaultError("its result is not JSON, or nested too deep") from error


def _error(error: pb.HostedToolError) -> ToolError:
    if error.code == "invalid_arguments":
        return InvalidArgumentsError([FieldProblem(field.path, field.problem) for field in error.fields])
    if error.code == "unknown_outcome":
        return UnknownOutcomeError("The tool's host does not know what became of it")
    # The text is cut, and made storable, where every tool's is.
    code = error.code if _ERROR_CODE.fullmatch(error.code) else "internal"
    return ToolError(code, error.message, hint=error.hint, retryable=error.retryable)


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")
