"""How often the caller may ask."""

from typing import TypeVar

from parley_server.quotas.quotas import Quotas
from parley_server.rpc.call import Call, Handler, Method, present
from parley_server.rpc.interceptors.interceptor import checked

T = TypeVar("T")


class RequestQuota:
    """Counts every call by the caller who was proved and the user he was let in for, a stream as one."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:  # noqa: ARG002  # all methods alike
        """Let in only callers who have not asked too often."""
        count = self._quotas.count_request

        def check(call: Call) -> None:
            count(present(call.context))

        return checked(check, inner)
