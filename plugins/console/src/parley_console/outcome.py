"""The exit code of a call that failed and of a run that ended."""

from typing import Final

import grpc
from parley.v1.run_pb2 import RUN_STATE_CANCELLED, RUN_STATE_EXPIRED, RUN_STATE_SUCCEEDED, RunState

from parley_console.exit_codes import ExitCode

_OF_STATUS: Final[dict[grpc.StatusCode, ExitCode]] = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitCode.USAGE,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.USAGE,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.USAGE,
    grpc.StatusCode.UNIMPLEMENTED: ExitCode.USAGE,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.LIMIT,
    grpc.StatusCode.ABORTED: ExitCode.LIMIT,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.NOT_ALLOWED,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.NOT_ALLOWED,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.DEADLINE,
    grpc.StatusCode.CANCELLED: ExitCode.CANCELLED,
}

_OF_STATE: Final[dict[RunState.ValueType, ExitCode]] = {
    RUN_STATE_SUCCEEDED: ExitCode.OK,
    RUN_STATE_EXPIRED: ExitCode.DEADLINE,
    RUN_STATE_CANCELLED: ExitCode.CANCELLED,
}


def exit_code_of_status(code: grpc.StatusCode) -> ExitCode:
    """Return the exit code for a call that failed."""
    return _OF_STATUS.get(code, ExitCode.INTERNAL)


def exit_code_of_run(state: RunState.ValueType) -> ExitCode:
    """Return the exit code for a run that ended."""
    return _OF_STATE.get(state, ExitCode.RUN_FAILED)
