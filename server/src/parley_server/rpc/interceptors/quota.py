"""How often the caller may ask."""

from typing import Protocol, TypeVar

from parley_server.domain.context import RequestContext
from parley_server.rpc.call import Call, Handler, Method, present
from parley_server.rpc.interceptors.interceptor import checked

T = TypeVar("T")


class RequestCounter(Protocol):
    """Counts requests; `Quotas` does."""

    def count_request(self, context: RequestContext) -> None:
        """Count a request. Raises QuotaExceededError when there were too many."""
        ...


class RequestQuota:
    """Counts every call by the caller who was proved and the user he was let in for, a stream as one."""

    def __init__(self, counter: RequestCounter) -> None:
        self._counter = counter

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:  # noqa: ARG002  # all methods alike
        """Let in only callers who have not asked too often."""
        counter = self._counter

        def check(call: Call) -> None:
            counter.count_request(present(call.context))

        return checked(check, inner)
