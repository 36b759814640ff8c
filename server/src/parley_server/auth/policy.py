"""What a caller may do: a rule for every method, and no entry for those without one."""

from collections.abc import Mapping
from dataclasses import dataclass

from parley_server.domain.access_errors import PrincipalNotAllowedError, ScopeMissingError
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import PrincipalKind


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method: holders of `scope`, with an empty one everybody; of one kind, or with None of either.

    `audit` asks for a record of every call.
    """

    scope: str = ""
    principal_kind: PrincipalKind | None = None
    audit: bool = False

    def check(self, context: RequestContext) -> None:
        """Let a call pass. Raises PrincipalNotAllowedError, ScopeMissingError."""
        if self.principal_kind is not None and context.principal.kind is not self.principal_kind:
            raise PrincipalNotAllowedError(self.principal_kind)
        if self.scope and self.scope not in context.scopes:
            raise ScopeMissingError.of(self.scope, is_held=self.scope in context.principal.scopes)


class MethodWithoutRuleError(Exception):
    """A method has no access rule, so nobody may call it and the server does not start with it."""


class AccessPolicy:
    """The rules of all methods by their full names (`/parley.v1.AgentService/GetRun`)."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = dict(rules)

    def rule_for(self, method: str) -> Rule:
        """Return the method's rule. Raises MethodWithoutRuleError: there is no default."""
        try:
            return self._rules[method]
        except KeyError:
            raise MethodWithoutRuleError(f"{method} has no access rule") from None
