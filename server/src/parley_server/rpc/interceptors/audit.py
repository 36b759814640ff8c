"""Who did what: an entry and a line in the log for every call of an rpc whose policy asks for it, allowed or not.

Of other rpcs those calls are recorded that are refused to their caller, and by whom others are spoken for.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar, cast

import structlog

from parley_server.auth.policy import AccessPolicy
from parley_server.domain.errors import ErrorKind, ParleyError, Reason
from parley_server.rpc.auditor import Auditor
from parley_server.rpc.call import Call, Handler, Method, Response
from parley_server.rpc.mapping.audit_object import made_object_reader, object_reader

T = TypeVar("T")

# Recorded of every rpc: what a caller may not do, and what nobody could prove to be.
_REFUSALS = frozenset({ErrorKind.PERMISSION_DENIED.name, ErrorKind.UNAUTHENTICATED.name})
_REFUSAL_REASONS = frozenset({Reason.AUTH_RATE_LIMITED})

# Written whatever [log] level is: that sets how much is told of the server's work, and this is no part of it.
_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))


class AuditTrail:
    """Records how calls end, a stream's line when it begins. What they carry is not recorded.

    Stands outermost, so that a call nobody could prove to have made is recorded, too. Without an auditor there are the
    lines of the log alone.
    """

    def __init__(self, policy: AccessPolicy, auditor: Auditor | None) -> None:
        self._policy = policy
        self._auditor = auditor

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:
        """Record every call where the method's rule says so, and elsewhere what every rpc's record is kept of."""
        is_audited = self._policy.rule_for(method.name).audit
        if self._auditor is not None:
            inner = _Recorded(method, self._auditor, is_audited=is_audited).wrap(inner)
        return _logged(inner) if is_audited else inner


class AuditGate:
    """Lets a call that is to be recorded be served only when its entry is durable.

    Stands innermost: whatever refuses a call has done so, and its request is read.
    """

    def __init__(self, policy: AccessPolicy, auditor: Auditor | None) -> None:
        self._policy = policy
        self._auditor = auditor

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:
        """Record what is about to be done, where the method's rule says so."""
        auditor = self._auditor
        if auditor is None or not self._policy.rule_for(method.name).audit:
            return inner
        object_of = object_reader(method.request_type)

        async def handler(call: Call) -> T:
            await auditor.admit(call, object_of(call.request))
            return await inner(call)

        return handler


class _Recorded:
    """Puts into the audit log what becomes of one method's calls."""

    def __init__(self, method: Method, auditor: Auditor, *, is_audited: bool) -> None:
        self._auditor = auditor
        self._is_audited = is_audited
        self._made = made_object_reader(method.request_type, method.response_type)

    def wrap(self, inner: Handler[T]) -> Handler[T]:
        async def handler(call: Call) -> T:
            try:
                result = await inner(call)
            except BaseException as error:
                self._failed(call, error)
                raise
            finally:
                if call.is_allowed and (context := call.context) is not None and context.actors:
                    self._auditor.acted(call, context)
            return result if call.audit_position is None else self._served(call, result)

        return handler

    def _failed(self, call: Call, error: BaseException) -> None:
        status, reason = _outcome_of(error)
        if call.audit_position is not None:
            self._auditor.ended(call, status, reason)
        elif self._is_audited or status in _REFUSALS or reason in _REFUSAL_REASONS:
            self._auditor.refused(call, status, reason)

    def _served(self, call: Call, result: T) -> T:
        """Note what a call has made, where its request could not name it; follow a stream to its end."""
        if isinstance(result, AsyncGenerator):
            return cast("T", self._followed(call, result))
        made = self._made(result)
        if made[1]:
            self._auditor.ended(call, "OK", "", made)
        return result

    async def _followed(self, call: Call, responses: AsyncGenerator[Response]) -> AsyncGenerator[Response]:
        try:
            async with aclosing(responses):
                async for response in responses:
                    yield response
        except BaseException as error:
            self._failed(call, error)
            raise


def _logged(inner: Handler[T]) -> Handler[T]:
    async def handler(call: Call) -> T:
        try:
            result = await inner(call)
        except BaseException as error:
            _log_call(call, *_outcome_of(error))
            raise
        _log_call(call, "OK", "")
        return result

    return handler


def _outcome_of(error: BaseException) -> tuple[str, str]:
    """Return an error's status and reason as the caller is told them; a call cut off may have been done or not."""
    if isinstance(error, ParleyError):
        return error.kind.name, error.reason
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "CANCELLED", ""
    return ErrorKind.INTERNAL.name, Reason.INTERNAL_ERROR


def _log_call(call: Call, outcome: str, reason: str) -> None:
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
