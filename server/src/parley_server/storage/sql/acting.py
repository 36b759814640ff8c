"""In whose name a statement runs: what the database itself lets it see and change; see `row_security`."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """A role of the database, by the end of its name."""

    USER = "user"
    """Sees and changes the rows of one user."""
    RUN_LOG = "run_log"
    """Writes the logs of all runs, and can read next to nothing."""
    ADMINISTRATION = "administration"
    """Sees to what belongs to no user, or to all: keys, recovery, retention, audit."""


@dataclass(frozen=True, slots=True)
class Acting:
    """A role, and the user it is bound to where it is the users'. Made by `acting_for`, or one of those below."""

    role: Role | None
    user_id: str = ""


RUN_LOG = Acting(Role.RUN_LOG)
ADMINISTRATION = Acting(Role.ADMINISTRATION)
OPERATOR = Acting(None)
"""Whoever the server logs in as: owner of the tables, who sees nobody's rows. For the schema alone."""


def acting_for(user_id: str) -> Acting:
    """Return what it is to act for one user. Raises ValueError where there is none."""
    if not user_id:
        raise ValueError("nobody to act for")
    return Acting(Role.USER, user_id)
