"""What calls leave in the audit log: what is written before a call is served, after it, and beside it."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime

from parley_server.auth.peer import origin_of
from parley_server.domain.audit import ACT_AS, AuditDecision, AuditEntry
from parley_server.domain.context import RequestContext
from parley_server.domain.per_user import UserKey
from parley_server.rpc.audit_sampling import EntrySampler
from parley_server.rpc.call import Call
from parley_server.rpc.mapping.audit_object import NOTHING, AuditObject
from parley_server.storage.audit_log import AuditRecorder
from parley_server.storage.audit_queue import AuditQueue

# A minute, of one caller, and of how many callers.
REFUSALS, REFUSED_CALLERS = 60, 256
# A minute, from one address, and from how many: those who fail here are nobody, and may be everywhere.
FAILURES, FAILING_ORIGINS = 5, 64
ACTING_REPEAT_S = 3600.0
MAX_ACTING = 4096


class Auditor:
    """Records calls; of what may be told often it records a part, with a count of the rest."""

    def __init__(self, log: AuditRecorder, queue: AuditQueue) -> None:
        self._log = log
        self._queue = queue
        self._refusals = EntrySampler(REFUSALS, REFUSED_CALLERS)
        self._failures = EntrySampler(FAILURES, FAILING_ORIGINS)
        self._acting: OrderedDict[tuple[UserKey, str], float] = OrderedDict()
        queue.feed_from(self._due)

    async def admit(self, call: Call, target: AuditObject) -> None:
        """Record a call that is about to be served. Raises StorageUnavailableError: then it must not be."""
        # Whoever stops waiting does not know whether the entry will be there; then one that tells the end must be.
        call.audit_position = 0
        call.audit_position = await self._log.record(_entry_of(call, target))

    def ended(self, call: Call, status: str, reason: str, target: AuditObject = NOTHING) -> None:
        """Record what became of a call that was admitted, or what it has made."""
        entry = _entry_of(call, target, status, reason, about=call.audit_position or None)
        self._queue.offer(entry, essential=True)

    def refused(self, call: Call, status: str, reason: str) -> None:
        """Record a call that was not let in, or not served."""
        entry = _entry_of(call, NOTHING, status, reason)
        if call.principal is None:
            passed = self._failures.sift(origin_of(call.peer()), entry)
        else:
            passed = self._refusals.sift(call.principal.name, entry)
        for each in passed:
            self._queue.offer(each)

    def acted(self, call: Call, context: RequestContext) -> None:
        """Record that a caller speaks for another, once in ACTING_REPEAT_S for each pair of them."""
        pair = UserKey(context), " ".join(context.actors)
        now = time.monotonic()
        if now - self._acting.get(pair, -ACTING_REPEAT_S) < ACTING_REPEAT_S:
            return
        self._acting[pair] = now
        self._acting.move_to_end(pair)
        if len(self._acting) > MAX_ACTING:
            self._acting.popitem(last=False)
        self._queue.offer(_entry_of(call, ("method", call.method.name), "OK", action=ACT_AS))

    def _due(self, is_over: bool) -> Iterator[AuditEntry]:
        for sampler in (self._refusals, self._failures):
            yield from sampler.due(is_over=is_over)


def _entry_of(
    call: Call,
    target: AuditObject,
    status: str = "",
    reason: str = "",
    *,
    action: str = "",
    about: int | None = None,
) -> AuditEntry:
    principal, context = call.principal, call.context
    return AuditEntry(
        datetime.now(UTC),
        action or call.method.name,
        AuditDecision.ALLOWED if call.is_allowed else AuditDecision.DENIED,
        principal="" if principal is None else principal.name,
        actors=() if context is None else context.actors,
        user_id="" if context is None else context.user_id,
        object_type=target[0],
        object_id=target[1],
        status=status,
        reason=reason,
        request_id=call.metadata.request_id,
        peer=call.peer(),
        credential_id="" if principal is None else principal.credential_id,
        about=about,
    )
