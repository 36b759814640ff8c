"""The tools of this server, by name: those that are there at start, and those that sources bring while it runs."""

from collections.abc import Collection, Iterable, Sequence

import structlog

from parley_server.domain.tool import ToolSpec
from parley_server.tools.tool import Tool

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ToolRegistry:
    """All tools there are. Raises ValueError when two have the same name. `disabled` names some that nobody is to have.

    What is looked up is in memory, and may be another tool the next time.
    """

    def __init__(self, tools: Iterable[Tool] = (), disabled: Collection[str] = ()) -> None:
        self._disabled = frozenset(disabled)
        self._own: dict[str, Tool] = {}
        for tool in tools:
            name = tool.spec.name
            if name in self._own:
                raise ValueError(f"two tools are named {name}")
            if name not in self._disabled:
                self._own[name] = tool
        self._published: dict[str, tuple[Tool, ...]] = {}
        self._tools = self._own

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order the tools were given; those of sources come after them, in the order of sources."""
        return tuple(self._tools)

    def get(self, name: str) -> Tool | None:
        """Return one, or None."""
        return self._tools.get(name)

    def specs(self, names: Iterable[str]) -> tuple[ToolSpec, ...]:
        """Return the specs of these tools, in this order, without those that are not there (any more)."""
        return tuple(self._tools[name].spec for name in names if name in self._tools)

    def require(self, names: Iterable[str]) -> None:
        """Raise ValueError for a name that no tool has."""
        for name in names:
            if name not in self._tools:
                raise ValueError(f"no tool is named {name}")

    def publish(self, source: str, tools: Sequence[Tool]) -> None:
        """Put these in the place of all tools of a source. One whose name another tool has is left out, and logged."""
        self._published[source] = tuple(tools)
        all_tools = dict(self._own)
        for origin in sorted(self._published):
            for tool in self._published[origin]:
                name = tool.spec.name
                if name in self._disabled:
                    continue
                if all_tools.setdefault(name, tool) is not tool:
                    _log.warning("tool_name_taken", tool=name, source=origin, by=all_tools[name].spec.source)
        # In one step: whoever looks meanwhile sees the old ones or the new ones.
        self._tools = all_tools
