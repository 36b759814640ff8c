"""What is granted to callers, by key or by the settings: scopes, and the users whom services may speak for."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from parley_server.domain.name_list import Names
from parley_server.domain.principal import (
    ACT_AS_PATTERN,
    ALL_SCOPES,
    SERVICE_SCOPES,
    USER_SCOPES,
    PrincipalKind,
    is_tool_scope,
)

_act_as = re.compile(ACT_AS_PATTERN)

Scopes = Annotated[Names, Field(max_length=64)]
ActAs = Annotated[Names, Field(max_length=64)]


def scopes_of(named: Iterable[str], kind: PrincipalKind) -> frozenset[str]:
    """Return the scopes that are granted: those that are named, else what a user or a service gets by default."""
    return frozenset(named) or (USER_SCOPES if kind is PrincipalKind.USER else SERVICE_SCOPES)


def unknown_scopes(scopes: Iterable[str]) -> list[str]:
    """Return those that are no scopes, sorted."""
    return sorted(scope for scope in scopes if scope not in ALL_SCOPES and not is_tool_scope(scope))


def are_act_as(patterns: Iterable[str]) -> bool:
    """Tell whether each is a user id, or the beginning of one followed by `*`."""
    return all(_act_as.match(pattern) for pattern in patterns)


def scope_problems(scopes: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with scopes: the key, and what to do."""
    if unknown := unknown_scopes(scopes):
        yield f"scopes: there is no {', '.join(unknown)}; there are {', '.join(sorted(ALL_SCOPES))} and tool:NAME"


def act_as_problems(patterns: Sequence[str], *, is_service: bool) -> Iterator[str]:
    """Yield what is wrong with the patterns of users: the key, and what to do."""
    if patterns and not is_service:
        yield "act_as: is for services; a user speaks for himself"
    if not are_act_as(patterns):
        yield "act_as: write a user id, or the beginning of one followed by *"
