"""Who calls: the identity a credential proves, and what it may do."""

import re
from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from parley_server.domain.name_list import fits

USER_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}\Z"
ACT_AS_PATTERN = r"^(\*|[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}\*?)\Z"

# Beyond it nobody could say any more who answers for what is done.
MAX_ACTORS = 4

UserId = Annotated[str, StringConstraints(pattern=USER_ID_PATTERN)]
ActAsPattern = Annotated[str, StringConstraints(pattern=ACT_AS_PATTERN)]

# Somebody who acts for a user, by his `Principal.name`; a tool host is the service `host:weather`.
Actor = Annotated[str, StringConstraints(pattern=r"^(user|service):[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}\Z")]
Actors = Annotated[tuple[Actor, ...], Field(max_length=MAX_ACTORS)]

ADMIN_SCOPE = "admin"
DECIDE_SCOPE = "approvals:decide"
ERASE_SCOPE = "account:erase"
SERVICE_SCOPES = frozenset(
    {
        "account:read",
        "account:write",
        "agents:read",
        "conversations:read",
        "conversations:write",
        "runs:read",
        "runs:write",
    }
)
USER_SCOPES = SERVICE_SCOPES | {DECIDE_SCOPE, ERASE_SCOPE}
ALL_SCOPES = USER_SCOPES | {ADMIN_SCOPE}
# Stands for the scopes of all tools, whatever they are named.
ALL_TOOLS_SCOPE = "tool:*"

# Before the name of a service it is the user whose things are the service's own, and the service as one who acts: no
# user's id begins so.
SERVICE_PREFIX = "service:"
# With the prefix it is still as long as a user's id may be.
MAX_SERVICE_CHARS = 128 - len(SERVICE_PREFIX)

_tool_scope = re.compile(r"^tool:[a-z][a-z_]{0,31}\Z")
_user_id = re.compile(USER_ID_PATTERN)


def is_user_id(value: str) -> bool:
    """Tell whether `value` is a well-formed id of a user, and not the one of a service's own things."""
    return _user_id.match(value) is not None and not value.startswith(SERVICE_PREFIX)


def is_service_id(value: str) -> bool:
    """Tell whether `value` is a well-formed name of a service."""
    return is_user_id(value) and len(value) <= MAX_SERVICE_CHARS


def is_tool_scope(scope: str) -> bool:
    """Tell whether this is a scope that opens tools: `tool:` and a word of the operator's, `tool:refunds`."""
    return _tool_scope.match(scope) is not None


def missing_scopes(wanted: Iterable[str], held: Collection[str]) -> frozenset[str]:
    """Return those of the wanted scopes that are not held."""
    missing = frozenset(wanted).difference(held)
    if ALL_TOOLS_SCOPE in held:
        return frozenset(scope for scope in missing if not is_tool_scope(scope))
    return missing


class PrincipalKind(StrEnum):
    """A user speaks for himself; a service may speak for the users its patterns name."""

    USER = "user"
    SERVICE = "service"

    def is_name(self, value: str) -> bool:
        """Tell whether `value` is a well-formed name of one of this kind."""
        return is_user_id(value) if self is PrincipalKind.USER else is_service_id(value)


def owner_of(user_id: str) -> tuple[PrincipalKind, str]:
    """Return who a user is: a service where these are its own things, by its name; see `Principal.own_user_id`."""
    if user_id.startswith(SERVICE_PREFIX):
        return PrincipalKind.SERVICE, user_id.removeprefix(SERVICE_PREFIX)
    return PrincipalKind.USER, user_id


class Principal(BaseModel):
    """The verified caller. Made by an AuthProvider and by nobody else. Raises ValidationError for what names nobody.

    `scopes` are the credential's; those of a call are `RequestContext.scopes`. `actors` are who acts for the subject by
    this credential, the present one first; empty where it is his own. `expires_at`, in UTC, is when the credential ends
    by itself; None never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", regex_engine="python-re")

    kind: PrincipalKind
    subject: UserId
    scopes: frozenset[str] = frozenset()
    act_as: tuple[ActAsPattern, ...] = ()
    method: str
    credential_id: str = ""
    actors: Actors = ()
    expires_at: datetime | None = None

    @model_validator(mode="after")
    def _names_its_kind(self) -> Self:
        if not self.kind.is_name(self.subject):
            raise ValueError(f"not the name of a {self.kind}")
        return self

    @property
    def name(self) -> str:
        """The caller for logs and keys, such as `user:ann`: a user and a service may have one subject."""
        return f"{self.kind}:{self.subject}"

    @property
    def own_user_id(self) -> str:
        """The user whose things are the caller's own: himself, for a service one that no user and no pattern means."""
        return self.subject if self.kind is PrincipalKind.USER else f"{SERVICE_PREFIX}{self.subject}"

    def may_act_as(self, user_id: str) -> bool:
        """Tell whether this caller may speak for `user_id`: himself, or inside a service's patterns."""
        if user_id == self.own_user_id:
            return True
        if self.kind is not PrincipalKind.SERVICE or not is_user_id(user_id):
            return False
        return fits(self.act_as, user_id)
