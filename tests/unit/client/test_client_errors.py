"""Every status becomes the error of its code, with all the server tells of it."""

import math

import grpc
import parley_client
import pytest
from google.rpc import error_details_pb2, status_pb2
from parley_client import ParleyError, Violation
from parley_client.errors import CLASS_OF_CODE
from parley_client.rich_status import error_of_call, error_of_status
from unit.client.statuses import error_info, failure, retry_info, trailers


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_has_a_public_error(code: grpc.StatusCode) -> None:
    error = error_of_call(failure(code, "words"))
    assert type(error) is CLASS_OF_CODE[code]
    assert getattr(parley_client, type(error).__name__) is type(error)
    assert (error.code, error.message, error.reason) == (code, "words", "")
    assert str(error) == f"{code.name}: words"


def test_a_rich_status_is_read_whole() -> None:
    code = grpc.StatusCode.INVALID_ARGUMENT
    violations = [error_details_pb2.BadRequest.FieldViolation(field="run.input", description="must not be empty")]
    rich = trailers(
        code,
        "run.input: must not be empty",
        error_info("INVALID_REQUEST", hint="say something"),
        error_details_pb2.RequestInfo(request_id="req-1"),
        error_details_pb2.BadRequest(field_violations=violations),
        retry_info(1.5),
        error_details_pb2.Help(),
    )
    error = error_of_call(failure(code, "shorter words", rich))
    assert isinstance(error, parley_client.InvalidRequestError)
    assert error.message == "run.input: must not be empty"
    assert (error.reason, error.metadata) == ("INVALID_REQUEST", {"hint": "say something"})
    assert error.request_id == "req-1"
    assert error.violations == (Violation("run.input", "must not be empty"),)
    assert error.retry_after_s == 1.5
    assert str(error) == "INVALID_REQUEST: run.input: must not be empty"


def test_the_calls_code_counts_where_the_status_says_another() -> None:
    rich = trailers(grpc.StatusCode.NOT_FOUND, "words", error_info("RESOURCE_NOT_FOUND"))
    error = error_of_call(failure(grpc.StatusCode.UNAVAILABLE, "", rich))
    assert isinstance(error, parley_client.UnavailableError)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"", b"\x08"])
def test_details_that_cannot_be_read_leave_the_bare_status(garbage: bytes) -> None:
    error = error_of_call(failure(grpc.StatusCode.NOT_FOUND, "words", [("grpc-status-details-bin", garbage)]))
    assert (type(error), error.message, error.reason) == (parley_client.NotFoundError, "words", "")


@pytest.mark.parametrize(
    ("pushback", "retry_after_s"), [("250", 0.25), ("0", 0.0), ("-1", math.inf), ("soon", None), ("", None)]
)
def test_pushback_is_a_wish_to_wait(pushback: str, retry_after_s: float | None) -> None:
    error = error_of_call(failure(grpc.StatusCode.UNAVAILABLE, "busy", [("grpc-retry-pushback-ms", pushback)]))
    assert error.retry_after_s == retry_after_s


def test_a_status_in_a_message_becomes_an_error_of_its_own_code() -> None:
    error = error_of_status(status_pb2.Status(code=8, message="too much"))
    assert isinstance(error, parley_client.LimitReachedError)
    unknown = error_of_status(status_pb2.Status(code=99, message="from the future"))
    assert type(unknown) is parley_client.InternalError


def test_every_error_is_a_parley_error() -> None:
    named = [getattr(parley_client, name) for name in parley_client.__all__ if name.endswith("Error")]
    assert all(issubclass(each, ParleyError) for each in named)
