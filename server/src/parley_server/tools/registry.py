"""The tools of this server, by name."""

from collections.abc import Iterable

from parley_server.domain.tool import ToolSpec
from parley_server.tools.tool import Tool


class ToolRegistry:
    """All tools there are. Raises ValueError when two have the same name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            name = tool.spec.name
            if name in self._tools:
                raise ValueError(f"two tools are named {name}")
            self._tools[name] = tool

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order the tools were given."""
        return tuple(self._tools)

    def get(self, name: str) -> Tool | None:
        """Return one, or None."""
        return self._tools.get(name)

    def specs(self, names: Iterable[str]) -> tuple[ToolSpec, ...]:
        """Return the specs of these tools, in this order. Raises ValueError for a name that no tool has."""
        return tuple(self._require(name).spec for name in names)

    def _require(self, name: str) -> Tool:
        tool = self._tools.get(name)
        if tool is None:
            raise ValueError(f"no tool is named {name}")
        return tool
