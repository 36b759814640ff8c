"""Providers that other packages bring."""

from importlib.metadata import EntryPoint, entry_points

import structlog

from parley_server.auth.provider import AuthProvider
from parley_server.domain.errors import StartError

ENTRY_POINT_GROUP = "parley.auth_providers"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def installed_names() -> frozenset[str]:
    """Return the names of the providers that installed packages bring."""
    return frozenset(_entries())


def installed_provider(name: str) -> AuthProvider:
    """Make the provider of a name. Raises StartError that names it when it is not there, fails, or is none."""
    place = f"[auth] providers, {name}"
    entry = _entries().get(name)
    if entry is None:
        raise StartError(f"{place}: no installed package has it as {ENTRY_POINT_GROUP}")
    try:
        made: object = entry.load()()
    except Exception as error:
        # Where in the operator's own code it broke.
        _log.error("auth_provider_not_made", provider=name, exc_info=error)
        raise StartError(f"{place}: cannot be made ({type(error).__name__}); the log says why") from error
    if not isinstance(made, AuthProvider):
        raise StartError(f"{place}: is no AuthProvider of parley_server.auth.provider")
    return made


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
