"""For whom a call is made: the claim in its metadata, checked by itself first and against the caller later.

Together they are the context middleware: it makes the one RequestContext that everything below is handed.
"""

from typing import TypeVar

import structlog

from parley_server.domain.access_errors import ContextInvalidError, CredentialsInvalidError
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.errors import ParleyError
from parley_server.rpc.call import Call, Handler, Method, present
from parley_server.rpc.call_metadata import CallMetadata
from parley_server.rpc.interceptors.interceptor import checked
from parley_server.rpc.mapping.request_context import claim_from_binary, claim_from_json

T = TypeVar("T")

_NO_CLAIM = ContextClaim()

_log = structlog.get_logger(__name__)


class ClaimReader:
    """Reads the claim, and refuses what may come once and came twice."""

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:  # noqa: ARG002  # all methods alike
        """Let in only calls whose metadata is in order."""
        return checked(self._read, inner)

    def _read(self, call: Call) -> None:
        try:
            call.claim = _claim_of(call.metadata)
        except ParleyError as error:
            _log_refusal(call, error)
            raise


class ContextBinder:
    """Binds the claim to the caller who was authenticated."""

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:  # noqa: ARG002  # all methods alike
        """Let in only callers who may speak for the user they name."""
        return checked(self._bind, inner)

    def _bind(self, call: Call) -> None:
        try:
            call.context = RequestContext.from_claim(
                present(call.claim), present(call.principal), request_id=call.metadata.request_id
            )
        except ParleyError as error:
            _log_refusal(call, error)
            raise


def _claim_of(metadata: CallMetadata) -> ContextClaim:
    if len(metadata.authorizations) > 1:
        raise CredentialsInvalidError
    match metadata.contexts:
        case ():
            return _NO_CLAIM
        case ((_, bytes(raw)),):
            return claim_from_binary(raw)
        case ((_, str(text)),):
            return claim_from_json(text)
        case _:
            raise ContextInvalidError("the RequestContext is there more than once")


def _log_refusal(call: Call, error: ParleyError) -> None:
    _log.info(
        "request_context_refused",
        method=call.method.name,
        caller="" if call.principal is None else call.principal.name,
        credential_id="" if call.principal is None else call.principal.credential_id,
        request_id=call.metadata.request_id,
        reason=error.reason,
    )
