"""What is asked for: the message is read only here, from callers who may ask."""

from typing import TypeVar

from google.protobuf.message import DecodeError

from parley_server.domain.call_errors import MalformedMessageError
from parley_server.rpc.call import Call, Handler, Method
from parley_server.rpc.interceptors.interceptor import async_checked
from parley_server.rpc.message_rules import validate

T = TypeVar("T")


class Validation:
    """Reads the request, and holds it to the rules its proto states."""

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:
        """Let in only requests that keep the contract."""
        decode = method.request_type.FromString

        async def check(call: Call) -> None:
            raw = await call.receive()
            try:
                request = decode(raw)
            except DecodeError:
                raise MalformedMessageError("the request is not a message of the method's type") from None
            validate(request)
            call.request = request

        return async_checked(check, inner)
