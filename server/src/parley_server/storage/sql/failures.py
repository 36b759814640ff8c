"""Telling a store that cannot do its work from a statement that is at fault."""

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

# SQLSTATE classes of a statement's own faults: a value out of range, a broken constraint.
_FAULTS = ("22", "23")


def cause_of(error: BaseException) -> str:
    """Return what the engine said, without what it quotes of a row that it cannot decode."""
    return str(getattr(error, "orig", None) or error).partition(" with text ")[0]


def is_unavailable(error: DBAPIError) -> bool:
    """Tell whether the engine could not do it: busy, full, away, not as the schema says. Trying later may help."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return not isinstance(error, IntegrityError | DataError) and not state.startswith(_FAULTS)
