"""Reading a google.rpc.Status: from a failed call's trailers, or from a failed run."""

import math
from typing import Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from parley_client.errors import CLASS_OF_CODE, HandshakeError, ParleyError, Violation
from parley_client.handshake import handshake_fault

_STATUS_KEY = "grpc-status-details-bin"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_CODE_OF_NUMBER: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


def error_of_call(failure: aio.AioRpcError) -> ParleyError:
    """Turn the failure of a call into the error of its status code, with what the server tells of it."""
    trailers = failure.trailing_metadata() or aio.Metadata()
    error = error_of_status(_status_in(trailers), failure.code())
    if not error.reason and error.code is grpc.StatusCode.UNAVAILABLE:
        fault = handshake_fault(failure.details() or "")
        if fault:
            return HandshakeError(fault)
    error.message = error.message or failure.details() or "no details"
    error.retry_after_s = _pushback_s(trailers, error.retry_after_s)
    return error


def error_of_status(status: status_pb2.Status, code: grpc.StatusCode | None = None) -> ParleyError:
    """Turn a status into the error of its code; `code`, when given, is used instead of the status's own."""
    code = code or _CODE_OF_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    parts = _Details(status)
    return CLASS_OF_CODE.get(code, ParleyError)(
        code,
        status.message,
        reason=parts.error_info.reason,
        metadata=parts.error_info.metadata,
        request_id=parts.request_info.request_id,
        violations=[Violation(each.field, each.description) for each in parts.bad_request.field_violations],
        retry_after_s=parts.retry_after_s,
    )


class _Details:
    """The details of a status by type; a type that is not there is an empty message."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.error_info = error_details_pb2.ErrorInfo()
        self.request_info = error_details_pb2.RequestInfo()
        self.bad_request = error_details_pb2.BadRequest()
        self.retry_info = error_details_pb2.RetryInfo()
        for detail in status.details:
            for part in self._parts():
                detail.Unpack(part)  # leaves the part alone when the detail is of another type

    @property
    def retry_after_s(self) -> float | None:
        """When to try again, in seconds."""
        if not self.retry_info.HasField("retry_delay"):
            return None
        seconds: float = self.retry_info.retry_delay.ToTimedelta().total_seconds()
        return seconds

    def _parts(self) -> tuple[Message, ...]:
        return self.error_info, self.request_info, self.bad_request, self.retry_info


def _status_in(trailers: aio.Metadata) -> status_pb2.Status:
    status = status_pb2.Status()
    value = trailers.get(_STATUS_KEY)
    if isinstance(value, bytes):
        try:
            status.ParseFromString(value)
        except DecodeError:
            # Something between us and the server wrote it; the bare code still says what happened.
            status.Clear()
    return status


def _pushback_s(trailers: aio.Metadata, otherwise: float | None) -> float | None:
    value = trailers.get(_PUSHBACK_KEY)
    if not isinstance(value, str) or not value.removeprefix("-").isdecimal():
        return otherwise
    return int(value) / 1000 if int(value) >= 0 else math.inf
