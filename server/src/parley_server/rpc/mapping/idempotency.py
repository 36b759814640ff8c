"""What makes a repeated request the same request."""

import hashlib

from google.protobuf.message import Message

from parley_server.domain.context import RequestContext
from parley_server.domain.idempotency import Idempotency, RepeatableRequest


def idempotency_of(request: Message, request_id: str, family: str) -> Idempotency | None:
    """Return the record of a request's own `request_id`; None when it is empty and the call stands alone.

    The fingerprint covers every field but the request id, so rpcs of one family need requests of the same shape.
    """
    if not request_id:
        return None
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
    return Idempotency(request_id, family, digest)


def repeatable_request(
    context: RequestContext, request: Message, request_id: str, family: str
) -> RepeatableRequest | None:
    """Return a request's own record together with its caller; None when its `request_id` is empty."""
    idempotency = idempotency_of(request, request_id, family)
    return None if idempotency is None else RepeatableRequest(context, idempotency)
