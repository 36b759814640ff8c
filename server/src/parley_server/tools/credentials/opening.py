"""Makes the one source of credentials that the settings describe."""

from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TypeGuard

import structlog

from parley_server.domain.errors import StartError
from parley_server.tools.credentials.chain import CredentialChain
from parley_server.tools.credentials.directory import CredentialDirectory
from parley_server.tools.credentials.settings import CredentialSettings
from parley_server.tools.credentials.shared import SharedCredentials
from parley_server.tools.credentials.source import CredentialSource

ENTRY_POINT_GROUP = "parley.credentials"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def open_credentials(settings: CredentialSettings, data_dir: Path) -> CredentialSource:
    """Return the source. Raises StartError when one that is named is not installed, or is none."""
    own = CredentialDirectory(settings.directory(data_dir))
    return CredentialChain([own, *_installed(settings.sources), SharedCredentials(settings.shared)])


def _installed(names: Iterable[str]) -> Iterator[CredentialSource]:
    """Yield the named sources; each entry point is a function without arguments that makes one."""
    there = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    for name in names:
        place = f"[credentials] sources, {name}"
        if name not in there:
            known = ", ".join(sorted(there)) or "none"
            raise StartError(f"{place}: no installed package has it as {ENTRY_POINT_GROUP}; there are {known}")
        try:
            source = there[name].load()()
        except Exception as error:
            # Where in the operator's own code it broke.
            _log.error("credential_source_not_made", source=name, exc_info=error)
            raise StartError(f"{place}: cannot be made ({type(error).__name__}); the log says why") from error
        if not _is_source(source):
            raise StartError(f"{place}: is no source of credentials; it needs `async def find(user_id, slot)`")
        yield source


def _is_source(made: object) -> TypeGuard[CredentialSource]:
    return iscoroutinefunction(getattr(made, "find", None))
