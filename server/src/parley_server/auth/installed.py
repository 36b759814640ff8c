"""Providers that other packages bring."""

from parley_server.auth.provider import AuthProvider
from parley_server.domain.errors import StartError
from parley_server.installed_parts import make_installed, names_in

ENTRY_POINT_GROUP = "parley.auth_providers"
_SETTING = "[auth] providers"


def installed_names() -> frozenset[str]:
    """Return the names of the providers that installed packages bring."""
    return names_in(ENTRY_POINT_GROUP)


def installed_provider(name: str) -> AuthProvider:
    """Make the provider of a name. Raises StartError that names it when it is not there, fails, or is none."""
    made = make_installed(ENTRY_POINT_GROUP, name, _SETTING)
    if not isinstance(made, AuthProvider):
        raise StartError(f"{_SETTING}, {name}: is no AuthProvider of parley_server.auth.provider")
    return made
