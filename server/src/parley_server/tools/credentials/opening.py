"""Makes the one source of credentials that the settings describe."""

from collections.abc import Iterable, Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TypeGuard

from parley_server.domain.errors import StartError
from parley_server.installed_parts import make_installed
from parley_server.tools.credentials.chain import CredentialChain
from parley_server.tools.credentials.directory import CredentialDirectory
from parley_server.tools.credentials.settings import CredentialSettings
from parley_server.tools.credentials.shared import SharedCredentials
from parley_server.tools.credentials.source import CredentialSource

ENTRY_POINT_GROUP = "parley.credentials"
_SETTING = "[credentials] sources"


def open_credentials(settings: CredentialSettings, data_dir: Path) -> CredentialSource:
    """Return the source. Raises StartError when one that is named is not installed, or is none."""
    own = CredentialDirectory(settings.directory(data_dir))
    return CredentialChain([own, *_installed(settings.sources), SharedCredentials(settings.shared)])


def _installed(names: Iterable[str]) -> Iterator[CredentialSource]:
    for name in names:
        source = make_installed(ENTRY_POINT_GROUP, name, _SETTING)
        if not _is_source(source):
            place = f"{_SETTING}, {name}"
            raise StartError(f"{place}: is no source of credentials; it needs `async def find(user_id, slot)`")
        yield source


def _is_source(made: object) -> TypeGuard[CredentialSource]:
    return iscoroutinefunction(getattr(made, "find", None))
