"""What an operator grants to callers that bring no key: scopes, and the users whom services may speak for."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from parley_server.domain.name_list import listed
from parley_server.domain.principal import (
    ACT_AS_PATTERN,
    ALL_SCOPES,
    SERVICE_SCOPES,
    USER_SCOPES,
    PrincipalKind,
    is_tool_scope,
)

_act_as = re.compile(ACT_AS_PATTERN)


Listed = Annotated[tuple[str, ...], BeforeValidator(listed)]
Scopes = Annotated[Listed, Field(max_length=64)]
ActAs = Annotated[Listed, Field(max_length=64)]


def scopes_of(named: Sequence[str], kind: PrincipalKind) -> frozenset[str]:
    """Return the scopes that are granted: those that are named, else what a key gets that names none."""
    return frozenset(named) or (USER_SCOPES if kind is PrincipalKind.USER else SERVICE_SCOPES)


def scope_problems(scopes: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with scopes: the key, and what to do."""
    if unknown := [scope for scope in scopes if scope not in ALL_SCOPES and not is_tool_scope(scope)]:
        yield f"scopes: there is no {', '.join(unknown)}; there are {', '.join(sorted(ALL_SCOPES))} and tool:NAME"


def act_as_problems(patterns: Sequence[str], *, is_service: bool) -> Iterator[str]:
    """Yield what is wrong with the patterns of users: the key, and what to do."""
    if patterns and not is_service:
        yield "act_as: is for services; a user speaks for himself"
    if not all(_act_as.match(pattern) for pattern in patterns):
        yield "act_as: write a user id, or the beginning of one followed by *"
