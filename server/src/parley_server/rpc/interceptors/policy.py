"""What the caller may do."""

from typing import TypeVar

from parley_server.auth.policy import AccessPolicy
from parley_server.rpc.call import Call, Handler, Method, present
from parley_server.rpc.interceptors.interceptor import checked

T = TypeVar("T")


class PolicyEnforcement:
    """Applies each method's access rule."""

    def __init__(self, policy: AccessPolicy) -> None:
        self._policy = policy

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:
        """Let in only callers the method's rule allows. Raises MethodWithoutRuleError when it has none."""
        rule = self._policy.rule_for(method.name)

        def check(call: Call) -> None:
            rule.check(present(call.context))
            call.is_allowed = True

        return checked(check, inner)
