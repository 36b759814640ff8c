"""Finds the tools that are installed beside the server: in modules that the settings name, and by entry points."""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeGuard

import structlog

from parley_server.domain.errors import StartError
from parley_server.domain.tool import ToolSpec
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import Tool

ENTRY_POINT_GROUP = "parley.tools"

# A tool and where it is from, for the operator.
Found = tuple[Tool, str]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def discover(modules: Iterable[str]) -> Iterator[Found]:
    """Yield every tool at the top of these modules and of what installed packages name as `parley.tools`.

    Raises:
        StartError: one cannot be imported, or has no tools.
    """
    for name in modules:
        place = f"[tools] modules, {name}"
        module = _loaded(partial(import_module, name), place)
        yield from _tools_of(module, place)
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        place = f"the entry point {entry.name} = {entry.value} of {ENTRY_POINT_GROUP}"
        yield from _tools_of(_loaded(entry.load, place), place)


def register(
    built_in: Iterable[Tool], found: Iterable[Found], disabled: Iterable[str], prefixes: Collection[str] = ()
) -> ToolRegistry:
    """Make the registry of all tools that are not disabled; a tool that is found at two places is one.

    What begins with one of `prefixes` may be disabled though it is not there: its source may bring it later.

    Raises:
        StartError: two tools have one name, or a disabled one is not there.
    """
    unwanted = set(disabled)
    tools: dict[str, Found] = {}
    for tool, place in [*((tool, "this server") for tool in built_in), *found]:
        name = tool.spec.name
        other, other_place = tools.setdefault(name, (tool, place))
        if other is not tool and name not in unwanted:
            raise StartError(f"two tools are named {name}: of {other_place} and of {place}; rename one or disable both")
    unknown = sorted(name for name in unwanted - tools.keys() if not name.startswith(tuple(prefixes)))
    if unknown:
        raise StartError(
            f"[tools] disabled: no tool is named {', '.join(unknown)}; there are {', '.join(sorted(tools))}"
        )
    return ToolRegistry((tool for tool, _ in tools.values()), unwanted)


def _loaded(load: Callable[[], object], place: str) -> object:
    try:
        return load()
    except Exception as error:
        # Where in the operator's own code it broke.
        _log.error("tools_not_importable", place=place, exc_info=error)
        raise StartError(
            f"{place}: cannot be imported ({type(error).__name__}: {error}); it must be installed where the server is"
        ) from error


def _tools_of(loaded: object, place: str) -> Iterator[Found]:
    values = vars(loaded).values() if isinstance(loaded, ModuleType) else [loaded]
    tools = [value for value in values if _is_tool(value)]
    if not tools:
        raise StartError(f"{place}: has no tools; make one with @tool at the top of the module")
    yield from ((tool, place) for tool in tools)


def _is_tool(value: object) -> TypeGuard[Tool]:
    is_object = not inspect.isclass(value) and not isinstance(value, ModuleType)
    return is_object and isinstance(getattr(value, "spec", None), ToolSpec) and callable(getattr(value, "call", None))
