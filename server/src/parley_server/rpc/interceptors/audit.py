"""Who did what: one line in the log for every call of an rpc whose policy asks for it, allowed or not."""

import asyncio
import logging
from typing import TypeVar

import structlog

from parley_server.auth.policy import AccessPolicy
from parley_server.domain.errors import ErrorKind, ParleyError, Reason
from parley_server.rpc.call import Call, Handler, Method

T = TypeVar("T")

# Written whatever [log] level is: that sets how much is told of the server's work, and this is no part of it.
_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))


class AuditTrail:
    """Records calls when they end, a stream when it begins. What they carry is not recorded.

    Stands outermost, so that a call nobody could prove to have made is recorded, too.
    """

    def __init__(self, policy: AccessPolicy) -> None:
        self._policy = policy

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:
        """Record every call where the method's rule says so."""
        if not self._policy.rule_for(method.name).audit:
            return inner

        async def handler(call: Call) -> T:
            try:
                result = await inner(call)
            except BaseException as error:
                _record(call, *_outcome_of(error))
                raise
            _record(call, "OK", "")
            return result

        return handler


def _outcome_of(error: BaseException) -> tuple[str, str]:
    """Return an error's status and reason as the caller is told them; a call cut off may have been done or not."""
    if isinstance(error, ParleyError):
        return error.kind.name, error.reason
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED", ""
    return ErrorKind.INTERNAL.name, Reason.INTERNAL_ERROR


def _record(call: Call, outcome: str, reason: str) -> None:
    _log.info(
        "audit",
        method=call.method.name,
        caller="" if call.principal is None else call.principal.name,
        credential_id="" if call.principal is None else call.principal.credential_id,
        user="" if call.context is None else call.context.user_id,
        peer=call.peer(),
        request_id=call.metadata.request_id,
        decision="allowed" if call.is_allowed else "denied",
        outcome=outcome,
        reason=reason,
    )
