"""One call on its way through the interceptors."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from parley_server.auth.provider import Credentials
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.principal import Principal
from parley_server.rpc.call_metadata import CallMetadata

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method:
    """An rpc of a registered service.

    `name` is its full name, `/parley.v1.AgentService/GetRun`. A public one is served without credentials. One with a
    stream of requests reads them itself.
    """

    name: str
    request_type: type[Message]
    response_type: type[Message]
    is_public: bool
    has_request_stream: bool = False


@dataclass(slots=True)
class Call:
    """What is known of a call; each interceptor adds what it found, and nothing is ambient.

    It is filled in and not copied, since that is most of what the chain would cost. Servicers never see it.
    `peer` asks the transport for the other end's address, `certificate` for the PEM of the certificate that it showed,
    None without one; `receive` reads the request's message off the wire, which
    nobody does before the caller is let in; `receive_next` reads the next one of a stream of requests, None at its end.
    `audit_position` is that of the entry that was written before it is served; 0: it may be there, or not.
    """

    method: Method
    metadata: CallMetadata
    peer: Callable[[], str]
    certificate: Callable[[], bytes | None]
    receive: Callable[[], Awaitable[bytes]]
    receive_next: Callable[[], Awaitable[bytes | None]]
    claim: ContextClaim | None = None
    credentials: Credentials | None = None
    principal: Principal | None = None
    context: RequestContext | None = None
    request: Message | None = None
    is_allowed: bool = False
    audit_position: int | None = None


# A message, or the bytes of one that was serialized before.
Response = Message | bytes

# Answers a call: with a response, or with the generator of a stream's responses.
Handler = Callable[[Call], Awaitable[T]]


def present(part: T | None) -> T:
    """Return what an earlier interceptor found. Raises LookupError when that one is missing: the call fails closed."""
    if part is None:
        raise LookupError("an interceptor is missing from the chain")
    return part
