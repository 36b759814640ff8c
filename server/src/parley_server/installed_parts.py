"""What installed packages bring by entry points, each a function without arguments that makes one."""

from importlib.metadata import EntryPoint, entry_points

import structlog

from parley_server.domain.errors import StartError

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def names_in(group: str) -> frozenset[str]:
    """Return the names in a group of entry points."""
    return frozenset(_entries(group))


def make_installed(group: str, name: str, setting: str) -> object:
    """Make what a group has by a name. Raises StartError that names the setting when it is not there or fails."""
    place = f"{setting}, {name}"
    there = _entries(group)
    if name not in there:
        known = ", ".join(sorted(there)) or "none"
        raise StartError(f"{place}: no installed package has it as {group}; there are {known}")
    try:
        return there[name].load()()
    except Exception as error:
        # Where in the operator's own code it broke.
        _log.error("installed_part_not_made", place=place, exc_info=error)
        raise StartError(f"{place}: cannot be made ({type(error).__name__}); the log says why") from error


def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}
