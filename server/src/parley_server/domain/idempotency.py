"""What makes a repeated request the same request."""

from dataclasses import dataclass

from parley_server.domain.context import RequestContext


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a repeated create the same create: the caller's request id and a digest of the decoded request."""

    request_id: str
    family: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class RepeatableRequest:
    """A request that carries an id, together with who makes it: ids are each caller's own."""

    context: RequestContext
    idempotency: Idempotency
