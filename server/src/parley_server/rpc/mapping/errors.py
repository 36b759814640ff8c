"""Errors: Parley's own to google.rpc.Status, with exactly one ErrorInfo, small enough for any client's trailers."""

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from parley_server.domain.errors import ErrorKind, ErrorStatus, NotFoundError, ParleyError, Reason, Violation

DOMAIN = "parley.v1"
MAX_STATUS_BYTES = 4096
MAX_MESSAGE_CHARACTERS = 512
_MAX_FIELD_CHARACTERS = 256
_MAX_METADATA_PAIRS = 4
_PACKING_BYTES = 64

_OF_QUOTAS = frozenset({Reason.QUOTA_EXCEEDED, Reason.BUDGET_EXCEEDED})
_CODES = {kind: code_pb2.Code.Value(kind.name) for kind in ErrorKind}
_KINDS = {code: kind for kind, code in _CODES.items()}


def to_status(error: ParleyError, request_id: str) -> status_pb2.Status:
    """Say everything a client may know of an error, in at most MAX_STATUS_BYTES.

    Carries ErrorInfo and RequestInfo always, RetryInfo, QuotaFailure, ResourceInfo and BadRequest where they say more.
    """
    status = status_pb2.Status(code=_CODES[error.kind], message=error.message[:MAX_MESSAGE_CHARACTERS])
    _add(status, _error_info(error))
    _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    _add_retry_info(status, error.retry_after_s)
    _add_quota_failure(status, error)
    if isinstance(error, NotFoundError):
        _add(status, error_details_pb2.ResourceInfo(resource_type=error.metadata["resource_type"]))
    if error.violations:
        _add(status, _bad_request(error.violations, MAX_STATUS_BYTES - status.ByteSize() - _PACKING_BYTES))
    return status


def write_run_error(target: status_pb2.Status, error: ErrorStatus) -> None:
    """Write what a failed run keeps into a message's own field."""
    target.code = _CODES[error.kind]
    target.message = error.message[:MAX_MESSAGE_CHARACTERS]
    _add(target, _error_info(error))
    _add_retry_info(target, error.retry_after_s)
    _add_quota_failure(target, error)


def read_run_error(source: status_pb2.Status) -> ErrorStatus:
    """Read what `write_run_error` wrote; what a later version wrote and this one cannot name is INTERNAL_ERROR."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in source.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    reason = Reason(info.reason) if info.reason in Reason.__members__ else Reason.INTERNAL_ERROR
    kind = _KINDS.get(source.code, ErrorKind.INTERNAL)
    return ErrorStatus(kind, reason, source.message, dict(info.metadata), retry_after_s)


def _error_info(error: ParleyError | ErrorStatus) -> error_details_pb2.ErrorInfo:
    pairs = list(error.metadata.items())[:_MAX_METADATA_PAIRS]
    return error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={key: value[:_MAX_FIELD_CHARACTERS] for key, value in pairs},
    )


def _bad_request(violations: tuple[Violation, ...], max_bytes: int) -> error_details_pb2.BadRequest:
    """Name the violations in order, as many as there is room for."""
    bad_request = error_details_pb2.BadRequest()
    for violation in violations:
        bad_request.field_violations.add(
            field=violation.field[:_MAX_FIELD_CHARACTERS], description=violation.description[:_MAX_FIELD_CHARACTERS]
        )
        if bad_request.ByteSize() > max_bytes:
            del bad_request.field_violations[-1]
            break
    return bad_request


def _add_retry_info(status: status_pb2.Status, retry_after_s: float | None) -> None:
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after_s * 1000))
        _add(status, retry)


def _add_quota_failure(status: status_pb2.Status, error: ParleyError | ErrorStatus) -> None:
    """Name the limit: its subject by the kind alone, for whose it is may be nobody else's affair."""
    if error.reason in _OF_QUOTAS:
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=error.metadata.get("subject", ""), description=status.message)
        _add(status, failure)


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)
